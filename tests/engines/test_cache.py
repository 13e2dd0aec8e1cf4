"""The engine cache: a hit is what was built, damage is found, two builders build once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgevision.bundle.targets import get_target
from edgevision.bundle.tensors import ShapeProfile
from edgevision.cli import main
from edgevision.engines import cache as module
from edgevision.engines.cache import EngineCache, cache_key, cached_build
from edgevision.engines.cache_archive import export_cache, import_cache
from edgevision.engines.request import BuildRequest
from edgevision.errors import FileReadError, FileWriteError
from tests.parts.tiny_bundles import doubled, strongest_channel

HOST = get_target("host-cpu")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    graph = tmp_path / "net.onnx"
    graph.write_bytes(strongest_channel())
    return BuildRequest(graph, HOST, tmp_path / "engine.onnx")


def test_who_has_no_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> object:
        raise KeyError(f"uid not found: {uid}")

    for name in ("HOME", "XDG_CACHE_HOME", "EDGEVISION_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(FileNotFoundError, match="Set EDGEVISION_CACHE to a folder"):
        EngineCache()


def folder(cache: EngineCache) -> Path:
    (entry,) = cache.entries()
    return cache.root / "engines" / entry.key


def test_the_second_build_is_a_hit(cache: EngineCache, request_: BuildRequest) -> None:
    built = cached_build(request_, cache=cache)
    content = built.path.read_bytes()
    assert not built.cached
    built.path.unlink()
    again = cached_build(request_, cache=cache)
    assert again.cached
    assert again.path.read_bytes() == content
    assert again.seconds < 1
    wanted = replace(again, seconds=built.seconds, log=built.log, cached=False)
    assert wanted == built
    assert not cached_build(request_, cache=None).cached


@pytest.mark.parametrize(
    "change",
    [
        {"target": get_target("rtx")},
        {"target": get_target("local-cpu")},
        {"profiles": {"frame": ShapeProfile((1, 2), (1, 2), (1, 2))}},
        {"workspace_bytes": 1},
        {"optimization_level": 3},
        {"version_compatible": True},
    ],
)
def test_whatever_shapes_an_engine_is_in_its_key(
    request_: BuildRequest, change: dict[str, object]
) -> None:
    assert cache_key(replace(request_, **change)) != cache_key(request_)  # type: ignore[arg-type]
    assert cache_key(replace(request_, output=Path("elsewhere"))) == cache_key(request_)
    key = cache_key(request_)
    request_.graph.write_bytes(doubled())
    assert cache_key(request_) != key


@pytest.mark.parametrize("name", ["artifact", "entry.json"])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 0.99])
def test_damage_is_found_and_built_anew(
    cache: EngineCache, request_: BuildRequest, name: str, place: float
) -> None:
    content = cached_build(request_, cache=cache).path.read_bytes()
    file = folder(cache) / name
    damaged = bytearray(file.read_bytes())
    damaged[int(place * len(damaged))] ^= 1
    file.write_bytes(damaged)
    again = cached_build(request_, cache=cache)
    assert again.path.read_bytes() == content
    assert name == "entry.json" or not again.cached
    assert cached_build(request_, cache=cache).cached


def test_an_entry_answers_for_its_own_key_alone(
    cache: EngineCache, built: tuple[str, bytes, bytes], request_: BuildRequest, tmp_path: Path
) -> None:
    """Renamed folders must not swap two nets' engines."""
    cache.adopt(*built)
    key = str(cache_key(replace(request_, optimization_level=1)))
    folder(cache).rename(cache.root / "engines" / key)
    assert cache.entries() == []
    assert cache.take(key, tmp_path / "out") is None
    with pytest.raises(ValueError, match="was built from something else than its key says"):
        cache.adopt(key, *built[1:])


def test_what_any_machine_runs_is_the_graph_itself(
    cache: EngineCache, built: tuple[str, bytes, bytes]
) -> None:
    key, entry, _ = built
    forged = doubled()
    told = json.loads(entry)
    told |= {"sha256": hashlib.sha256(forged).hexdigest(), "size_bytes": len(forged)}
    with pytest.raises(ValueError, match="is not the graph that it was built from"):
        cache.adopt(key, json.dumps(told).encode(), forged)


def change(**fields: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = folder / "entry.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return apply


def write(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "entry.json").write_text(text) and None


def link_artifact(folder: Path) -> None:
    (folder / "artifact").rename(folder.parent / "elsewhere")
    (folder / "artifact").symlink_to("../elsewhere")


def link_entry(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to("elsewhere")


def link_to_nothing(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def file_for_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("in the way")


def pipe(folder: Path) -> None:
    (folder / "artifact").unlink()
    os.mkfifo(folder / "artifact")


def open_to_all(folder: Path) -> None:
    folder.chmod(0o777)


def file_open_to_all(folder: Path) -> None:
    (folder / "artifact").chmod(0o666)


RESULT = {"version": "1", "sm": [], "inputs": [], "outputs": [], "layers": None}
DAMAGES = {
    "nested": write("[" * 100_000 + "]" * 100_000),
    "not an object": write("[]"),
    "infinite size": write('{"size_bytes": 1e999}'),
    "a size of another type": change(size_bytes="1"),
    "a size below zero": change(size_bytes=-1),
    "an input that is not an object": change(result=RESULT | {"inputs": [3]}),
    "another flavour": change(flavour="trt"),
    "not a key": change(key=None),
    "another key": change(key={"flavour": "ort"}),
    "no text": change(target=3),
    "terminal codes": change(target="a\x1b[2J"),
    "a link for the artifact": link_artifact,
    "a link for the folder": link_entry,
    "a link to nothing": link_to_nothing,
    "a file for the folder": file_for_folder,
    "a pipe": pipe,
    "open to all": open_to_all,
    "a file open to all": file_open_to_all,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes, bytes]:
    """A key, its entry and its artifact."""
    path = tmp_path_factory.mktemp("built")
    (path / "net.onnx").write_bytes(strongest_channel())
    cache = EngineCache(path / "cache")
    cached_build(BuildRequest(path / "net.onnx", HOST, path / "engine.onnx"), cache=cache)
    (entry,) = cache.entries()
    return (entry.key, *cache.read(entry))


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_damaged_is_passed_over_and_replaced(
    cache: EngineCache, built: tuple[str, bytes, bytes], tmp_path: Path, damage: str
) -> None:
    key, _, artifact = built
    assert cache.adopt(*built)
    DAMAGES[damage](folder(cache))
    assert export_cache(cache, tmp_path / "c.tar") == 0
    assert cache.take(key, tmp_path / "out") is None
    assert cache.adopt(*built)
    assert cache.take(key, tmp_path / "out") is not None
    assert (tmp_path / "out").read_bytes() == artifact


def test_damaged_entries_are_pruned(cache: EngineCache, built: tuple[str, bytes, bytes]) -> None:
    cache.adopt(*built)
    DAMAGES["nested"](folder(cache))
    assert cache.prune(1 << 30) == []
    assert os.listdir(cache.root / "engines") == []


def test_two_builders_build_once_and_both_get_it(
    cache: EngineCache, request_: BuildRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds: list[str] = []
    real = module.build_engine

    def counted(request: BuildRequest, progress: object) -> object:
        builds.append(request.output.name)
        return real(request, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "build_engine", counted)
    waited: list[str] = []
    outputs = [tmp_path / f"{number}.onnx" for number in range(3)]
    threads = [
        threading.Thread(
            target=cached_build,
            args=(replace(request_, output=output), lambda phase, *_: waited.append(phase)),
            kwargs={"cache": cache},
        )
        for output in outputs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert len({output.read_bytes() for output in outputs}) == 1
    assert any("waiting for another build" in phase for phase in waited)
    assert not list(cache.root.glob("*.lock"))


def test_what_was_not_used_for_longest_goes_first(
    cache: EngineCache, request_: BuildRequest
) -> None:
    for level in range(3):
        cached_build(replace(request_, optimization_level=level), cache=cache)
    keys = [cache_key(replace(request_, optimization_level=level)) for level in range(3)]
    for age, key in enumerate((keys[1], keys[2], keys[0])):
        os.utime(cache.root / "engines" / str(key) / "entry.json", (1000 - age, 1000 - age))
    size = cache.entries()[0].size_bytes
    assert [entry.key for entry in cache.prune(2 * size)] == [keys[0]]
    with cache.lock(str(keys[2])):
        assert [entry.key for entry in cache.prune(0)] == [keys[1]]
    assert [entry.key for entry in cache.entries()] == [keys[2]]


def test_what_a_dead_writer_left_is_cleared(cache: EngineCache, request_: BuildRequest) -> None:
    cached_build(request_, cache=cache)
    left = cache.root / "engines" / f".partial-{'0' * 64}-12345678"
    left.mkdir()
    (cache.root / f"{'1' * 64}.lock").touch()
    cache.prune(1 << 30)
    assert not left.exists()
    assert not list(cache.root.glob("*.lock"))
    assert len(cache.entries()) == 1


def test_a_cache_that_cannot_be_written_costs_no_build(
    tmp_path: Path, request_: BuildRequest
) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="no engine cache in .*file"):
        assert cached_build(request_, cache=EngineCache(tmp_path / "file")).path.exists()


def test_it_travels_as_a_tar_file(
    cache: EngineCache, request_: BuildRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cached_build(request_, cache=cache)
    tar, other = str(tmp_path / "c.tar"), str(tmp_path / "other")
    assert main(["cache", "export", tar, "--cache", str(cache.root)]) == 0
    assert main(["cache", "import", tar, "--cache", other]) == 0
    assert main(["cache", "import", tar, "--cache", other]) == 0
    told = capsys.readouterr().out
    assert "0 engines new from" in told
    assert "no signature covers them: what each was built from is as the file says" in told
    assert cached_build(request_, cache=EngineCache(other)).cached
    assert main(["cache", "ls", "--cache", other]) == 0
    assert "host-cpu" in capsys.readouterr().out
    assert main(["cache", "prune", "--max-bytes", "0", "--cache", other]) == 0
    assert EngineCache(other).entries() == []
    assert main(["cache", "prune", "--cache", other]) == 2
    assert main(["cache", "export", "--cache", other]) == 2


def rename(member: tarfile.TarInfo) -> None:
    member.name = "../" + member.name


def link(member: tarfile.TarInfo) -> None:
    member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0


def test_an_export_replaces_an_export_alone(
    cache: EngineCache, request_: BuildRequest, tmp_path: Path
) -> None:
    file = tmp_path / "engines.tar"
    assert export_cache(cache, file) == 0
    cached_build(request_, cache=cache)
    assert export_cache(cache, file) == 1
    with tarfile.open(file, "w") as theirs:
        theirs.add(__file__, "photos/0.jpg")
    before = file.read_bytes()
    with pytest.raises(FileWriteError, match="not known to be made by edgevision"):
        export_cache(cache, file)
    assert file.read_bytes() == before
    assert export_cache(cache, file, force=True) == 1


def other_key(member: tarfile.TarInfo) -> None:
    member.name = "x" + member.name[1:]


@pytest.mark.parametrize("attack", [rename, link, other_key])
def test_a_hostile_archive_is_refused(
    cache: EngineCache,
    request_: BuildRequest,
    tmp_path: Path,
    attack: Callable[[tarfile.TarInfo], None],
) -> None:
    cached_build(request_, cache=cache)
    export_cache(cache, tmp_path / "c.tar")
    with tarfile.open(tmp_path / "c.tar") as old, tarfile.open(tmp_path / "bad.tar", "w") as bad:
        for member in old.getmembers():
            content = old.extractfile(member)
            assert content is not None
            data = content.read()
            attack(member)
            bad.addfile(member, io.BytesIO(data))
    other = EngineCache(tmp_path / "other")
    with pytest.raises(FileReadError, match="is not an export of an engine cache"):
        import_cache(other, tmp_path / "bad.tar")
    assert other.entries() == []


def test_an_archive_that_cannot_be_written_is_a_write_error(
    cache: EngineCache, tmp_path: Path
) -> None:
    with pytest.raises(FileWriteError, match="could not write"):
        export_cache(cache, tmp_path / "nowhere" / "c.tar")


def sparse(member: tarfile.TarInfo, size_bytes: int) -> bytes:
    """A header that says: so many bytes of nothing."""
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = b"S"
    block[386:410] = b"%011o\0" % 0 + b"%011o\0" % 0
    block[483:495] = b"%011o\0" % size_bytes
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def long_header(member: tarfile.TarInfo, field: bytes) -> bytes:
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("attack", ["sparse", "larger than the file", "negative"])
def test_an_archive_that_claims_more_than_it_has_is_refused(
    cache: EngineCache, tmp_path: Path, attack: str
) -> None:
    entry, artifact = (tarfile.TarInfo(f"{'a' * 64}/{name}") for name in ("entry.json", "artifact"))
    entry.size = 2
    header = {
        "sparse": lambda: sparse(artifact, 3 << 30),
        "larger than the file": lambda: long_header(artifact, b"%011o\0" % (3 << 30)),
        "negative": lambda: long_header(artifact, b"\xff\xc0" + bytes(10)),
    }[attack]()
    content = entry.tobuf(tarfile.GNU_FORMAT) + b"{}".ljust(512, b"\0") + header + bytes(1024)
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(FileReadError, match="is not an export of an engine cache"):
        import_cache(cache, tmp_path / "bad.tar")


def test_pipes_in_a_cache_and_for_an_archive_do_not_hang(
    cache: EngineCache, tmp_path: Path
) -> None:
    left = cache.root / "engines" / ("a" * 64)
    left.mkdir(parents=True)
    os.mkfifo(left / "entry.json")
    assert cache.entries() == []
    os.mkfifo(tmp_path / "fifo.tar")
    with pytest.raises(FileReadError, match="it is not a regular file"):
        import_cache(cache, tmp_path / "fifo.tar")


def test_other_files_are_no_archive(cache: EngineCache, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for name in ("text", "gone"):
        with pytest.raises(FileReadError, match="is not an export of an engine cache"):
            import_cache(cache, tmp_path / name)

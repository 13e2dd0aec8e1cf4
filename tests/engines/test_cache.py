"""The engine cache: a hit is what was built, damage is found, two builders build once."""

from __future__ import annotations

import io
import os
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
from edgevision.errors import FileReadError
from tests.runtime.conftest import doubled, strongest_channel

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
    assert "0 engines new from" in capsys.readouterr().out
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
    with pytest.raises(FileReadError, match="not known to be made by edgevision"):
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
    with pytest.raises(FileReadError, match="is no export of an engine cache"):
        import_cache(other, tmp_path / "bad.tar")
    assert other.entries() == []


def test_other_files_are_no_archive(cache: EngineCache, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for name in ("text", "gone"):
        with pytest.raises(FileReadError, match="is no export of an engine cache"):
            import_cache(cache, tmp_path / name)

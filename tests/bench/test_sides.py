"""What `bench compare` starts, bundles, wheels and revisions; and workers that fail."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edgevision
from edgevision.bench import reference
from edgevision.bench.cold import cold_start
from edgevision.bench.gate import counts
from edgevision.bench.gate.process import Side, workers
from edgevision.bench.gate.sides import of_bundle, of_package
from edgevision.bundle.directory import Bundle
from edgevision.bundle.flavours import TRT
from edgevision.bundle.targets import get_target
from edgevision.engines.finish import finish_target
from edgevision.errors import FileReadError, RunError

PACKAGE = Path(edgevision.__file__).parent
ROOT = PACKAGE.parent


def said(side: Side) -> dict[str, object]:
    """Start a worker, and return what it says of itself."""
    with workers([side]) as (worker,):
        return worker.told


def python(program: str) -> Side:
    return Side("strange", (sys.executable, "-c", program))


def test_a_worker_says_what_it_runs_and_answers_each_line(bundle: Bundle) -> None:
    with workers([of_bundle(bundle.root)]) as (worker,):
        assert worker.told["task"] == "semantic"
        assert Path(str(worker.told["package"])).parent == PACKAGE
        assert int(worker.ask("5")) > 0
        assert worker.ask("again").strip() == "0"
        assert int(worker.ask("1")) > 0
        first, second = (json.loads(worker.ask("counts")) for _ in range(2))
    # Python's own small blocks come and go; calls and bytes moved are the same every time.
    assert abs(first.pop("allocated_bytes") - second.pop("allocated_bytes")) < 1024
    assert first == second
    assert first["bytes_in"] == 6 * 10 * 3


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit('no memory')", "ended with code 1:\nno memory"),
        ("print('Welcome!')", "said 'Welcome!' where it should say what it is"),
        ("print('[1, 2]')", "where it should say what it is"),
        ("print('{}', flush=True); import os; os.kill(os.getpid(), 9)", "ended with code -9"),
    ],
)
def test_a_worker_that_fails_is_one_message(program: str, message: str) -> None:
    with pytest.raises(RunError) as caught, workers([python(program)]) as (worker,):
        worker.ask("1")
        worker.ask("1")
    assert message in str(caught.value)


def test_no_worker_outlives_an_error(bundle: Bundle) -> None:
    with pytest.raises(RunError), workers([of_bundle(bundle.root), python("raise SystemExit(3)")]):
        pass
    listed = subprocess.run(
        ["ps", "-eo", "args"], capture_output=True, text=True, check=True
    ).stdout
    assert str(bundle.root) not in listed


def wheel(folder: Path) -> Path:
    """Write a wheel of this edgevision that says another version."""
    path = folder / "edgevision-9.9.9-py3-none-any.whl"
    info = "edgevision-9.9.9.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        for source in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.jinja")]:
            file.write(source, source.relative_to(ROOT))
        file.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: edgevision\nVersion: 9.9.9\n"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return path


def test_a_wheel_runs_in_an_environment_of_its_own(bundle: Bundle, tmp_path: Path) -> None:
    (home := tmp_path / "wheel").mkdir()
    told = said(of_package(str(wheel(tmp_path)), bundle.root, home))
    assert Path(str(told["package"])).is_relative_to(home)


def test_a_revision_is_taken_from_git(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    asked = ["git", "rev-parse", "HEAD"]
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("no git repository around here")
    told = said(of_package("HEAD", bundle.root, tmp_path))
    assert Path(str(told["package"])).is_relative_to(tmp_path / "tree")


def test_an_interpreter_brings_its_own_packages(bundle: Bundle, tmp_path: Path) -> None:
    side = of_package(sys.executable, bundle.root, tmp_path)
    assert side.command[0] == sys.executable
    assert said(side)["task"] == "semantic"


@pytest.mark.parametrize("source", ["no-such-revision", "--upload-pack=touch x", "gone.whl"])
def test_what_is_nothing_is_refused(source: str, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(FileReadError, match=r"or git revision with|there is no wheel"):
        of_package(source, bundle.root, tmp_path)


def test_a_broken_wheel_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (broken := tmp_path / "edgevision-1-py3-none-any.whl").write_bytes(b"PK\3\4garbage")
    with pytest.raises(RunError, match="cannot be installed"):
        of_package(str(broken), bundle.root, tmp_path)


def test_a_cold_start_is_told_in_parts(bundle: Bundle) -> None:
    told: list[tuple[int, int]] = []
    found = cold_start(
        of_bundle(bundle.root), processes=2, progress=lambda _, done, of: told.append((done, of))
    )
    assert (found.processes, told) == (2, [(0, 2), (1, 2)])
    parts = (found.interpreter_ms, found.import_ms, found.load_ms, found.first_answer_ms)
    assert all(part > 0 for part in parts)
    assert found.import_ms > found.first_answer_ms
    assert found.total_ms > max(parts)


def test_counts_of_the_same_bundle_do_not_grow(bundle: Bundle) -> None:
    side = of_bundle(bundle.root)
    found = counts.count(side, side)
    assert counts.sentence(found) == "Counts per frame: nothing grew."
    sizes = {file.path: file.size_bytes for file in bundle.manifest.files}
    assert found.first["engine_bytes"] == sizes["stages/main/host-cpu.onnx"]


def test_other_ways_are_measured_or_say_why_not(bundle: Bundle) -> None:
    with edgevision.load(bundle) as model:
        inputs, _ = bundle.golden("main")
        found = reference.rows(
            bundle, model, inputs["frame"][0][0],
            {"plain numpy": lambda feeds: feeds["frame"].argmax(-1), "torch": "give --model"},
            rounds=6,
        )  # fmt: skip
    rows = {row.name: row for row in found}
    assert rows["edgevision"].ratio == 1.0
    for name in ("ONNX Runtime, bound once", "plain numpy"):
        row = rows[name]
        assert row.low is not None
        assert row.high is not None
        assert row.ratio is not None
        assert 0 < row.low <= row.ratio <= row.high
    assert rows["torch"].note == "give --model"
    assert rows["trtexec"].note == "it runs TensorRT's plans, and this is none"
    assert rows["OpenVINO"].note or rows["OpenVINO"].ratio


def test_a_finished_engine_is_measured_as_one_in_the_bundle(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEVISION_CACHE", str(tmp_path / "cache"))
    done = finish_target(bundle, get_target("local-cpu"))
    with edgevision.load(bundle) as model:
        inputs, _ = bundle.golden("main")
        found = reference.rows(bundle, model, inputs["frame"][0][0], {}, rounds=6)
    assert {row.name for row in found} >= {"edgevision", "ONNX Runtime, bound once"}
    side = of_bundle(bundle.root)
    (engine,) = done.record.stages
    assert counts.count(side, side).first["engine_bytes"] == engine.size_bytes


def test_trtexec_is_asked_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    plan = b"a plan"
    assert reference._trtexec(plan, TRT).note == "not on this machine's PATH"
    tool = tmp_path / "trtexec"
    tool.write_text(
        "#!/bin/sh\n"
        'echo "[I] Latency: min = 1.2 ms, max = 2 ms, mean = 1.6 ms, median = 1.5 ms"\n'
        'echo "$@"\n'
    )
    tool.chmod(0o755)
    row = reference._trtexec(plan, TRT)
    assert row.median_us == 1500.0
    assert row.ratio is None, "it was not interleaved with ours"
    assert "--useCudaGraph" in row.note
    tool.write_text("#!/bin/sh\nexit 3\n")
    assert "failed with code 3" in reference._trtexec(plan, TRT).note

"""Loading a bundle: the choice of an artifact, the answers, and each refusal."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgevision.bundle.directory import Bundle, BundleWriter
from edgevision.bundle.flavours import ORT, TRT, TRT_RTX
from edgevision.bundle.manifest import Artifact
from edgevision.bundle.tensors import TensorSpec
from edgevision.errors import (
    BundleFormatError,
    BundleIntegrityError,
    EngineLoadError,
    FrameError,
    MissingDependencyError,
    PendingError,
    TargetMismatchError,
)
from edgevision.runtime.load import load
from edgevision.runtime.verify import verify
from tests.parts.tiny_bundles import HEIGHT, WIDTH, semantic_bundle

KEPT = Path(__file__).parents[1] / "data" / "bundles"
ON_CPU = Artifact("host-cpu", ORT, "stages/main/host-cpu.onnx", version="1")
ON_RTX = Artifact("rtx", TRT_RTX, "stages/main/model.onnx", version="1.7", sm=("8.9",))
ON_ORIN = Artifact("jetson-orin-jp6", TRT, None, reason="needs an Orin", command="touch MARK")


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def test_loads_runs_and_explains(tmp_path: Path, frame: np.ndarray) -> None:
    bundle = semantic_bundle(tmp_path / "a.ev", artifacts=(ON_ORIN, ON_RTX, ON_CPU))
    with load(bundle.root) as model:
        result = model(frame)
        explained = model.explain()
    assert model.explain().endswith("; closed")
    np.testing.assert_array_equal(result.mask, frame.argmax(-1))
    assert result.timings.total_ms > 0
    lines = explained.splitlines()
    assert lines[0].startswith("runs 'host-cpu' (stages/main/host-cpu.onnx)")
    assert "not 'jetson-orin-jp6': pending (needs an Orin)" in lines
    assert any(line.startswith("not 'rtx'") for line in lines)


def test_a_bundle_with_nothing_but_pending_gives_the_command(tmp_path: Path) -> None:
    bundle = semantic_bundle(tmp_path / "a.ev", artifacts=(ON_ORIN,))
    with pytest.raises(
        PendingError, match=r"with: edgevision finish /\S+\.ev --target jetson-orin-jp6$"
    ):
        load(bundle)


def test_insisting_on_a_device_never_falls_back(bundle: Bundle) -> None:
    with pytest.raises(TargetMismatchError, match="host-cpu: runs on the CPU"):
        load(bundle, device="cuda")


def test_unknown_device(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="got 'tpu', expected auto, cpu or cuda"):
        load(bundle, device="tpu")


def test_wrong_arguments_are_refused_also_where_they_are_not_used(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="got 'x', expected auto, cuda-bindings or pycuda"):
        load(bundle, device="cpu", binding="x")
    with pytest.raises(TypeError, match=r"got dict, expected edgevision\.RunOptions"):
        load(bundle, options={"slots": 2})  # type: ignore[arg-type]


def test_missing_onnx_runtime_gives_the_pip_line(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgevision\[ort\]'"):
        load(bundle)


def test_an_engine_with_other_tensors_than_promised_is_refused(
    bundle: Bundle, tmp_path: Path
) -> None:
    (stage,) = bundle.manifest.stages
    (frame,) = stage.inputs
    renamed = replace(stage, inputs=(TensorSpec("picture", frame.dtype, frame.shape),))
    with BundleWriter(tmp_path / "b.ev") as writer:
        for path in (stage.graph, "stages/main/host-cpu.onnx"):
            writer.add(path, bundle.read(path))
        inputs, outputs = bundle.golden("main")
        writer.add_golden("main", {"picture": inputs["frame"]}, outputs)
        lying = writer.publish(replace(bundle.manifest, stages=(renamed,), files=()))
    with pytest.raises(EngineLoadError, match="manifest promises picture: uint8"):
        load(lying)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"task": "dream"},
            "this edgevision knows semantic, instance, ",
        ),
        ({"settings": {}}, "channel_order is None"),
        ({"settings": {"channel_order": "rgb", "classes": []}}, "list of 1 to 256 classes"),
        (
            {"settings": {"channel_order": "rgb", "classes": [{"name": "a", "color": "red"}]}},
            "expected {name, color: #rrggbb}",
        ),
    ],
)
def test_a_task_that_does_not_fit_is_refused(
    bundle: Bundle, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with BundleWriter(tmp_path / "b.ev") as writer:
        for path in ("stages/main/model.onnx", "stages/main/host-cpu.onnx"):
            writer.add(path, bundle.read(path))
        writer.add_golden("main", *bundle.golden("main"))
        changed = writer.publish(replace(bundle.manifest, **change, files=()))
    with pytest.raises(BundleFormatError, match=message):
        load(changed)


@pytest.mark.parametrize(
    ("fed", "message"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), r"got uint8\[6, 10\], expected a numpy array uint8"),
        (np.zeros((HEIGHT, WIDTH, 4), np.uint8), r"got uint8\[6, 10, 4\]"),
        (np.zeros((HEIGHT * 2, WIDTH, 3), np.uint8), "Convert or resize it"),
        (np.zeros((HEIGHT, WIDTH, 3), np.float32), "got float32"),
        ("street.jpg", "got str, expected a numpy array"),
        ({"frame": None}, "got a dict, expected one frame"),
    ],
)
def test_wrong_frames_say_what_would_be_right(bundle: Bundle, fed: object, message: str) -> None:
    with load(bundle) as model, pytest.raises(FrameError, match=message):
        model(fed)  # type: ignore[arg-type]


def test_verify_passes_and_names_what_it_ran(bundle: Bundle) -> None:
    (report,) = verify(bundle)
    assert report.passed
    assert report.name == "main/host-cpu/classes"
    assert report.elements == 3 * HEIGHT * WIDTH


def test_verify_finds_an_engine_that_disagrees(bundle: Bundle, tmp_path: Path) -> None:
    inputs, outputs = bundle.golden("main")
    with BundleWriter(tmp_path / "b.ev") as writer:
        for path in ("stages/main/model.onnx", "stages/main/host-cpu.onnx"):
            writer.add(path, bundle.read(path))
        writer.add_golden("main", inputs, {"classes": (outputs["classes"] + 1) % 3})
        wrong = writer.publish(replace(bundle.manifest, files=()))
    (report,) = verify(wrong)
    assert not report.passed
    assert report.mismatch_share == 1.0


@pytest.mark.parametrize("path", sorted(KEPT.iterdir()), ids=lambda path: path.name)
def test_a_bundle_of_every_schema_is_verified_and_runs(path: Path) -> None:
    assert all(report.passed for report in verify(Bundle.open(path)))
    frame = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    with load(path) as model:
        np.testing.assert_array_equal(model(frame).mask, frame.argmax(-1))


@pytest.mark.parametrize("has_threads", [True, False], ids=["beside", "no thread to be had"])
@pytest.mark.parametrize("name", ["golden.npz", "stages/main/model.onnx"])
def test_a_changed_file_that_nothing_runs_is_refused_and_nothing_stays_open(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, has_threads: bool
) -> None:
    if not has_threads:

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
    path = bundle.root / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleIntegrityError, match=f"'{name}' was changed"):
        load(bundle.root)
    gc.collect()  # a session that was left open would warn


def test_a_first_answer_imports_no_more_than_it_needs(bundle: Bundle) -> None:
    # Each of these costs a process's first answer more than the check of a small bundle.
    spared = (
        "asyncio", "email", "edgevision.bundle.record", "edgevision.bundle.signature",
        "edgevision.runtime.device.cuda.device", "edgevision.runtime.stream.pipeline",
        "edgevision.tasks.caption", "edgevision.tasks.generated",
    )  # fmt: skip
    code = (
        "import sys, numpy, onnxruntime; known = set(sys.modules); import edgevision\n"
        f"with edgevision.load({str(bundle.root)!r}) as model:\n"
        f"    model(numpy.zeros(({HEIGHT}, {WIDTH}, 3), 'uint8'))\n"
        f"print(*sorted((set(sys.modules) - known) & set({spared})))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []

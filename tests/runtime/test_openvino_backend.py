"""OpenVINO's programs: every type, FP32 as it is, refusals in one line, and no reports home."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, load_model_from_string, numpy_helper

from edgevision.bench import reference
from edgevision.bundle.flavours import OPENVINO, ORT
from edgevision.bundle.manifest import Artifact
from edgevision.bundle.tensors import DYNAMIC, DType, TensorSpec
from edgevision.errors import EngineLoadError, RunError
from edgevision.runtime.backends import openvino as backend
from edgevision.runtime.backends.openvino import OpenVinoProgram, open_program
from edgevision.runtime.device.host import HostStream
from edgevision.runtime.load import load
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.runtime.verify import verify
from edgevision.testing import SimulatedDevice
from tests.parts.tiny_bundles import (
    HEIGHT,
    WIDTH,
    doubled,
    semantic_bundle,
    serialized,
    strongest_channel,
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed"
)

TYPES = {
    TensorProto.BOOL: DType.BOOL, TensorProto.UINT8: DType.UINT8, TensorProto.INT8: DType.INT8,
    TensorProto.INT32: DType.INT32, TensorProto.INT64: DType.INT64,
    TensorProto.FLOAT16: DType.FLOAT16, TensorProto.FLOAT: DType.FLOAT32,
}  # fmt: skip


def repeated(onnx_type: int) -> bytes:
    """Return a graph that gives `x` twice, in two outputs."""
    info = helper.make_tensor_value_info
    return serialized(
        helper.make_graph(
            [helper.make_node("Identity", ["x"], [name]) for name in "yz"],
            "repeated",
            [info("x", onnx_type, (2, 3))],
            [info("z", onnx_type, (2, 3)), info("y", onnx_type, (2, 3))],
        )
    )


@pytest.mark.parametrize("onnx_type", TYPES, ids=lambda kind: TYPES[kind].value)
def test_every_type_crosses_the_boundary(onnx_type: int) -> None:
    dtype = TYPES[onnx_type]
    with Session.open(repeated(onnx_type), flavour=OPENVINO) as session:
        assert session.inputs == (TensorSpec("x", dtype, (2, 3)),)
        assert [spec.name for spec in session.outputs] == ["z", "y"]
        sent = np.arange(6).reshape(2, 3).astype(dtype.numpy)
        for answer in session.run({"x": sent}).values():
            np.testing.assert_array_equal(answer, sent)
            assert answer.dtype == sent.dtype


def test_a_type_that_no_target_takes_is_refused() -> None:
    with pytest.raises(EngineLoadError, match="'x' has type f64, which no target takes"):
        OpenVinoProgram(repeated(TensorProto.DOUBLE))


def test_open_extents_are_told() -> None:
    assert OpenVinoProgram(doubled()).outputs == (TensorSpec("y", DType.FLOAT32, (DYNAMIC, 3)),)


def test_a_refusal_is_one_line_without_its_source_files() -> None:
    with pytest.raises(EngineLoadError) as caught:
        OpenVinoProgram(repeated(TensorProto.FLOAT).replace(b"Identity", b"NoSuchOp"))
    assert str(caught.value).startswith("OpenVINO 20")
    assert "No conversion rule found for operations: NoSuchOp" in str(caught.value)
    assert ".cpp" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_onnx_file_is_not_given_to_it() -> None:
    with pytest.raises(EngineLoadError, match=r"^OpenVINO cannot load .* not an ONNX file"):
        OpenVinoProgram(b"garbage")


def test_weights_in_another_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model_from_string(repeated(TensorProto.FLOAT))
    weights = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    weights.data_location = TensorProto.EXTERNAL
    weights.ClearField("raw_data")
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "w.bin"
    model.graph.initializer.append(weights)
    (tmp_path / "w.bin").write_bytes(bytes(16))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineLoadError, match="keeps the weights 'w' in another file"):
        OpenVinoProgram(model.SerializeToString())


def test_a_gpu_is_refused() -> None:
    with pytest.raises(EngineLoadError, match="runs on the CPU"):
        open_program(strongest_channel(), SimulatedDevice(), RunOptions())


def test_floats_and_threads_are_as_asked() -> None:
    program = open_program(strongest_channel(), None, RunOptions(cpu_threads=1))
    told = program.compiled.get_property
    assert told("INFERENCE_NUM_THREADS") == 1
    assert told("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert told("NUM_STREAMS") == 1


def quantised_conv() -> bytes:
    """Return a graph of one INT8 convolution between explicit Q and DQ."""
    rng = np.random.default_rng(0)
    stored = {
        "s": np.array(0.02, np.float32), "z": np.array(0, np.int8),
        "q": rng.integers(-127, 128, (8, 16, 3, 3)).astype(np.int8),
        "ws": np.full(8, 0.01, np.float32), "wz": np.zeros(8, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["q", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["y"], name="conv"),
    ]
    info = helper.make_tensor_value_info
    return serialized(
        helper.make_graph(
            nodes,
            "quantised",
            [info("x", TensorProto.FLOAT, (1, 16, 8, 8))],
            [info("y", TensorProto.FLOAT, (1, 8, 6, 6))],
            [numpy_helper.from_array(array, name) for name, array in stored.items()],
        )
    )


def test_where_products_overflow_they_are_computed_in_float(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = np.linspace(-2.5, 2.5, 16 * 64, dtype=np.float32).reshape(1, 16, 8, 8)
    with Session.open(quantised_conv(), flavour=ORT) as session:
        expected = session.run({"x": sent})["y"]
    monkeypatch.setattr(backend, "int8_dot_saturates", lambda: True)
    program = OpenVinoProgram(quantised_conv())
    told = [op.get_rt_info() for op in program.compiled.get_runtime_model().get_ops()]
    kinds = {
        i["runtimePrecision"].astype(str) for i in told if "Conv" in i["layerType"].astype(str)
    }
    assert kinds == {"f32"}
    with Session(program, {}) as session:
        np.testing.assert_allclose(session.run({"x": sent})["y"], expected, atol=1e-3)


def test_a_closed_execution_says_so() -> None:
    execution = OpenVinoProgram(strongest_channel()).execution(None)
    execution.close()
    with pytest.raises(RunError, match="closed"):
        execution.enqueue(HostStream())


def test_a_bundle_runs_on_it_and_is_measured_beside_others(tmp_path: Path) -> None:
    artifact = Artifact("openvino-cpu", OPENVINO, "stages/main/host-cpu.onnx", version="2025.0")
    bundle = semantic_bundle(tmp_path / "a.ev", artifacts=(artifact,))
    assert all(report.passed for report in verify(bundle))
    frame = np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    with load(bundle) as model:
        np.testing.assert_array_equal(model(frame).mask, frame.argmax(-1))
        assert model.explain().startswith("runs 'openvino-cpu'")
        rows = {row.name: row for row in reference.rows(bundle, model, frame, {}, rounds=6)}
    assert rows["ONNX Runtime, bound once"].note.startswith("the model runs on OpenVINO 20")
    assert rows["OpenVINO"].ratio


NOSY = """
from pathlib import Path
Path(__file__).with_name("told").touch()
"""
QUIET = """
import sys
from edgevision.runtime.backends.openvino import import_openvino
assert import_openvino().Core() is not None
assert "openvino.tools.ovc" not in sys.modules
"""


def test_importing_it_reports_to_nobody(tmp_path: Path) -> None:
    """Its converter, which `import openvino` imports, tells its makers by openvino_telemetry."""
    (tmp_path / "openvino_telemetry.py").write_text(NOSY)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    for program, told in ((QUIET, False), ("import openvino", True)):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": path, "HOME": str(tmp_path)},
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert (tmp_path / "told").exists() is told, done.stderr

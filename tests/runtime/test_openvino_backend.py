"""OpenVINO's programs: every type, FP32 as it is, refusals in one line, and no reports home."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgevision.bundle.flavours import OPENVINO
from edgevision.bundle.tensors import DYNAMIC, DType, TensorSpec
from edgevision.errors import EngineLoadError, RunError
from edgevision.runtime.backends.openvino import OpenVinoProgram, open_program
from edgevision.runtime.device.host import HostStream
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.testing import SimulatedDevice
from tests.runtime.conftest import doubled, serialized, strongest_channel

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
        OpenVinoProgram(b"garbage")
    assert str(caught.value).startswith("OpenVINO 20")
    assert ".cpp" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_is_refused() -> None:
    with pytest.raises(EngineLoadError, match="runs on the CPU"):
        open_program(strongest_channel(), SimulatedDevice(), RunOptions())


def test_floats_and_threads_are_as_asked() -> None:
    program = open_program(strongest_channel(), None, RunOptions(cpu_threads=1))
    told = program.compiled.get_property
    assert told("INFERENCE_NUM_THREADS") == 1
    assert told("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert told("NUM_STREAMS") == 1


def test_a_closed_execution_says_so() -> None:
    execution = OpenVinoProgram(strongest_channel()).execution(None)
    execution.close()
    with pytest.raises(RunError, match="closed"):
        execution.enqueue(HostStream())


NOSY = """
import sys
from edgevision.runtime.backends.openvino import import_openvino
openvino = import_openvino()
assert openvino.Core() is not None
assert not [name for name in sys.modules if "telemetry" in name], "it was imported"
import openvino_telemetry
"""


def test_importing_it_reports_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "openvino_telemetry.py").write_text("raise SystemExit(7)")
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(tmp_path), str(root)])
    done = subprocess.run(
        [sys.executable, "-c", NOSY],
        env={**os.environ, "PYTHONPATH": path, "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr  # the planted one, imported last by the test itself
    assert [found.name for found in tmp_path.iterdir() if found.suffix != ".py"] in (
        [],
        ["__pycache__"],
    )

"""Which artifact a machine runs, decided before any engine is touched."""

from __future__ import annotations

import pytest

from edgevision.bundle.flavours import OPENVINO, ORT, TRT, TRT_RTX, flavours
from edgevision.bundle.manifest import Artifact, Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import (
    EdgeVisionError,
    MissingDependencyError,
    PendingError,
    TargetMismatchError,
)
from edgevision.runtime.select import Machine, select, this_machine

CPU = Artifact("host-cpu", ORT, "stages/main/host-cpu.onnx", "1.20")
VINO = Artifact("openvino-cpu", OPENVINO, "stages/main/openvino-cpu.onnx", "2026.4.1")
RTX = Artifact("rtx", TRT_RTX, "stages/main/rtx.plan", "1.5.0", ("8.0", "8.9"))
ORIN = Artifact("jetson-orin-jp6", TRT, "stages/main/orin.plan", "10.3.0", ("8.7",))
PENDING = Artifact(
    "jetson-orin-jp6",
    TRT,
    path=None,
    sm=("8.7",),
    reason="needs the device",
    command="touch MARK",
)

BOTH = {"onnxruntime": "1.23.0", "openvino": "2027.0.0"}
LAPTOP = Machine(None, {"onnxruntime": "1.23.0"}, has_binding=False)
DESKTOP = Machine("8.9", {"onnxruntime": "1.23.0", "tensorrt_rtx": "1.5.0.114"}, has_binding=True)
BOARD = Machine("8.7", {"onnxruntime": "1.23.0", "tensorrt": "10.3.0.30"}, has_binding=True)


def stage(*artifacts: Artifact) -> Stage:
    x, y = (TensorSpec(name, DType.UINT8, (1, 2)) for name in "xy")
    return Stage("main", "g.onnx", (x,), (y,), {"y": Tolerance(0.0)}, artifacts=artifacts)


def on(machine: Machine, **changes: object) -> Machine:
    fields = {name: getattr(machine, name) for name in ("sm", "versions", "has_binding")}
    return Machine(**{**fields, **changes})  # type: ignore[arg-type]


CHOICES = [
    (LAPTOP, "auto", [CPU, RTX, ORIN], CPU, False, "ONNX Runtime on this CPU"),
    (DESKTOP, "auto", [CPU, RTX, ORIN], RTX, True, "fits this GPU (SM 8.9) and TensorRT-RTX 1.5.0"),
    (DESKTOP, "cuda", [CPU, RTX, ORIN], RTX, True, "fits this GPU"),
    (DESKTOP, "cpu", [CPU, RTX], CPU, False, "ONNX Runtime on this CPU"),
    (DESKTOP, "cuda", [CPU], CPU, True, "CUDA provider, as device='cuda' asks"),
    (DESKTOP, "auto", [CPU], CPU, False, "ONNX Runtime on this CPU"),
    (BOARD, "auto", [CPU, RTX, ORIN], ORIN, True, "fits this GPU (SM 8.7) and TensorRT 10.3.0"),
    (BOARD, "auto", [CPU, PENDING], CPU, False, "ONNX Runtime on this CPU"),
    (on(LAPTOP, versions=BOTH), "auto", [VINO, CPU], CPU, False, "ONNX Runtime on this CPU"),
    (on(LAPTOP, versions=BOTH), "auto", [VINO, RTX], VINO, False, "OpenVINO on this CPU"),
    (on(LAPTOP, versions={"openvino": "2025.0.0"}), "cpu", [CPU, VINO], VINO, False, "OpenVINO"),
    (on(DESKTOP, versions=BOTH), "cuda", [VINO, CPU], CPU, True, "CUDA provider"),
    (
        on(BOARD, versions={"tensorrt_lean": "10.3.0"}),
        "auto",
        [ORIN],
        ORIN,
        True,
        "fits this GPU",
    ),
]


@pytest.mark.parametrize(("machine", "device", "artifacts", "chosen", "on_gpu", "reason"), CHOICES)
def test_what_fits_is_chosen_and_says_why(
    machine: Machine,
    device: str,
    artifacts: list[Artifact],
    chosen: Artifact,
    on_gpu: bool,
    reason: str,
) -> None:
    found = select(stage(*artifacts), device=device, machine=lambda: machine)
    assert (found.artifact, found.on_gpu) == (chosen, on_gpu)
    assert reason in str(found)
    for other in artifacts:
        assert (f"not '{other.target}': " in str(found)) is (other is not chosen)


REFUSALS = [
    (on(DESKTOP, sm="9.0"), "auto", [RTX], TargetMismatchError, "SM 8.0, 8.9; this one has 9.0"),
    (
        on(DESKTOP, versions={"tensorrt_rtx": "1.4.0"}),
        "auto",
        [RTX],
        TargetMismatchError,
        "made by TensorRT-RTX 1.5.0; here is 1.4.0",
    ),
    (
        on(BOARD, versions={"tensorrt": "10.3.1"}),
        "auto",
        [ORIN],
        TargetMismatchError,
        "made by TensorRT 10.3.0; here is 10.3.1",
    ),
    (
        on(DESKTOP, versions={}),
        "auto",
        [RTX],
        MissingDependencyError,
        r"TensorRT-RTX is not installed.*pip install 'edgevision\[rtx\]'",
    ),
    (
        on(DESKTOP, has_binding=False),
        "cuda",
        [RTX],
        MissingDependencyError,
        r"no CUDA binding is installed.*pip install 'edgevision\[cuda\]'",
    ),
    (
        on(DESKTOP, has_binding=False),
        "cuda",
        [CPU],
        MissingDependencyError,
        r"no CUDA binding is installed.*pip install 'edgevision\[cuda\]'",
    ),
    (
        on(LAPTOP, versions={}),
        "cpu",
        [CPU],
        MissingDependencyError,
        r"ONNX Runtime is not installed.*pip install 'edgevision\[ort\]'",
    ),
    (
        LAPTOP,
        "cpu",
        [VINO],
        MissingDependencyError,
        r"OpenVINO is not installed.*pip install 'edgevision\[openvino\]'",
    ),
    (on(DESKTOP, versions=BOTH), "cuda", [VINO], TargetMismatchError, "openvino-cpu: runs on the "),
    (LAPTOP, "auto", [RTX], TargetMismatchError, "needs an NVIDIA GPU and its driver"),
    (LAPTOP, "cuda", [CPU], TargetMismatchError, "a GPU and its driver were not found.*local"),
    (BOARD, "cpu", [ORIN], TargetMismatchError, "runs on an NVIDIA GPU.*--target host-cpu"),
    (
        BOARD,
        "auto",
        [PENDING],
        PendingError,
        r"pending \(needs the device\).*: edgevision finish BUNDLE --target jetson-orin-jp6$",
    ),
    (BOARD, "auto", [], TargetMismatchError, "it has none"),
]


@pytest.mark.parametrize(("machine", "device", "artifacts", "error", "message"), REFUSALS)
def test_what_does_not_fit_is_refused_with_the_way_out(
    machine: Machine,
    device: str,
    artifacts: list[Artifact],
    error: type[EdgeVisionError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        select(stage(*artifacts), device=device, machine=lambda: machine)


def test_a_target_may_be_chosen() -> None:
    machine = on(LAPTOP, versions=BOTH)
    found = select(stage(CPU, VINO), device="auto", machine=lambda: machine, target="openvino-cpu")
    assert found.artifact is VINO
    with pytest.raises(ValueError, match="got 'rtx', the bundle has host-cpu, openvino-cpu"):
        select(stage(CPU, VINO), device="auto", machine=lambda: machine, target="rtx")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'tpu', expected auto, cpu or cuda"):
        select(stage(CPU), device="tpu", machine=lambda: LAPTOP)


def test_this_machine_is_asked_without_importing_what_it_finds() -> None:
    found = this_machine()
    assert set(found.versions) <= {name for known in flavours() for name in known.modules}
    assert all(version[0].isdigit() for version in found.versions.values())

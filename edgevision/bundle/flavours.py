"""The runtimes that execute artifacts, one row each: what follows from a flavour is asked here.

Nobody else compares flavours or keys anything by them: ask what a flavour can, not which it is. A
new one is a row here, a module in `runtime/backends` and one in `engines`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flavour:
    """A runtime that executes artifacts, and what follows from that.

    Attributes:
        name: what manifests, records and target files call it.
        title: the same for people.
        extra: of edgevision, which installs it.
        purpose: what it is for, as `edgevision doctor` says.
        modules: the packages that carry the runtime, the preferred one first.
        backend: the module with `open_program(data, device, options)`, imported at first use.
        builder: the module with `BUILDER`, imported at first use.
        suffix: of an artifact's file.
        on_gpu: whether it needs an NVIDIA GPU. A finished engine is bound to that, else to the CPU.
        gpu_if_asked: whether it runs on a GPU as well, where device="cuda" asks for it.
        version_parts: how many parts of the version must be the artifact's; 0 where any version
            runs it, because the artifact in a bundle is the graph itself.
        has_lean: whether it builds plans that later versions, and a lean runtime, run.
        has_rules: whether `bundle.capabilities` tells what its versions can.
        trtexec: its makers' program that times a plan; empty where there is none.
        triton: backend of Triton Inference Server that runs its artifacts; empty where none does.
    """

    name: str
    title: str
    extra: str
    purpose: str
    modules: tuple[str, ...]
    backend: str
    builder: str
    suffix: str = "plan"
    on_gpu: bool = True
    gpu_if_asked: bool = False
    version_parts: int = 0
    has_lean: bool = False
    has_rules: bool = False
    trtexec: str = ""
    triton: str = ""

    @property
    def is_graph(self) -> bool:
        """Whether an artifact in a bundle is the graph itself, which any machine runs."""
        return not self.version_parts

    @property
    def remedy(self) -> str:
        """What a person types to install it."""
        return f"pip install 'edgevision[{self.extra}]'"

    def __str__(self) -> str:
        return self.name


ORT = Flavour(
    "ort",
    "ONNX Runtime",
    "ort",
    "runs bundles on any CPU",
    modules=("onnxruntime",),
    backend="edgevision.runtime.backends.ort",
    builder="edgevision.engines.ort",
    suffix="onnx",
    on_gpu=False,
    gpu_if_asked=True,
    triton="onnxruntime",
)
# NVIDIA: a plan fits its exact TensorRT version.
TRT = Flavour(
    "trt",
    "TensorRT",
    "tensorrt",
    "builds and runs engines for Jetson and data-centre GPUs",
    modules=("tensorrt", "tensorrt_lean"),
    backend="edgevision.runtime.backends.trt",
    builder="edgevision.engines.trt",
    version_parts=3,
    has_lean=True,
    has_rules=True,
    trtexec="trtexec",
    triton="tensorrt",
)
# TensorRT-RTX 1.5 does not take 1.4's engines.
TRT_RTX = Flavour(
    "trt_rtx",
    "TensorRT-RTX",
    "rtx",
    "builds and runs engines for RTX GPUs",
    modules=("tensorrt_rtx",),
    backend="edgevision.runtime.backends.trt_rtx",
    builder="edgevision.engines.trt_rtx",
    version_parts=2,
    trtexec="tensorrt_rtx",
)
OPENVINO = Flavour(
    "openvino",
    "OpenVINO",
    "openvino",
    "runs bundles on x86 and Arm CPUs",
    modules=("openvino",),
    backend="edgevision.runtime.backends.openvino",
    builder="edgevision.engines.openvino",
    suffix="onnx",
    on_gpu=False,
)

_ALL = (ORT, TRT, TRT_RTX, OPENVINO)


def flavours() -> tuple[Flavour, ...]:
    """Return every flavour; of those that run on a CPU, the one to prefer first."""
    return _ALL


def flavour(name: str) -> Flavour:
    """Return the flavour called `name`.

    Raises:
        ValueError: this edgevision has none of that name.
    """
    for known in _ALL:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in _ALL)
    raise ValueError(
        f"flavour: got {name!r:.80}, expected {names}; where another edgevision wrote it, "
        "install a newer edgevision"
    )

"""The forms of a graph: what a precision is made of, from the widest to the narrowest.

Precision lives in the graph, so every form is a graph of its own: FP16 is Cast nodes, INT8 is
explicit Q/DQ around a rest that is float16 (for GPUs) or float32 (for CPUs, where float16 is slow).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgevision.bundle.tensors import DType


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a graph.

    Attributes:
        name: how reports and benchmarks call it, e.g. "int8-host".
        title: the same for people.
        precision: what a user asks for to get it: "fp32", "fp16" or "int8".
        is_quantized: whether its layers compute in INT8 where that costs little.
        wide: the float type of everything that is not INT8.
    """

    name: str
    title: str
    precision: str
    is_quantized: bool
    wide: DType

    def __str__(self) -> str:
        return self.name


FP32 = Form("fp32", "FP32", "fp32", False, DType.FLOAT32)
FP16 = Form("fp16", "FP16", "fp16", False, DType.FLOAT16)
INT8 = Form("int8", "INT8, rest FP16 (GPUs)", "int8", True, DType.FLOAT16)
INT8_WIDE = Form("int8-host", "INT8, rest FP32 (CPUs)", "int8", True, DType.FLOAT32)

PRECISIONS = ("fp32", "fp16", "int8")
"""What a user can ask for, widest first."""

_ALL = (FP32, FP16, INT8, INT8_WIDE)


def forms_of(precision: str) -> tuple[Form, ...]:
    """Return every form that a build of `precision` makes, in the order in which they are proven.

    Raises:
        ValueError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: got '{precision}', expected one of {', '.join(PRECISIONS)}")
    wanted = PRECISIONS[: PRECISIONS.index(precision) + 1]
    return tuple(form for form in _ALL if form.precision in wanted)


def form_for(precision: str, *, on_gpu: bool) -> Form:
    """Return the form of `precision` that a GPU, or a CPU, is given.

    INT8 is fast on a CPU only where the rest is float32; a GPU takes the float16 rest.
    """
    found = [form for form in _ALL if form.precision == precision]
    wide = DType.FLOAT16 if on_gpu else DType.FLOAT32
    return next((form for form in found if form.wide is wide), found[0])

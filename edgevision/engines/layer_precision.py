"""In which types an engine really computes, as its own runtime tells, and whether it should.

TensorRT may run a layer wider than the graph says. Its inspector names the formats of each
layer ("Row major linear FP32"), a profile of ONNX Runtime those of each kernel.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping

# In this order: a format that names an 8-bit type is that, whatever else it says.
_TYPES = (
    ("int8", re.compile(r"\b(u?int8)\b", re.IGNORECASE)),
    ("fp8", re.compile(r"\bfp8|\bfloat8", re.IGNORECASE)),
    ("bf16", re.compile(r"\bbf16\b|\bbfloat16\b", re.IGNORECASE)),
    ("fp16", re.compile(r"\bfp16\b|\bhalf\b|\bfloat16\b", re.IGNORECASE)),
    ("fp32", re.compile(r"\bfp32\b|\bfloat\b|\bfloat32\b", re.IGNORECASE)),
)
# What moves or makes data and computes nothing.
_NO_WORK = re.compile(
    r"reformat|noop|no-op|shape|constant|signal|wait|cast|quantize|transpose|shuffle|identity|"
    r"reorder|memcpy",
    re.IGNORECASE,
)
_REQUESTED = {"int8": "int8", "fp16": "fp16"}
# Of an FP16 graph most layers are FP16; what keeps float32 for range or coordinates is the rest.
_MIN_HALF = 0.5


def layers_from_inspector(payload: str) -> Mapping[str, int] | None:
    """Return the layers by type from TensorRT's inspector; None if it names no types."""
    try:
        layers = json.loads(payload)["Layers"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    counted: Counter[str] = Counter()
    for layer in layers if isinstance(layers, list) else ():
        if not isinstance(layer, dict) or _NO_WORK.search(str(layer.get("LayerType", ""))):
            continue
        tensors = layer.get("Inputs") or layer.get("Outputs") or ()
        formats = [str(t.get("Format/Datatype", "")) for t in tensors if isinstance(t, dict)]
        if kind := _type_of(formats[:1]):
            counted[kind] += 1
    return dict(counted) or None


def layers_from_profile(payload: str) -> Mapping[str, int] | None:
    """Return the kernels by type from a profile of one run by ONNX Runtime; None if it has none."""
    try:
        events = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    counted: Counter[str] = Counter()
    for event in events if isinstance(events, list) else ():
        details = event.get("args", {}) if isinstance(event, dict) else {}
        if not str(event.get("name", "")).endswith("_kernel_time"):
            continue
        operator, inputs = str(details.get("op_name", "")), details.get("input_type_shape", [])
        if _NO_WORK.search(operator) and not operator.startswith("QLinear"):
            continue
        kinds = [next(iter(value), "") for value in inputs if isinstance(value, dict)]
        if kind := _type_of(kinds[:1]):
            counted[kind] += 1
    return dict(counted) or None


def precision_shortfall(precision: str, layers: Mapping[str, int] | None) -> str:
    """Return why an engine is not of the precision that was asked for; empty if it is.

    Where the runtime tells no types there is nothing to hold against it.
    """
    wanted = _REQUESTED.get(precision)
    if wanted is None or layers is None:
        return ""
    total = sum(layers.values())
    payload = ", ".join(f"{count} in {kind}" for kind, count in sorted(layers.items()))
    if precision == "int8" and not layers.get("int8"):
        return f"no layer runs in INT8, though the bundle is INT8: {payload}"
    if precision == "fp16" and layers.get("fp16", 0) < _MIN_HALF * total:
        return f"the bundle is FP16, and {layers.get('fp16', 0)} of {total} layers are: {payload}"
    return ""


def _type_of(formats: list[str]) -> str:
    for name, pattern in _TYPES:
        if any(pattern.search(text) for text in formats):
            return name
    return ""

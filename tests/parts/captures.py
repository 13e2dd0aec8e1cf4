"""What was captured of a module, kept for the run: many tests export the same nets.

A capture takes a second, nearly all of it torch's. It is kept by all that it is made of: the
classes and attributes of the module, every weight, the inputs and outputs. What stands in a file
here may be another worker's. Commands in processes of their own capture for themselves.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from edgevision.bundle.tensors import ShapeProfile, TensorSpec
from edgevision.export.graph.capture import capture

_MAX_BYTES = 32 << 20
_CODE = type, type(lambda: None)


class _Digest(pickle.Pickler):
    """Writes an object with tensors by what is in them; refuses what only one test knows."""

    def persistent_id(self, value: object) -> object:
        if isinstance(value, torch.Tensor):
            content = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            return str(value.dtype), tuple(value.shape), hashlib.sha256(content).hexdigest()
        if isinstance(value, _CODE) and "<locals>" in value.__qualname__:
            raise pickle.PicklingError(value.__qualname__)
        return None


@functools.cache
def keep_captures(base: Path) -> None:
    """Keep from here on what `capture` makes, for all workers of this run; `base` is this one's."""
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "captures"

    def kept(
        module: nn.Module,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[str],
        profiles: Mapping[str, ShapeProfile],
    ) -> onnx.ModelProto:
        key = shape_key(module, (tuple(inputs), tuple(outputs), dict(profiles)))
        file = folder / f"{key}.onnx"
        if key and file.exists():
            return onnx.load(file)
        made = capture(module, inputs, outputs, profiles)
        if key:
            own = file.with_suffix(f".{os.getpid()}")
            onnx.save(made, own)
            own.rename(file)
        return made

    folder.mkdir(exist_ok=True)
    # Who has imported it has a name of their own for it.
    for user in [*sys.modules.values()]:
        if getattr(user, "capture", None) is capture and user.__name__ != __name__:
            user.capture = kept  # type: ignore[attr-defined]
    # Each export parses the exporter's 500 translations, and asks for every operator, again.
    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]
    of_torch = torch._export.utils
    of_torch._materialize_cpp_cia_ops = functools.cache(of_torch._materialize_cpp_cia_ops)


def shape_key(module: nn.Module, ends: object) -> str:
    """Return what a capture is kept by; "" where it is not."""
    weights = [*module.parameters(), *module.buffers()]
    if sum(w.numel() * w.element_size() for w in weights) > _MAX_BYTES:
        return ""
    written = io.BytesIO()
    try:
        _Digest(written).dump((module, ends))
    except Exception:  # hooks, lambdas and other people's objects cannot be written
        return ""
    return hashlib.sha256(written.getvalue()).hexdigest()

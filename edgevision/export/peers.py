"""The net of a bundle by the means that people have without one: PyTorch, and Python around it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgevision._optional import require
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.adapters.semantic import SemanticSegmentation
from edgevision.export.graph.capture import capture, serialized
from edgevision.export.source import resolve

if TYPE_CHECKING:
    from torch import nn

Peer = Callable[[Feeds], object]

_USUAL = "usual Python around ONNX Runtime"
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def torch_peers(source: str) -> Mapping[str, Peer | str]:
    """Return, by name, what runs the model of `source` (see `build`), or why it does not run.

    Raises:
        ValueError: the source makes no sense.
        ExportError: it fails.
    """
    adapter = resolve(source).adapter
    peers: dict[str, Peer | str] = {"torch, eager": adapter.reference}
    if not isinstance(adapter, SemanticSegmentation):
        reason = "offered only for segmentation nets"
        return {**peers, "torch.compile": reason, _USUAL: reason}
    peers["torch.compile"] = _compiled(adapter.fused)
    size = adapter.size
    usual = NumpyPrePost(adapter.fused.get_submodule("module"), size)
    if adapter.inputs[0].shape[1:3] == size:
        peers[_USUAL] = lambda feeds: usual.run(feeds["frame"][0])
    else:
        peers[_USUAL] = "the net's size is not the frame's"
    return peers


class NumpyPrePost:
    """What deployment tutorials write: numpy in front, float logits out, numpy behind.

    The same net on ONNX Runtime, from a camera's frame to a class map.
    """

    def __init__(self, net: nn.Module, size: tuple[int, int]) -> None:
        ort = require("onnxruntime", extra="ort")
        spec = TensorSpec("x", DType.FLOAT32, (1, 3, *size))
        graph = serialized(capture(net, [spec], ["logits"], {}))
        options = ort.SessionOptions()
        # As ours: a pool that spins between calls slows down whoever is measured beside it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(self, frame: Any) -> Any:
        """Return the class map `uint8[H, W]` of `frame: uint8[H, W, 3] RGB, host`."""
        x = (frame.astype(np.float32) / 255.0 - MEAN) / STD
        x = np.ascontiguousarray(x.transpose(2, 0, 1))[np.newaxis]
        (logits,) = self.session.run(None, {"x": x})
        return logits.argmax(1)[0].astype(np.uint8)


def _compiled(net: nn.Module) -> Peer | str:
    """Return torch.compile's answer to the fused graph, or why there is none."""
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "torch.compile wants a C++ compiler, and there is none"
    compiled = torch.compile(net.eval())

    def run(feeds: Feeds) -> object:
        with torch.inference_mode():
            return compiled(torch.from_numpy(np.array(feeds["frame"])))

    return run

"""A semantic segmentation net with its pixels: camera frame in, class map out, one graph."""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from edgevision.bundle.manifest import Settings
from edgevision.bundle.tensors import DType, ShapeProfile, TensorSpec
from edgevision.errors import ExportError
from edgevision.export.adapters.adapter import Array, Feeds
from edgevision.export.adapters.registry import ClassNames, Size, need_size_and_classes
from edgevision.export.graph.capture import capture, evaluating
from edgevision.export.zoo import card_classes, card_size

_COLOR = re.compile(r"#[0-9a-f]{6}")
_MAX_SIDE = 16384


class SemanticSegmentation:
    """Adapter of any module that gives logits `float32[N, classes, h, w]` of a picture.

    A binary net may give one logit: with two classes, it is the second one where it is above 0.

    The graph takes `frame: uint8[1, H, W, 3]` of `input_size` and gives `classes: uint8[1, H, W]`.
    Casting, normalising, resizing to the net's `size`, resizing the logits back and argmax are
    inside it. The module is used, never changed.

    Example:
        >>> net = SemanticSegmentation(module, size=(360, 480),
        ...                            classes=["road", "sky"])  # doctest: +SKIP
    """

    task = "semantic"

    def __init__(
        self,
        module: nn.Module,
        *,
        size: tuple[int, int],
        classes: Sequence[str | tuple[str, str]],
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        channel_order: str = "rgb",
        input_size: tuple[int, int] | None = None,
    ) -> None:
        """Wrap `module`.

        Args:
            module: gives a tensor, a dict with "out", an object with `.logits`, or a tuple of which
                the first is taken.
            size: (H, W) of the net's input.
            classes: names, or (name, "#rrggbb").
            mean: per channel on the 0-1 scale, in RGB; by default ImageNet's.
            std: per channel on the 0-1 scale, in RGB; by default ImageNet's.
            channel_order: "rgb" or "bgr", the order in which the camera's frames will come. The net
                always sees RGB.
            input_size: (H, W) of the camera's frame, if it is not `size`.

        Raises:
            ValueError: an argument makes no sense.
            ExportError: the module does not run, or its logits do not fit the classes.
        """
        self._classes = labels_of(classes)
        self._size = side_of("size", size)
        self._input_size = side_of("input_size", input_size) if input_size else self._size
        if channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order: got '{channel_order}', expected rgb or bgr")
        self._channel_order = channel_order
        self._graph = _PixelsToClasses(
            module, three_of("mean", mean), three_of("std", std), self._size, self._input_size,
            flip=channel_order == "bgr",
        )  # fmt: skip
        self.inputs: tuple[TensorSpec, ...] = (
            TensorSpec("frame", DType.UINT8, (1, *self._input_size, 3)),
        )
        self.profiles: Mapping[str, ShapeProfile] = {}
        self._check_logits()

    @property
    def fused(self) -> nn.Module:
        """The whole as one module, `uint8[1, H, W, 3]` to `uint8[1, H, W]`; the adapter's own."""
        return self._graph

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the net's input."""
        return self._size

    def settings(self) -> Settings:
        """Return the classes, sizes and channel order, for the manifest."""
        return {
            "classes": [{"name": name, "color": color} for name, color in self._classes],
            "size": list(self._size),
            "input_size": list(self._input_size),
            "channel_order": self._channel_order,
        }

    def files(self) -> dict[str, bytes]:
        """Return nothing: the manifest says it all."""
        return {}

    def reference(self, feeds: Feeds) -> dict[str, Array]:
        """Return `classes: uint8[1, H, W]` of `frame: uint8[1, H, W, 3]` by eager PyTorch."""
        with evaluating(self._graph):
            classes = self._graph(torch.from_numpy(np.array(feeds["frame"])))
        return {"classes": classes.numpy()}

    def to_onnx(self) -> onnx.ModelProto:
        """Return the FP32 graph.

        Raises:
            ExportError: torch cannot export the module.
        """
        return capture(self._graph, self.inputs, ("classes",), {})

    def kept_fp32(self, graph: onnx.ModelProto) -> tuple[str, ...]:
        """Return nothing: what must stay wide is found by its values."""
        return ()

    def _check_logits(self) -> None:
        frame = torch.zeros(self.inputs[0].shape, dtype=torch.uint8)
        try:
            with evaluating(self._graph):
                logits = self._graph.logits(frame)
        except ExportError:
            raise
        except Exception as error:  # the user's module may raise anything
            raise ExportError(
                f"the module fails on a frame of {self._size[0]}x{self._size[1]}: "
                f"{type(error).__name__}: {error}"
            ) from error
        count = len(self._classes)
        if logits.ndim == 4 and logits.shape[1] == 1:
            if count == 2:
                return
            raise ExportError(
                f"the module gives one logit and {count} classes are named, expected two: what it "
                'is where the logit is below 0, then above, as in classes=["background", "road"].'
            )
        if logits.ndim != 4 or logits.shape[1] != count:
            raise ExportError(
                f"the module gives logits {list(logits.shape)}, expected [1, {count}, h, w] for "
                f"the {count} classes named. Name one class per channel."
            )


class _PixelsToClasses(nn.Module):
    """The fused graph around the user's module."""

    scale: Tensor
    bias: Tensor
    order: Tensor

    def __init__(
        self,
        module: nn.Module,
        mean: Tensor,
        std: Tensor,
        size: tuple[int, int],
        input_size: tuple[int, int],
        *,
        flip: bool,
    ) -> None:
        super().__init__()
        self.module = module
        self.size, self.input_size, self.flip = size, input_size, flip
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1))
        self.register_buffer("bias", (-mean / std).view(1, 3, 1, 1))
        self.register_buffer("order", torch.tensor([2, 1, 0]))

    def logits(self, frame: Tensor) -> Tensor:
        # TensorRT takes uint8 at a Cast alone, so the cast comes before any change of layout.
        x = frame.float().permute(0, 3, 1, 2)
        if self.flip:
            x = x.index_select(1, self.order)
        x = x * self.scale + self.bias
        if self.size != self.input_size:
            x = interpolate(x, size=self.size, mode="bilinear", align_corners=False)
        return _logits(self.module(x))

    def forward(self, frame: Tensor) -> Tensor:
        y = self.logits(frame)
        if tuple(y.shape[-2:]) != self.input_size:
            y = interpolate(y, size=self.input_size, mode="bilinear", align_corners=False)
        if y.shape[1] == 1:
            return (y[:, 0] > 0).to(torch.uint8)
        return y.argmax(1).to(torch.uint8)


def _logits(output: object) -> Tensor:
    """Find the logits in what a segmentation net returns."""
    if isinstance(output, Mapping) and "out" in output:
        output = output["out"]
    elif hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ExportError(
            f"the module returns {type(output).__name__}, expected logits as a tensor, a dict with "
            "'out', an object with .logits, or a tuple that starts with them"
        )
    return output


def labels_of(classes: Sequence[str | tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return (name, "#rrggbb") of each class; ValueError if a name or colour makes no sense."""
    if isinstance(classes, str) or not 1 <= len(classes) <= 256:
        found = "a string" if isinstance(classes, str) else len(classes)
        raise ValueError(f"classes: got {found}, expected 1 to 256 names")
    labels = []
    for i, item in enumerate(classes):
        name, color = (item, _distinct_color(i)) if isinstance(item, str) else item
        if not name or not _COLOR.fullmatch(color.lower()):
            raise ValueError(f"classes: got {item!r}, expected a name or (name, '#rrggbb')")
        labels.append((name, color.lower()))
    if len({name for name, _ in labels}) != len(labels):
        raise ValueError("classes: a name stands twice")
    return tuple(labels)


def _distinct_color(i: int) -> str:
    """Return a colour far from its neighbours: the golden angle around the hues, three shades."""
    hue = i * (math.sqrt(5) - 1) / 2 % 1
    r, g, b = colorsys.hsv_to_rgb(hue, (0.85, 0.55, 0.7)[i % 3], (0.95, 0.8, 0.6)[i // 3 % 3])
    return f"#{round(r * 255):02x}{round(g * 255):02x}{round(b * 255):02x}"


def side_of(name: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return (H, W); ValueError if that is no picture's size."""
    if len(size) != 2 or not all(isinstance(s, int) and 1 <= s <= _MAX_SIDE for s in size):
        raise ValueError(f"{name}: got {size}, expected (height, width) in pixels")
    return size[0], size[1]


def three_of(name: str, values: Sequence[float]) -> Tensor:
    """Return a number for each channel; ValueError if they make no sense."""
    good = len(values) == 3 and all(math.isfinite(v) for v in values)
    if not good or (name == "std" and min(values) <= 0):
        raise ValueError(f"{name}: got {values}, expected three numbers on the 0-1 scale")
    return torch.tensor([float(v) for v in values])


def from_module(
    module: nn.Module, source: str, *, size: Size | None, classes: ClassNames | None
) -> SemanticSegmentation:
    """Return the adapter of a user's module; see `registry`."""
    size, classes = need_size_and_classes(source, size, classes)
    return SemanticSegmentation(module, size=size, classes=classes)


def from_card(
    module: nn.Module, card: Mapping[str, Any], *, size: Size | None, classes: ClassNames | None
) -> SemanticSegmentation:
    """Return the adapter of a shipped net; see `registry`."""
    return SemanticSegmentation(
        module,
        size=size or card_size(card),
        classes=classes or card_classes(card),
        mean=card["mean"],
        std=card["std"],
    )

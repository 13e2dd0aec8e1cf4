"""A semantic segmentation net with its pixels: camera frame in, class map out, one graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgevision.bundle.manifest import Settings
from edgevision.bundle.reading import JsonValue
from edgevision.errors import ExportError
from edgevision.export.adapters.frame import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Camera,
    CameraInput,
    Cameras,
    FrontEnd,
    class_labels,
    labels_json,
    replaced_batch,
)
from edgevision.export.adapters.frame_adapter import FrameAdapter
from edgevision.export.adapters.output import first_tensor, try_module
from edgevision.export.adapters.registry import Given
from edgevision.export.zoo import card_classes, card_size
from edgevision.tasks.camera import VOID
from edgevision.tasks.semantic import check_label_map


class SemanticSegmentation(FrameAdapter["_PixelsToClasses"]):
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
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        channel_order: str = "rgb",
        input_size: tuple[int, int] | None = None,
        camera: Camera | None = None,
        cameras: Cameras = None,
        batch: int | None = None,
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
            camera: what the camera gives, in place of `channel_order` and `input_size`.
            cameras: how many cameras' frames come in one call, N, or (fewest, most): a list of
                results then comes out. By default one frame, and one result.
            batch: what `cameras` was called before, by its siblings.

        Raises:
            ValueError: an argument makes no sense.
            ExportError: the module does not run, or its logits do not fit the classes.
        """
        self._classes = class_labels(classes)
        self._labels: dict[str, JsonValue] = {}
        camera_input = CameraInput.check(
            size, input_size, channel_order, camera, cameras=replaced_batch(batch, cameras)
        )
        if not camera_input.placement.is_whole and len(self._classes) > VOID:
            raise ValueError(
                f"classes: {len(self._classes)} of them leave no number for pixels that a part of "
                f"the frame leaves out; at most {VOID}"
            )
        super().__init__(
            camera_input, _PixelsToClasses(module, camera_input, mean, std), ["classes"]
        )
        self._check_logits()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the net's input."""
        return self._camera.size

    def settings(self) -> Settings:
        """Return the classes, sizes and channel order, for the manifest."""
        return self._settings({"classes": labels_json(self._classes), **self._labels})

    def read_labels_by(
        self, label_map: Mapping[str, int | str] | None, ignore_index: int | None
    ) -> None:
        """Say how label files are read; see `LabelledAdapter`."""
        if label_map:
            names = [name for name, _ in self._classes]
            self._labels["label_map"] = dict(check_label_map(label_map, names))
        if ignore_index is not None:
            if not 0 <= ignore_index < 256:
                raise ValueError(f"ignore_index: got {ignore_index}, expected 0 to 255")
            self._labels["ignore_index"] = ignore_index

    def _check_logits(self) -> None:
        logits = try_module(self._graph, self._graph.logits, self._camera)
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
                f"the module gives logits {list(logits.shape)}, expected [N, {count}, h, w] for "
                f"the {count} classes named. Name one class per channel."
            )


class _PixelsToClasses(FrontEnd):
    """The fused graph around the user's module."""

    def __init__(
        self, module: nn.Module, camera: CameraInput, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(camera, mean, std)
        self.module = module

    def logits(self, frame: Tensor) -> Tensor:
        return first_tensor(self.module(self.pixels(frame)), what="logits")

    def forward(self, frame: Tensor) -> Tensor:
        return self.answer(self.logits(frame))

    def answer(self, found: object) -> Tensor:
        """Return the class map of what the net gives."""
        y = first_tensor(found, what="logits")
        placement = self.camera.placement
        y = placement.back(y)
        classes = y[:, 0] > 0 if y.shape[1] == 1 else y.argmax(1)
        if not placement.is_whole:  # TensorRT pads floats
            classes = placement.on_frame(classes.float(), VOID)
        return classes.to(torch.uint8)


def from_card(module: nn.Module, card: Mapping[str, Any], given: Given) -> SemanticSegmentation:
    """Return the adapter of a shipped net; see `registry`."""
    own = {"size": card_size(card), "classes": card_classes(card)}
    own |= {"mean": card["mean"], "std": card["std"]}
    return SemanticSegmentation(module, **{**own, **given})


ADAPTER = SemanticSegmentation

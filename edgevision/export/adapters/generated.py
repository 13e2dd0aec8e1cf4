"""An image generator with its pixels: latent, label and noise in, finished pictures out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgevision.bundle.manifest import Settings
from edgevision.bundle.tensors import Array, ShapeProfile
from edgevision.errors import ExportError
from edgevision.export.adapters.module_adapter import ModuleAdapter
from edgevision.export.adapters.registry import Given
from edgevision.export.graph.capture import evaluating
from edgevision.tasks.generated import draw_inputs
from edgevision.tasks.seeds import GeneratorInput, Label, Normal, generator_input

BATCHES = (1, 16, 64)
"""Smallest, usual and largest batch that engines are built for."""

_CHANNELS = (1, 3)


class ImageGenerator(ModuleAdapter):
    """Adapter of any module that makes pictures `float32[N, C, H, W]` of random numbers.

    The graph gives `images: uint8[N, H, W, C]`; scaling, rounding, clamping and the change of
    layout are inside it. N is 1 to 64, given at run time. The module is used, never changed.

    Example:
        >>> net = ImageGenerator(module, inputs=[Normal("latent", (100,)),
        ...                                      Label("label", 10)])  # doctest: +SKIP
    """

    task = "generated"

    def __init__(
        self,
        module: nn.Module,
        *,
        inputs: Sequence[GeneratorInput],
        output_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        """Wrap `module`.

        Args:
            module: takes the inputs in their order, and gives grey or RGB pictures.
            inputs: at least one of them `Normal`.
            output_range: which of the module's values are black and white; what lies outside is
                clamped.

        Raises:
            ValueError: an argument makes no sense.
            ExportError: the module does not run on these inputs, or gives no pictures.
        """
        names = [item.name for item in inputs]
        if len(set(names)) != len(names) or not any(isinstance(i, Normal) for i in inputs):
            raise ValueError(
                f"inputs: got {names}, expected distinct names and at least one Normal(name, shape)"
            )
        low, high = output_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"output_range: got {output_range}, expected (black, white)")
        self.generator_inputs = tuple(inputs)
        specs = tuple(item.spec for item in inputs)
        profiles = {
            spec.name: ShapeProfile(*((batch, *spec.shape[1:]) for batch in BATCHES))
            for spec in specs
        }
        super().__init__(_NumbersToPixels(module, low, high), specs, ("images",), profiles)
        self._check_pictures(module)

    def settings(self) -> Settings:
        """Return what goes in, for the manifest."""
        return {"inputs": [item.settings() for item in self.generator_inputs]}

    def drawn(self, seeds: Sequence[int]) -> dict[str, Array]:
        """Return the feeds that the run side makes of `seeds`."""
        return draw_inputs(self.generator_inputs, seeds)

    def _check_pictures(self, module: nn.Module) -> None:
        taken = ", ".join(str(spec) for spec in self.inputs)
        # A label beyond the module's table shows only at the highest one.
        feeds = self.drawn((0, 1))
        for item in self.generator_inputs:
            if isinstance(item, Label):
                feeds[item.name] = np.array([0, item.classes - 1])
        try:
            with evaluating(self.whole, f"({taken})"):
                pictures = module(*(torch.from_numpy(feeds[spec.name]) for spec in self.inputs))
        except ExportError as error:
            raise ExportError(
                f"{error} Name its own latent size and classes in `inputs`."
            ) from error
        good = isinstance(pictures, Tensor) and pictures.ndim == 4 and pictures.is_floating_point()
        if not good or pictures.shape[0] != 2 or pictures.shape[1] not in _CHANNELS:
            found = list(pictures.shape) if isinstance(pictures, Tensor) else type(pictures)
            raise ExportError(
                f"the module gives {found} of two seeds, expected pictures float32[2, 1 or 3, H, W]"
            )


class _NumbersToPixels(nn.Module):
    """The fused graph around the user's module."""

    def __init__(self, module: nn.Module, low: float, high: float) -> None:
        super().__init__()
        self.module = module
        self.scale = 255 / (high - low)
        self.offset = -low * self.scale

    def forward(self, *numbers: Tensor) -> Tensor:
        x: Tensor = self.module(*numbers) * self.scale + self.offset
        # TensorRT gives uint8 only by a Cast, so the change of layout comes before it.
        return x.round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)


def from_card(module: nn.Module, card: Mapping[str, Any], given: Given) -> ImageGenerator:
    """Return the adapter of a shipped net; see `registry`."""
    low, high = card["output_range"]
    inputs = [generator_input(item) for item in card["inputs"]]
    return ImageGenerator(module, inputs=inputs, output_range=(low, high))


ADAPTER = ImageGenerator
MODULE_REASON = (
    "a generator needs what it takes; let the factory return "
    "edgevision.export.ImageGenerator(module, inputs=[Normal('latent', (100,)), ...])"
)

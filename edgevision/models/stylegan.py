"""A small generator in the manner of StyleGAN2, made so that its graph takes any batch size.

Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN": modulation and
demodulation (section 2.2, equations 1 to 3) and skip connections to the picture (section 4.1);
mapping network, noise and truncation: Karras et al. 2019, "A Style-Based Generator Architecture for
Generative Adversarial Networks" (section 2, appendix B). A modulated convolution scales its input
and its output instead of its weights, which is the same product with one set of weights for the
whole batch. Noise is an input, so that a picture depends only on the inputs. The picture is not
bounded: what lies outside -1 to 1 is to be clamped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu, linear

_EPSILON = 1e-8
_MEAN_STYLE_DECAY = 0.995


class _ScaledLinear(nn.Module):
    """A dense layer whose weights have unit variance and are scaled as they are used.

    Source: Karras et al. 2018, "Progressive Growing of GANs", section 4.1. With `rate` below 1 the
    layer learns that much slower at the same output.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.rate = rate
        self.gain = rate / sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.gain, self.bias * self.rate)


class _ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by the style, its outputs by their norm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style_size: int, *, demodulate: bool
    ) -> None:
        super().__init__()
        self.affine = _ScaledLinear(style_size, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.gain = 1 / sqrt(inputs * kernel * kernel)
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale = self.affine(style)
        weight = self.weight * self.gain
        y = conv2d(x * scale[:, :, None, None], weight, padding=weight.shape[-1] // 2)
        if not self.demodulate:
            return y
        power = linear(scale.square(), weight.square().sum((2, 3)))
        return y * (power + _EPSILON).rsqrt()[:, :, None, None]


class _StyledLayer(nn.Module):
    """A modulated 3x3 convolution, noise of a learnt strength, a bias, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, style_size: int) -> None:
        super().__init__()
        self.conv = _ModulatedConv(inputs, outputs, 3, style_size, demodulate=True)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        y = self.conv(x, style) + noise * self.noise_strength + self.bias
        return leaky_relu(y, 0.2) * sqrt(2)


class _ToPicture(nn.Module):
    """A modulated 1x1 convolution to the picture's channels, without demodulation."""

    def __init__(self, inputs: int, image_channels: int, style_size: int) -> None:
        super().__init__()
        self.conv = _ModulatedConv(inputs, image_channels, 1, style_size, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(image_channels, 1, 1))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        picture: Tensor = self.conv(x, style) + self.bias
        return picture


class Mapping(nn.Module):
    """The network from a latent of unit length to a style."""

    def __init__(self, latent_size: int, style_size: int, depth: int) -> None:
        super().__init__()
        sizes = (latent_size, *[style_size] * depth)
        self.layers = nn.ModuleList(_ScaledLinear(i, o, rate=0.01) for i, o in pairwise(sizes))

    def forward(self, latent: Tensor) -> Tensor:
        """Return `style: float32[N, style_size]` of `latent: float32[N, latent_size]`."""
        x = latent * (latent.square().mean(1, keepdim=True) + _EPSILON).rsqrt()
        for layer in self.layers:
            x = leaky_relu(layer(x), 0.2) * sqrt(2)
        return x


class StyleGenerator(nn.Module):
    """Mapping network and synthesis network from 4x4 up, one doubling for each further width.

    Attributes:
        latent_size: how many numbers a latent has.
        noise_size: how many numbers of noise a picture takes.
        mean_style: the running mean of the styles seen in training, float32[style_size].
    """

    mean_style: Tensor

    def __init__(
        self,
        latent_size: int,
        style_size: int,
        channels: Sequence[int],
        image_channels: int,
        mapping_depth: int,
    ) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.mapping = Mapping(latent_size, style_size, mapping_depth)
        self.register_buffer("mean_style", torch.zeros(style_size))
        self.constant = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        # Layers in the order they run: one at 4x4, then two at each size.
        widths = [(channels[0], channels[0])]
        for i, o in pairwise(channels):
            widths += [(i, o), (o, o)]
        self.layers = nn.ModuleList(_StyledLayer(i, o, style_size) for i, o in widths)
        self.to_picture = nn.ModuleList(
            _ToPicture(width, image_channels, style_size) for width in channels
        )
        self.sides = [4 * 2 ** ((i + 1) // 2) for i in range(len(widths))]
        self.noise_size = sum(side * side for side in self.sides)

    def forward(self, latent: Tensor, noise: Tensor, truncation: Tensor) -> Tensor:
        """Return `image: float32[N, C, H, W]`, about -1 to 1.

        Args:
            latent: `float32[N, latent_size]` from a normal distribution.
            noise: `float32[N, noise_size]` from a normal distribution, coarsest layer first.
            truncation: `float32[N, 1]`, 1 for the whole variety, 0 for the mean picture.
        """
        style = self.mapping(latent)
        if self.training:
            with torch.no_grad():
                self.mean_style.lerp_(style.mean(0), 1 - _MEAN_STYLE_DECAY)
        style = self.mean_style + truncation * (style - self.mean_style)
        noises = [
            part.reshape(-1, 1, side, side)
            for part, side in zip(
                torch.split(noise, [side * side for side in self.sides], 1), self.sides, strict=True
            )
        ]
        x = self.layers[0](self.constant, style, noises[0])
        image: Tensor = self.to_picture[0](x, style)
        for level, to_picture in enumerate(self.to_picture[1:], 1):
            first = 2 * level - 1
            x = self.layers[first](_doubled(x), style, noises[first])
            x = self.layers[first + 1](x, style, noises[first + 1])
            image = _doubled(image) + to_picture(x, style)
        return image


def _doubled(x: Tensor) -> Tensor:
    """Double the sides; inside the border this is the paper's filter 1, 3, 3, 1."""
    return interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def style_generator_64() -> StyleGenerator:
    """Build a generator of 64x64 RGB pictures: 2.8 M parameters."""
    return StyleGenerator(128, 128, (256, 256, 128, 64, 32), image_channels=3, mapping_depth=8)

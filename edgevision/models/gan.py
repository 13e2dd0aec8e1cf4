"""DCGAN generators and discriminators: digits of 28x28, pictures of 64x64, and one told the class.

Source: Radford et al. 2016, "Unsupervised Representation Learning with Deep Convolutional
Generative Adversarial Networks", sections 3 and 4. The class enters the generator beside the latent
(Mirza and Osindero 2014, "Conditional Generative Adversarial Nets", section 3.2) and the
discriminator as a projection (Miyato and Koyama 2018, "cGANs with Projection Discriminator",
section 3). Pictures lie in -1 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Generator(nn.Module):
    """A projection of the latent to a small map, doubled by transposed convolutions."""

    def __init__(
        self, latent_size: int, channels: Sequence[int], start: int, image_channels: int
    ) -> None:
        super().__init__()
        self.latent_size = latent_size
        first = channels[0]
        self.project = nn.Linear(latent_size, first * start * start, bias=False)
        self.shape = nn.Unflatten(1, (first, start, start))
        layers: list[nn.Module] = [nn.BatchNorm2d(first), nn.ReLU()]
        for i, o in pairwise(channels):
            layers += [
                nn.ConvTranspose2d(i, o, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(o),
                nn.ReLU(),
            ]
        last = nn.ConvTranspose2d(channels[-1], image_channels, 4, stride=2, padding=1)
        self.grow = nn.Sequential(*layers, last, nn.Tanh())
        self.apply(_start_small)

    def forward(self, latent: Tensor) -> Tensor:
        """Return `image: float32[N, C, H, W], -1 to 1` of `latent: float32[N, latent_size]`."""
        image: Tensor = self.grow(self.shape(self.project(latent)))
        return image


class Discriminator(nn.Module):
    """The generator turned round: strided convolutions, then one value."""

    def __init__(self, channels: Sequence[int], end: int, image_channels: int) -> None:
        super().__init__()
        # The paper leaves batch norm out at the picture: with it the net oscillates (section 3).
        layers: list[nn.Module] = [
            nn.Conv2d(image_channels, channels[0], 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for i, o in pairwise(channels):
            layers += [
                nn.Conv2d(i, o, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(o),
                nn.LeakyReLU(0.2),
            ]
        self.shrink = nn.Sequential(*layers, nn.Flatten())
        self.judge = nn.Linear(channels[-1] * end * end, 1)
        self.apply(_start_small)

    def forward(self, image: Tensor) -> Tensor:
        """Return `logit: float32[N, 1]`, above 0 for a real picture."""
        logit: Tensor = self.judge(self.shrink(image))
        return logit


class ConditionalGenerator(nn.Module):
    """A generator whose latent is followed by a learnt vector of the class."""

    def __init__(
        self,
        latent_size: int,
        classes: int,
        channels: Sequence[int],
        start: int,
        image_channels: int,
    ) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.classes = classes
        self.embed = nn.Embedding(classes, latent_size)
        self.generator = Generator(2 * latent_size, channels, start, image_channels)

    def forward(self, latent: Tensor, label: Tensor) -> Tensor:
        """Return the images of `latent: float32[N, latent_size]` and `label: int64[N]`."""
        image: Tensor = self.generator(torch.cat((latent, self.embed(label)), dim=1))
        return image


class ConditionalDiscriminator(nn.Module):
    """A discriminator that also asks whether the picture shows the class."""

    def __init__(
        self, classes: int, channels: Sequence[int], end: int, image_channels: int
    ) -> None:
        super().__init__()
        self.discriminator = Discriminator(channels, end, image_channels)
        self.embed = nn.Embedding(classes, channels[-1] * end * end)
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        """Return `logit: float32[N, 1]`, above 0 for a real picture of class `label: int64[N]`."""
        features = self.discriminator.shrink(image)
        match = (self.embed(label) * features).sum(1, keepdim=True)
        logit: Tensor = self.discriminator.judge(features) + match
        return logit


def _start_small(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02) as the paper does (section 4)."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def digit_generator(*, latent_size: int = 100) -> Generator:
    """Build the generator of 28x28 grey digits: 0.8 M parameters."""
    return Generator(latent_size, (128, 64), start=7, image_channels=1)


def digit_discriminator() -> Discriminator:
    """Build the inverse of `digit_generator`: 0.1 M parameters."""
    return Discriminator((64, 128), end=7, image_channels=1)


def generator_64(*, latent_size: int = 100) -> Generator:
    """Build a generator of 64x64 RGB pictures, half the paper's width: 3.6 M parameters."""
    return Generator(latent_size, (512, 256, 128, 64), start=4, image_channels=3)


def discriminator_64() -> Discriminator:
    """Build the inverse of `generator_64`: 2.8 M parameters."""
    return Discriminator((64, 128, 256, 512), end=4, image_channels=3)


def conditional_digit_generator(
    *, latent_size: int = 100, classes: int = 10
) -> ConditionalGenerator:
    """Build a generator of 28x28 grey digits of a class asked for: 1.4 M parameters."""
    return ConditionalGenerator(latent_size, classes, (128, 64), start=7, image_channels=1)


def conditional_digit_discriminator(*, classes: int = 10) -> ConditionalDiscriminator:
    """Build the discriminator of `conditional_digit_generator`: 0.2 M parameters."""
    return ConditionalDiscriminator(classes, (64, 128), end=7, image_channels=1)

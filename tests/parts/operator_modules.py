"""Small modules, an operator or a pattern each, that nets are made of: for docs/operators.md.

Each stands behind a convolution (or, of sequences, a product) with weights, so that INT8 has
something to quantise. `x` is float32[1, 8, 16, 16], `s` float32[1, 12, 16].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

PICTURE, SEQUENCE = (1, 8, 16, 16), (1, 12, 16)
Body = Callable[[Tensor], Tensor] | nn.Module
Make = Callable[[], Body]


class Behind(nn.Module):
    """A module behind a layer with weights."""

    def __init__(self, body: Body, *, is_sequence: bool) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16) if is_sequence else nn.Conv2d(8, 8, 1)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(self.first(x))
        return y


class Together(nn.Module):
    """Several modules as one net, with an output each: one capture for all."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(module(name) for name in names)
        self.of_sequence = [name in SEQUENCES for name in names]

    def forward(self, x: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(self.parts, self.of_sequence, strict=True)
        return tuple(part(s if is_sequence else x) for part, is_sequence in pairs)


class Last(nn.Module):
    """The first output of a recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, s: Tensor) -> Tensor:
        y: Tensor = self.layer(s)[0]
        return y


class Attention(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(16, heads, batch_first=True)

    def forward(self, s: Tensor) -> Tensor:
        y: Tensor = self.layer(s, s, s, need_weights=False)[0]
        return y


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.body(x)
        return y


def _grid(x: Tensor) -> Tensor:
    return torch.tanh(x[:, :2].permute(0, 2, 3, 1))


def _interpolate(**options: object) -> Make:
    return lambda: lambda x: functional.interpolate(x, **options)  # type: ignore[arg-type]


def _sample(**options: object) -> Make:
    return lambda: lambda x: functional.grid_sample(x, _grid(x), **options)  # type: ignore[arg-type]


def _of(function: Callable[..., Tensor], *values: object, **options: object) -> Make:
    return lambda: lambda x: function(x, *values, **options)


def _layer(layer: Callable[..., nn.Module], *values: object, **options: object) -> Make:
    return lambda: layer(*values, **options)


f = functional
_TURN = torch.tensor([[[0.9, 0.1, 0.0], [-0.1, 0.9, 0.1]]])
conv, deconv, pad = nn.Conv2d, nn.ConvTranspose2d, functional.pad

PICTURES: dict[str, dict[str, Make]] = {
    "interpolation": {
        "nearest x2": _interpolate(scale_factor=2, mode="nearest"),
        "nearest to 24": _interpolate(size=24, mode="nearest"),
        "nearest-exact to 24": _interpolate(size=24, mode="nearest-exact"),
        "bilinear x2": _interpolate(scale_factor=2, mode="bilinear"),
        "bilinear x2, corners": _interpolate(scale_factor=2, mode="bilinear", align_corners=True),
        "bilinear to 23": _interpolate(size=23, mode="bilinear"),
        "bilinear to 5": _interpolate(size=5, mode="bilinear"),
        "bilinear to 8, antialias": _interpolate(size=8, mode="bilinear", antialias=True),
        "bicubic x2": _interpolate(scale_factor=2, mode="bicubic"),
        "bicubic to 8, antialias": _interpolate(size=8, mode="bicubic", antialias=True),
        "area to 8": _interpolate(size=8, mode="area"),
        "area to 5": _interpolate(size=5, mode="area"),
        "pixel shuffle": _layer(nn.PixelShuffle, 2),
        "pixel unshuffle": _layer(nn.PixelUnshuffle, 2),
    },
    "pooling": {
        "max 2": _layer(nn.MaxPool2d, 2),
        "max 3, stride 2, padded": _layer(nn.MaxPool2d, 3, 2, 1),
        "max 3, stride 2, ceil": _layer(nn.MaxPool2d, 3, 2, ceil_mode=True),
        "max 3, dilation 2": _layer(nn.MaxPool2d, 3, 1, dilation=2),
        "max 3, dilation 2, padded": _layer(nn.MaxPool2d, 3, 1, 1, dilation=2),
        "average 2": _layer(nn.AvgPool2d, 2),
        "average 3, padded": _layer(nn.AvgPool2d, 3, 1, 1),
        "average 3, padding not counted": _layer(nn.AvgPool2d, 3, 1, 1, count_include_pad=False),
        "average 3, stride 2, ceil": _layer(nn.AvgPool2d, 3, 2, ceil_mode=True),
        "average, divisor 3": _layer(nn.AvgPool2d, 2, divisor_override=3),
        "global average": _layer(nn.AdaptiveAvgPool2d, 1),
        "global max": _layer(nn.AdaptiveMaxPool2d, 1),
        "adaptive average to 4": _layer(nn.AdaptiveAvgPool2d, 4),
        "adaptive average to 7": _layer(nn.AdaptiveAvgPool2d, 7),
        "adaptive average to (3, 5)": _layer(nn.AdaptiveAvgPool2d, (3, 5)),
        "adaptive max to 4": _layer(nn.AdaptiveMaxPool2d, 4),
        "adaptive max to 7": _layer(nn.AdaptiveMaxPool2d, 7),
        "power mean": _layer(nn.LPPool2d, 2, 2),
        "unpooled": lambda: lambda x: f.max_unpool2d(*f.max_pool2d(x, 2, return_indices=True), 2),
    },
    "norms": {
        "batch norm": _layer(nn.BatchNorm2d, 8),
        "batch norm, no scale": _layer(nn.BatchNorm2d, 8, affine=False),
        "instance norm": _layer(nn.InstanceNorm2d, 8),
        "instance norm, scale": _layer(nn.InstanceNorm2d, 8, affine=True),
        "group norm": _layer(nn.GroupNorm, 4, 8),
        "group norm of one": _layer(nn.GroupNorm, 1, 8),
        "layer norm over pixels": _layer(nn.LayerNorm, (8, 16, 16)),
        "layer norm over channels": lambda: lambda x: f.layer_norm(
            x.permute(0, 2, 3, 1), (8,)
        ).permute(0, 3, 1, 2),
        "RMS norm": lambda: lambda x: f.rms_norm(x, (16,)),
        "L2 norm over channels": _of(f.normalize, dim=1),
        "L1 norm over channels": _of(f.normalize, p=1.0, dim=1),
        "local response": _layer(nn.LocalResponseNorm, 5),
        "weight of unit length": lambda: torch.nn.utils.parametrizations.weight_norm(conv(8, 8, 1)),
    },
    "activations": {
        name: _layer(kind, *values)
        for name, kind, *values in (
            ("ReLU", nn.ReLU), ("ReLU6", nn.ReLU6), ("leaky ReLU", nn.LeakyReLU, 0.1),
            ("PReLU", nn.PReLU, 8), ("ELU", nn.ELU), ("CELU", nn.CELU, 0.7), ("SELU", nn.SELU),
            ("GELU", nn.GELU), ("GELU by tanh", nn.GELU, "tanh"), ("SiLU", nn.SiLU),
            ("Mish", nn.Mish), ("sigmoid", nn.Sigmoid), ("hard sigmoid", nn.Hardsigmoid),
            ("hard swish", nn.Hardswish), ("tanh", nn.Tanh), ("hard tanh", nn.Hardtanh),
            ("softplus", nn.Softplus), ("softsign", nn.Softsign), ("log sigmoid", nn.LogSigmoid),
            ("soft shrink", nn.Softshrink), ("hard shrink", nn.Hardshrink),
            ("tanh shrink", nn.Tanhshrink), ("threshold", nn.Threshold, 0.1, 0.0),
            ("softmax", nn.Softmax, 1), ("log softmax", nn.LogSoftmax, 1),
            ("softmin", nn.Softmin, 1), ("gated", nn.GLU, 1),
        )
    },
    "padding": {
        "zeros": _of(pad, (1, 2, 0, 1)),
        "a constant": _of(pad, (1, 1, 1, 1), value=0.5),
        "minus infinity, then max": lambda: lambda x: f.max_pool2d(
            pad(x, (1, 1, 1, 1), value=float("-inf")), 3
        ),
        "reflection": _of(pad, (2, 2, 2, 2), mode="reflect"),
        "replication": _of(pad, (2, 2, 2, 2), mode="replicate"),
        "circular": _of(pad, (1, 1, 1, 1), mode="circular"),
        "negative": _of(pad, (-1, -1, -2, 0)),
    },
    "convolution": {
        "1x1": _layer(conv, 8, 8, 1),
        "3x3": _layer(conv, 8, 8, 3, padding=1),
        "3x3, stride 2": _layer(conv, 8, 16, 3, 2, 1),
        "3x3, dilation 2": _layer(conv, 8, 8, 3, padding=2, dilation=2),
        "depthwise": _layer(conv, 8, 8, 3, padding=1, groups=8),
        "two groups": _layer(conv, 8, 8, 3, padding=1, groups=2),
        "padded as its neighbour": _layer(conv, 8, 8, 3, padding=1, padding_mode="replicate"),
        "padded by reflection": _layer(conv, 8, 8, 3, padding=1, padding_mode="reflect"),
        "same": _layer(conv, 8, 8, 4, padding="same"),
        "large kernel": _layer(conv, 8, 8, 7, padding=3),
        "residual": Residual,
        "squeeze and excitation": Gate,
        "unfold": _layer(nn.Unfold, 3, padding=1),
        "fold": lambda: lambda x: f.fold(f.unfold(x, 2, stride=2), (16, 16), 2, stride=2),
        "fold, overlapping": lambda: lambda x: f.fold(
            f.unfold(x, 3, padding=1), (16, 16), 3, padding=1
        ),
    },
    "deconvolution": {
        "2, stride 2": _layer(deconv, 8, 8, 2, 2),
        "3, stride 2, output padding": _layer(deconv, 8, 8, 3, 2, 1, 1),
        "4, stride 2": _layer(deconv, 8, 8, 4, 2, 1),
        "in two groups": _layer(deconv, 8, 8, 4, 2, 1, groups=2),
        "in a group each": _layer(deconv, 8, 8, 4, 2, 1, groups=8),
        "with dilation 2": _layer(deconv, 8, 8, 3, 1, 2, dilation=2),
        "with no bias": _layer(deconv, 8, 8, 4, 2, 1, bias=False),
    },
    "grid sampling": {
        "bilinear grid": _sample(align_corners=False),
        "bilinear grid, corners": _sample(align_corners=True),
        "bilinear grid, border": _sample(padding_mode="border", align_corners=False),
        "bilinear grid, reflection": _sample(padding_mode="reflection", align_corners=False),
        "nearest grid": _sample(mode="nearest", align_corners=False),
        "bicubic grid": _sample(mode="bicubic", align_corners=False),
        "affine grid": lambda: lambda x: f.grid_sample(
            x, f.affine_grid(_TURN, [1, 8, 12, 12], False), align_corners=False
        ),
    },
    "reductions": {
        "mean": lambda: lambda x: x.mean((2, 3)),
        "sum": lambda: lambda x: x.sum(1),
        "maximum": lambda: lambda x: x.amax((2, 3)),
        "minimum": lambda: lambda x: x.amin(1, keepdim=True),
        "product": lambda: lambda x: (x * 0.5 + 1).prod(1),
        "norm": lambda: lambda x: x.norm(dim=(2, 3)),
        "norm of all": lambda: lambda x: x.norm().reshape(1),
        "norm of order 1": lambda: lambda x: x.norm(p=1, dim=1),
        "variance": lambda: lambda x: x.var((2, 3)),
        "standard deviation": lambda: lambda x: x.std(1),
        "log of a sum of exponentials": lambda: lambda x: x.logsumexp(1),
        "sum along an axis": lambda: lambda x: x.cumsum(2),
        "arg-max": lambda: lambda x: x.argmax(1),
        "any above": lambda: lambda x: (x > 1).any(1).to(torch.float32),
        "top 5": lambda: lambda x: x.flatten(1).topk(5)[0],
        "top 4000": lambda: lambda x: x.repeat(1, 3, 1, 1).flatten(1).topk(4000)[0],
        "median of a few": lambda: lambda x: x[:, :5].sort(1)[0][:, 2],
        "sorted": lambda: lambda x: x.sort(1)[0],
    },
    "arithmetic": {
        "add, multiply": lambda: lambda x: x * 2 + 1,
        "divide, with epsilon": lambda: lambda x: x / (x.abs() + 1e-6),
        "power": lambda: lambda x: x.abs().pow(1.5),
        "square root": lambda: lambda x: (x.abs() + 0.1).sqrt(),
        "reciprocal root": lambda: lambda x: (x.abs() + 0.1).rsqrt(),
        "exponential": lambda: torch.exp,
        "logarithm": lambda: lambda x: (x.abs() + 0.1).log(),
        "sine, cosine": lambda: lambda x: x.sin() + x.cos(),
        "arc tangent": lambda: torch.atan,
        "arc tangent of two": lambda: lambda x: torch.atan2(x, x.flip(1) + 3),
        "error function": lambda: torch.erf,
        "clamp": lambda: lambda x: x.clamp(-0.5, 0.5),
        "round": lambda: lambda x: (x * 3).round(),
        "floor, ceil": lambda: lambda x: (x * 3).floor() + (x * 3).ceil(),
        "remainder": lambda: lambda x: torch.remainder(x * 5, 2.0),
        "sign": lambda: torch.sign,
        "where": lambda: lambda x: torch.where(x > 0, x, x * 0.1),
        "maximum of two": lambda: lambda x: torch.maximum(x, x.flip(2)),
        "outer product": lambda: lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
        "product of matrices": lambda: lambda x: x @ x.transpose(2, 3),
        "masked fill": lambda: lambda x: x.masked_fill(x > 1, 0.0),
        "mean of two": lambda: lambda x: torch.stack([x, x.flip(1)]).mean(0),
    },
    "shapes": {
        "flatten": lambda: lambda x: x.flatten(1),
        "channels last": lambda: lambda x: x.permute(0, 2, 3, 1) * 2,
        "concatenate": lambda: lambda x: torch.cat([x, x * 2], 1),
        "split": lambda: lambda x: torch.cat([p * (i + 1) for i, p in enumerate(x.chunk(4, 1))], 1),
        "shuffled channels": _layer(nn.ChannelShuffle, 2),
        "slice, every second": lambda: lambda x: x[:, :, ::2, 1::2],
        "flip": lambda: lambda x: x.flip(2, 3),
        "roll": lambda: lambda x: x.roll((3, 5), (2, 3)),
        "repeat": lambda: lambda x: x.repeat(1, 2, 1, 1),
        "expand": lambda: lambda x: x.mean((2, 3), keepdim=True).expand(1, 8, 4, 4) * 1.5,
        "rotate": lambda: lambda x: torch.rot90(x, 1, (2, 3)),
        "triangle": lambda: lambda x: x.tril(),
        "windows": lambda: lambda x: x.reshape(1, 8, 4, 4, 4, 4).permute(0, 2, 4, 3, 5, 1),
        "gather": lambda: lambda x: x.gather(1, x[:, :2].argsort(1)),
        "take by index": lambda: lambda x: x[:, [0, 3, 5]],
        "scatter": lambda: lambda x: x.scatter(1, x[:, :2].argsort(1), 0.0),
        "add at indices": lambda: lambda x: x.index_add(1, torch.tensor([0, 0]), x[:, :2]),
        "embedding": lambda: lambda x: f.embedding(x.argmax(1), torch.arange(32.0).reshape(8, 4)),
        "one-hot": lambda: lambda x: f.one_hot(x.argmax(1), 8).to(torch.float32),
        "where it is not zero": lambda: lambda x: (x > 1).nonzero(),
    },
    "frequencies": {
        "real FFT": lambda: lambda x: torch.view_as_real(torch.fft.rfft(x)),
        "FFT in two axes, magnitude": lambda: lambda x: torch.fft.fft2(x).abs(),
        "and back": lambda: lambda x: torch.fft.irfft(torch.fft.rfft(x) * 0.5),
    },
}  # fmt: skip

SEQUENCE_GROUPS: dict[str, dict[str, Make]] = {
    "attention": {
        "one head": lambda: Attention(1),
        "four heads": lambda: Attention(4),
        "scaled dot product": lambda: lambda s: f.scaled_dot_product_attention(
            *(s.reshape(1, 12, 4, 4).transpose(1, 2) for _ in range(3))
        ),
        "of three axes": lambda: lambda s: f.scaled_dot_product_attention(s, s, s),
        "causal": lambda: lambda s: f.scaled_dot_product_attention(
            *(s.reshape(1, 12, 4, 4).transpose(1, 2) for _ in range(3)), is_causal=True
        ),
        "by products": lambda: lambda s: (s @ s.transpose(1, 2) / 4).softmax(-1) @ s,
        "transformer layer": _layer(nn.TransformerEncoderLayer, 16, 4, 32, batch_first=True),
    },
    "recurrent": {
        "LSTM": lambda: Last(nn.LSTM(16, 12, batch_first=True)),
        "LSTM, both ways": lambda: Last(nn.LSTM(16, 12, batch_first=True, bidirectional=True)),
        "LSTM of two layers": lambda: Last(nn.LSTM(16, 12, 2, batch_first=True)),
        "GRU": lambda: Last(nn.GRU(16, 12, batch_first=True)),
        "GRU, both ways": lambda: Last(nn.GRU(16, 12, batch_first=True, bidirectional=True)),
        "RNN": lambda: Last(nn.RNN(16, 12, batch_first=True)),
    },
    "sequences": {
        "linear": _layer(nn.Linear, 16, 24),
        "linear, no bias": _layer(nn.Linear, 16, 24, bias=False),
        "layer norm": _layer(nn.LayerNorm, 16),
        "1-D convolution": lambda: lambda s: f.conv1d(s, torch.ones(6, 12, 3) / 30, padding=1),
        "1-D deconvolution": lambda: lambda s: f.conv_transpose1d(
            s, torch.ones(12, 6, 4) / 30, stride=2
        ),
        "1-D batch norm": _layer(nn.BatchNorm1d, 12),
        "1-D max": _layer(nn.MaxPool1d, 2),
        "1-D average": _layer(nn.AvgPool1d, 3, 2),
        "1-D adaptive average to 7": _layer(nn.AdaptiveAvgPool1d, 7),
        "1-D interpolation": _interpolate(scale_factor=2.0, mode="linear"),
        "bilinear form": lambda: lambda s: f.bilinear(s, s, torch.ones(3, 16, 16) / 99),
        "cosine similarity": lambda: lambda s: f.cosine_similarity(s, s.flip(1), -1),
        "distances": lambda: lambda s: torch.cdist(s, s.flip(2)),
    },
    "volumes": {
        "3-D convolution": lambda: lambda s: f.conv3d(
            s.reshape(1, 1, 4, 6, 8), torch.ones(2, 1, 3, 3, 3) / 27, padding=1
        ),
        "3-D max": lambda: lambda s: f.max_pool3d(s.reshape(1, 1, 4, 6, 8), 2),
        "3-D average": lambda: lambda s: f.avg_pool3d(s.reshape(1, 1, 4, 6, 8), 2),
        "3-D interpolation": lambda: lambda s: f.interpolate(
            s.reshape(1, 1, 4, 6, 8), scale_factor=2, mode="trilinear"
        ),
        "3-D grid": lambda: lambda s: f.grid_sample(
            s.reshape(1, 1, 4, 6, 8), s[:, :9].reshape(1, 2, 4, 6, 3), align_corners=False
        ),
    },
}  # fmt: skip

GROUPS = {**PICTURES, **SEQUENCE_GROUPS}
SEQUENCES = {name for group in SEQUENCE_GROUPS.values() for name in group}
NAMES = list(itertools.chain.from_iterable(GROUPS.values()))


def module(name: str) -> nn.Module:
    """Return a module by its name, with weights of a fixed seed."""
    torch.manual_seed(0)
    (make,) = (group[name] for group in GROUPS.values() if name in group)
    return Behind(make(), is_sequence=name in SEQUENCES).eval()

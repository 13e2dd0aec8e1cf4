"""Image captioners: a CNN encoder, and decoders that make one word a step, their state explicit.

Sources: Xu et al. 2015, "Show, Attend and Tell", section 3.1, for the recurrent decoders; Bahdanau
et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", appendix
A.1.2, for additive attention; Vaswani et al. 2017, "Attention Is All You Need", for the
Transformer, with norms before the layers (Xiong et al. 2020). Every tensor of features and state
has the batch first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgevision.models.mobilenet_v2 import MobileNetV2

Features = tuple[Tensor, ...]
State = tuple[Tensor, ...]
Step = tuple[Tensor, State, Tensor | None]

DECODERS = ("lstm", "gru", "transformer")


class Captioner(nn.Module):
    """An encoder and a decoder behind the three calls that a search needs.

    Attributes:
        max_length: steps that the decoder has room for; None where there is no limit.
    """

    def __init__(self, encoder: nn.Module, decoder: RecurrentDecoder | TransformerDecoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.max_length: int | None = getattr(decoder, "max_length", None)

    def encode(self, pixels: Tensor) -> Features:
        """Return what the decoder reads of `pixels: float32[N, 3, H, W]`, normalised."""
        features: Features = self.decoder.read(self.encoder(pixels))
        return features

    def start(self, features: Features) -> State:
        """Return the state before the first word."""
        return self.decoder.start(features)

    def step(self, token: Tensor, state: State, features: Features) -> Step:
        """Read `token: int64[N]`.

        Returns:
            logits float32[N, V] of the next word, the new state, and how much each place of the
            picture counted, float32[N, h, w] that sum to 1, or None without attention.
        """
        return self.decoder.step(token, state, features)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Return logits float32[N, T, V] after each of `tokens: int64[N, T]`."""
        return self.train_step(pixels, tokens)[0]

    def train_step(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `forward` does, and the encoder's map, for training."""
        places = self.encoder(pixels)
        features = self.decoder.read(places)
        state = self.start(features)
        logits = []
        for token in tokens.unbind(1):
            scores, state, _ = self.step(token, state, features)
            logits.append(scores)
        return torch.stack(logits, 1), places


class FeatureMap(nn.Module):
    """A backbone's last map, with each place's position mixed in: float32[N, h, w, C]."""

    def __init__(self, backbone: nn.Module, in_channels: int, channels: int) -> None:
        """Take any module that gives a map, or several of which the last is meant."""
        super().__init__()
        self.backbone = backbone
        self.project = nn.Linear(in_channels, channels)
        self.place = nn.Linear(2, channels)
        self.mix = nn.Linear(channels, channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the map of `pixels: float32[N, 3, H, W]`."""
        maps = self.backbone(pixels)
        x = maps if isinstance(maps, Tensor) else maps[-1]
        x = x.permute(0, 2, 3, 1)
        # Without it, a mean over the places would not know what stood where.
        rows, columns = (torch.linspace(-1, 1, side, device=x.device) for side in x.shape[1:3])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)
        mixed: Tensor = self.mix((self.project(x) + self.place(grid)).relu()).relu()
        return mixed


class AdditiveAttention(nn.Module):
    """How much each place counts: softmax of v . tanh(key + query)."""

    def __init__(self, channels: int, hidden: int, size: int) -> None:
        super().__init__()
        self.key = nn.Linear(channels, size)
        self.query = nn.Linear(hidden, size, bias=False)
        self.score = nn.Linear(size, 1, bias=False)

    def forward(self, keys: Tensor, hidden: Tensor) -> Tensor:
        """Return float32[N, L] of `keys: [N, L, A]` and `hidden: [N, H]`."""
        scores: Tensor = self.score((keys + self.query(hidden)[:, None]).tanh())[..., 0]
        return scores.softmax(-1)


class RecurrentDecoder(nn.Module):
    """An LSTM or GRU that sees the picture again before each word; without attention its mean."""

    def __init__(
        self,
        vocabulary: int,
        channels: int,
        *,
        cell: str = "lstm",
        attention: bool = True,
        embedding: int = 256,
        hidden: int = 512,
    ) -> None:
        super().__init__()
        if cell not in ("lstm", "gru"):
            raise ValueError(f"cell: got '{cell}', expected lstm or gru")
        self.states = 2 if cell == "lstm" else 1
        self.embed = nn.Embedding(vocabulary, embedding)
        self.first = nn.Linear(channels, hidden * self.states)
        self.cell = (nn.LSTMCell if cell == "lstm" else nn.GRUCell)(embedding + channels, hidden)
        self.attention = AdditiveAttention(channels, hidden, hidden) if attention else None
        self.gate = nn.Linear(hidden, channels)
        self.mix = nn.Linear(hidden + channels + embedding, hidden)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(hidden, vocabulary)

    def read(self, features: Tensor) -> Features:
        """Return the map [N, h, w, C] and its keys [N, L, A]; without attention its mean [N, C]."""
        if self.attention is None:
            return (features.mean((1, 2)),)
        return features, self.attention.key(features.flatten(1, 2))

    def start(self, features: Features) -> State:
        """Return the first hidden state, and an LSTM's memory, of the picture's mean."""
        mean = features[0].mean((1, 2)) if self.attention else features[0]
        return tuple(self.first(mean).tanh().chunk(self.states, 1))

    def step(self, token: Tensor, state: State, features: Features) -> Step:
        """Read one word; see `Captioner.step`."""
        word, seen, weights = self.embed(token), features[0], None
        if self.attention is not None:
            grid = seen.shape[1:3]
            weights = self.attention(features[1], state[0])
            seen = (weights[:, None] @ seen.flatten(1, 2))[:, 0]
            weights = weights.view(-1, *grid)
        seen = seen * self.gate(state[0]).sigmoid()
        x = torch.cat([word, seen], 1)
        state = self.cell(x, state) if self.states == 2 else (self.cell(x, state[0]),)
        mixed = self.mix(torch.cat([state[0], seen, word], 1)).tanh()
        return self.head(self.drop(mixed)), state, weights


class TransformerDecoder(nn.Module):
    """A Transformer whose keys and values of past words stand in a cache of fixed size."""

    def __init__(
        self,
        vocabulary: int,
        channels: int,
        *,
        max_length: int,
        attention: bool = True,
        width: int = 256,
        layers: int = 3,
        heads: int = 8,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width: got {width}, expected a multiple of {heads} heads")
        self.max_length, self.heads, self.pooled = max_length, heads, not attention
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(max_length, width) * 0.02)
        self.layers = nn.ModuleList(_Layer(width, channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def read(self, features: Tensor) -> Features:
        """Return each layer's keys and values of the picture, [N, heads, d, h, w] in pairs."""
        if self.pooled:
            features = features.mean((1, 2), keepdim=True)
        return tuple(x for layer in self.layers for x in layer.read(features))  # type: ignore[operator]

    def start(self, features: Features) -> State:
        """Return an empty cache [N, layers, 2, heads, T, d], and the position int64[N]."""
        count, heads, depth = features[0].shape[:3]
        cache = features[0].new_zeros((count, len(self.layers), 2, heads, self.max_length, depth))
        return cache, torch.zeros(count, dtype=torch.int64, device=cache.device)

    def step(self, token: Tensor, state: State, features: Features) -> Step:
        """Read one word; see `Captioner.step`."""
        cache, position = state
        places = torch.arange(self.max_length, device=token.device)
        here = (places == position[:, None]).to(cache.dtype)
        unseen = (places > position[:, None])[:, None, None]
        x = self.embed(token) + here @ self.position
        kept, weights = [], None
        for i, layer in enumerate(self.layers):
            x, pair, weights = layer(x, cache[:, i], here, unseen, features[2 * i : 2 * i + 2])
            kept.append(pair)
        logits = self.head(self.norm(x))
        return logits, (torch.stack(kept, 1), position + 1), None if self.pooled else weights


class _Layer(nn.Module):
    """Attention to past words, attention to the picture, and a net of two layers."""

    def __init__(self, width: int, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own = nn.Linear(width, 3 * width)
        self.own_out = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.picture = nn.Linear(channels, 2 * width)
        self.picture_out = nn.Linear(width, width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values float32[N, heads, d, h, w] of a map [N, h, w, C]."""
        keys, values = (
            x.unflatten(-1, (self.heads, -1)).permute(0, 3, 4, 1, 2)
            for x in self.picture(features).chunk(2, -1)
        )
        return keys, values

    def forward(
        self, x: Tensor, cache: Tensor, here: Tensor, unseen: Tensor, picture: Features
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the word's new vector, the cache with it, and the weights of the places."""
        query, key, value = (
            part.unflatten(1, (self.heads, -1)) for part in self.own(self.norms[0](x)).chunk(3, 1)
        )
        row = here[:, None, None, :, None]
        cache = cache * (1 - row) + torch.stack([key, value], 1)[:, :, :, None] * row
        past, _ = _attend(query, cache[:, 0], cache[:, 1], unseen)
        x = x + self.own_out(past)
        grid = picture[0].shape[-2:]
        query = self.query(self.norms[1](x)).unflatten(1, (self.heads, -1))
        keys, values = (part.flatten(3).transpose(2, 3) for part in picture)
        seen, weights = _attend(query, keys, values)
        x = x + self.picture_out(seen)
        x = x + self.narrow(self.wide(self.norms[2](x)).relu())
        return x, cache, weights.mean(1).view(-1, *grid)


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the mix [N, heads d] and the weights [N, heads, L] of one `query: [N, heads, d]`."""
    scores = (query[:, :, None] @ keys.transpose(2, 3)) / math.sqrt(query.shape[-1])
    if hidden is not None:
        scores = scores.masked_fill(hidden, -1e4)  # float16 holds it
    weights = scores.softmax(-1)
    return (weights @ values).flatten(1), weights[:, :, 0]


def captioner_mobilenet_v2(
    vocabulary: int,
    *,
    decoder: str = "lstm",
    attention: bool = True,
    max_length: int = 24,
    channels: int = 256,
    hidden: int = 256,
) -> Captioner:
    """Build a captioner over MobileNetV2 at stride 16, made for embedded GPUs."""
    if decoder not in DECODERS:
        raise ValueError(f"decoder: got '{decoder}', expected one of {', '.join(DECODERS)}")
    backbone = MobileNetV2(output_stride=16)
    encoder = FeatureMap(backbone, backbone.channels[-1], channels)
    if decoder == "transformer":
        return Captioner(
            encoder,
            TransformerDecoder(
                vocabulary, channels, max_length=max_length, attention=attention, width=hidden
            ),
        )
    recurrent = RecurrentDecoder(
        vocabulary, channels, cell=decoder, attention=attention, embedding=128, hidden=hidden
    )
    return Captioner(encoder, recurrent)

"""The search for a caption, one step at a time: greedy, or by beams.

Source of the beam search: Sutskever et al. 2014, "Sequence to Sequence Learning with Neural
Networks", section 3.2; of the ranking by length: Wu et al. 2016, "Google's Neural Machine
Translation System", section 7, in the plain form of score / length ** penalty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import onnx
import torch
from torch import Tensor, nn

from edgevision.errors import ExportError

_NEVER = -1e9

Tensors = tuple[Tensor, ...]


class CaptionModule(Protocol):
    """What a search asks of a captioner; the batch is the first axis of every tensor.

    Features and state are handed on as tuples of tensors, also where a method gave one tensor.

    `step` gives logits float32[N, V], the new state, and if the net attends, the weight of each
    place of the picture, float32[N, h, w].
    """

    def encode(self, pixels: Tensor) -> Tensor | Tensors:
        """Return what the decoder reads of `pixels: float32[N, 3, H, W]`, normalised."""

    def start(self, features: Any) -> Tensor | Tensors:
        """Return the state before the first word."""

    def step(self, token: Tensor, state: Any, features: Any) -> Sequence[Any]:
        """Read `token: int64[N]`."""


class Before(nn.Module):
    """The first values of what a search carries, and the picture's features, once for each beam."""

    def __init__(
        self,
        module: nn.Module,
        pixels: nn.Module,
        ids: tuple[int, int],
        steps: int,
        beams: int,
        attends: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.module, self.pixels = module, pixels
        self.ids, self.steps, self.beams, self.attends = ids, steps, beams, attends

    def forward(self, frame: Tensor) -> Tensors:
        """Return token, words, sums, maybe places, then state and features."""
        features = as_tuple(self.module.encode(self.pixels(frame)))  # type: ignore[operator]
        if self.beams > 1:
            features = tuple(x.repeat_interleave(self.beams, 0) for x in features)
        state = as_tuple(self.module.start(features))  # type: ignore[operator]
        count = frame.shape[0] * self.beams
        start, end = self.ids
        token = torch.full((count,), start)
        words = torch.full((count, self.steps), end)
        # All beams begin alike: without a handicap they would stay so.
        sums = torch.tensor([0.0] + [_NEVER] * (self.beams - 1)).repeat(frame.shape[0])
        attention = [torch.zeros(count, self.steps, *self.attends)] if self.attends else []
        return (token, words, sums, *attention, *state, *features)


class Step(nn.Module):
    """One step of the search: a word for each beam that has not ended."""

    def __init__(
        self,
        module: nn.Module,
        end: int,
        beams: int,
        features: int,
        states: int,
        attends: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.module, self.end, self.beams = module, end, beams
        self.features, self.states, self.attends = features, states, attends

    def forward(self, step: Tensor, *carried: Tensor) -> Tensors:
        """Return whether to go on, and what is carried into the next step."""
        token, words, sums, *others = carried
        attention = others.pop(0) if self.attends else None
        state, features = others[: self.states], others[self.states :]
        ended = (token == self.end) & (step > 0)
        logits, states, weights = take_step(self.module, token, tuple(state), tuple(features))
        here = torch.arange(words.shape[1]) == step
        if attention is not None:
            payload = (here & ~ended[:, None])[:, :, None, None]
            attention = torch.where(payload, weights[:, None], attention)
        likely = logits.log_softmax(-1)
        if self.beams == 1:
            token = torch.where(ended, torch.full_like(token, self.end), logits.argmax(-1))
            gained = likely.gather(1, token[:, None])[:, 0]
            sums = sums + gained * (1 - ended.to(gained.dtype))
        else:
            parents, token, sums = self._best(likely, ended, sums)
            words, *moved = (x.index_select(0, parents) for x in (words, *states))
            states = tuple(moved)
            if attention is not None:
                attention = attention.index_select(0, parents)
        words = torch.where(here, token[:, None], words)
        going = (token != self.end).to(torch.int32).amax(0) > 0
        kept = [attention] if attention is not None else []
        return (going, token, words, sums, *kept, *states)

    def _best(self, likely: Tensor, ended: Tensor, sums: Tensor) -> Tensors:
        """Return the K best continuations: from which beam, by which word, with which sum."""
        count, size = likely.shape
        # A hypothesis that has ended goes on as it is, at no cost.
        rest = torch.where(torch.arange(size) == self.end, 0.0, _NEVER)
        likely = torch.where(ended[:, None], rest, likely)
        all_sums = (sums[:, None] + likely).view(-1, self.beams * size)
        best, chosen = all_sums.topk(self.beams, dim=1)
        frames = torch.arange(count // self.beams)[:, None] * self.beams
        parents = frames + chosen // size
        return parents.flatten(), (chosen % size).flatten(), best.flatten()


class FirstStep(nn.Module):
    """What a search word by word begins with: the start token, state and features."""

    def __init__(self, module: nn.Module, pixels: nn.Module, start: int) -> None:
        super().__init__()
        self.module, self.pixels, self.start = module, pixels, start

    def forward(self, frame: Tensor) -> Tensors:
        """Return token, state and features."""
        features = as_tuple(self.module.encode(self.pixels(frame)))  # type: ignore[operator]
        state = as_tuple(self.module.start(features))  # type: ignore[operator]
        return (torch.full((frame.shape[0],), self.start), *state, *features)


class NextWord(nn.Module):
    """One greedy step, and nothing that gathers words."""

    def __init__(self, module: nn.Module, states: int) -> None:
        super().__init__()
        self.module, self.states = module, states

    def forward(self, token: Tensor, *others: Tensor) -> Tensors:
        """Return the word, its log-probability, maybe places, and the new state."""
        state, features = others[: self.states], others[self.states :]
        logits, states, weights = take_step(self.module, token, state, features)
        word = logits.argmax(-1)
        gained = logits.log_softmax(-1).gather(1, word[:, None])[:, 0]
        return (word, gained, *([] if weights is None else [weights]), *states)


class After(nn.Module):
    """The answers: captions ranked, with the number of their words."""

    def __init__(self, end: int, beams: int, penalty: float) -> None:
        super().__init__()
        self.end, self.beams, self.penalty = end, beams, penalty

    def forward(self, words: Tensor, sums: Tensor, attention: Tensor | None = None) -> Tensors:
        """Return tokens, lengths, scores and maybe attention, beams on the second axis."""
        tokens = words.view(-1, self.beams, words.shape[1])
        scores = sums.view(-1, self.beams)
        lengths = (tokens != self.end).to(torch.int32).sum(-1).to(torch.int32)
        maps = [] if attention is None else [attention.view(-1, self.beams, *attention.shape[1:])]
        if self.beams > 1 and self.penalty:
            # The end counts as a word here, as it does in the sum.
            ranks = scores / (lengths + 1).to(scores.dtype) ** self.penalty
            order = ranks.topk(self.beams, dim=1).indices
            tokens, *maps = (_ordered(x, order) for x in (tokens, *maps))
            lengths, scores = lengths.gather(1, order), scores.gather(1, order)
        return (tokens.to(torch.int32), lengths, scores, *maps)


def _ordered(x: Tensor, order: Tensor) -> Tensor:
    places = order.reshape(*order.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return x.gather(1, places)


def as_tuple(made: object) -> Tensors:
    """Return tensors as a tuple; ExportError if they are none."""
    if isinstance(made, Tensor):
        return (made,)
    if isinstance(made, tuple | list) and all(isinstance(x, Tensor) for x in made):
        return tuple(made)
    raise ExportError(f"expected a tensor or a tuple of tensors, got {type(made).__name__}")


def take_step(
    module: Any, token: Tensor, state: Tensors, features: Tensors
) -> tuple[Tensor, Tensors, Any]:
    """Return logits, state, and attention if the module gives any."""
    logits, state, *rest = module.step(token, state, features)
    return logits, as_tuple(state), rest[0] if rest else None


def nodes_behind_scores(nodes: Sequence[onnx.NodeProto]) -> Iterator[str]:
    """Give the names of the nodes that sum or rank log-probabilities."""
    scores = set[str]()
    for node in nodes:
        ranks = node.op_type == "LogSoftmax" or node.name.startswith("after/")
        if ranks or (scores & set(node.input) and node.op_type not in ("Gather", "ArgMax")):
            scores.update(node.output)
            yield node.name

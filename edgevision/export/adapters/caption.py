"""An image captioner with its search: camera frame in, whole captions out, one graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgevision.bundle.manifest import Settings
from edgevision.bundle.tensors import NEXT, Array, DType, ShapeProfile, TensorSpec
from edgevision.errors import ExportError
from edgevision.export.adapters.adapter import Feeds, ModelAdapter, Run
from edgevision.export.adapters.frame import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Camera,
    CameraInput,
    Cameras,
    FrontEnd,
    replaced_batch,
)
from edgevision.export.adapters.registry import Given, refuse_options
from edgevision.export.adapters.resize import middle_of
from edgevision.export.adapters.search import (
    After,
    Before,
    FirstStep,
    NextWord,
    Step,
    as_tuple,
    nodes_behind_scores,
    take_step,
)
from edgevision.export.adapters.stepwise import Part, join_stages, stage_feeds
from edgevision.export.graph.capture import capture, evaluating
from edgevision.export.graph.loops import GOING, NUMBER, Search, make_loop, unroll
from edgevision.export.graph.subgraphs import nested
from edgevision.export.zoo import card_size
from edgevision.tasks.caption import ENCODE, MAX_STEPS, STEP
from edgevision.tasks.vocabulary import Vocabulary, WordList

FORMS = ("loop", "unrolled", "step")
_MAX_BEAMS = 32
_VOCABULARY = "task/vocabulary.json"


class Captioner(ModelAdapter):
    """Adapter of any net that makes one word a step, to a graph that makes the whole caption.

    The graph takes `frame: uint8[N, H, W, 3]` of `input_size`, and gives `tokens: int32[N, K, T]`
    (after the end, the end token), `lengths: int32[N, K]` in words, `scores: float32[N, K]`, sums
    of log-probabilities, and if the net attends, `attention: float32[N, K, T, h, w]`. K is the
    number of beams, best first. The module is used, never changed.

    Example:
        >>> net = Captioner(module, words, size=(224, 224), max_length=20)  # doctest: +SKIP
    """

    task = "caption"

    def __init__(
        self,
        module: nn.Module,
        vocabulary: Sequence[str] | Vocabulary,
        *,
        size: tuple[int, int],
        max_length: int = 20,
        beams: int = 1,
        length_penalty: float = 0.0,
        form: str = "loop",
        start: str | int = "<start>",
        end: str | int = "<end>",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        resize: int | None = None,
        channel_order: str = "rgb",
        input_size: tuple[int, int] | None = None,
        batch: int | None = None,
        camera: Camera | None = None,
        cameras: Cameras = None,
    ) -> None:
        """Wrap `module`.

        Args:
            module: has the three methods of `CaptionModule`.
            vocabulary: the words in the order of the logits, or a tokenizer.
            size: (H, W) of the net's input.
            max_length: words of a caption at most, 1 to 512.
            beams: hypotheses that a search follows; 1 is the likeliest word at every step.
            length_penalty: hypotheses are ranked by score / length ** length_penalty at the end.
            form: "loop", an ONNX Loop that ends with the longest caption; "unrolled", every step
                written out, for devices that refuse a Loop; or "step", an encoder and a step for
                `edgevision.load_streaming`, which gives each word as it comes.
            start: the token before the first word, or its number.
            end: the token after the last word, or its number.
            mean: per channel on the 0-1 scale, in RGB; by default ImageNet's.
            std: per channel on the 0-1 scale, in RGB; by default ImageNet's.
            resize: short side of the frame before its middle is cut out at `size`; by default the
                smallest that covers `size`.
            channel_order: "rgb" or "bgr", the order in which the camera's frames will come.
            input_size: (H, W) of the camera's frame, if it is not `size`.
            batch: what `cameras` was called before.
            camera: what the camera gives, in place of `channel_order` and `input_size`; its `fit`
                and `region`, where given, in place of `resize`.
            cameras: how many cameras' frames come in one call, N, or (fewest, most): a list of
                results then comes out. By default one frame, and one result.

        Raises:
            ValueError: an argument makes no sense.
            ExportError: the module does not do what `CaptionModule` says, or does not fit the
                vocabulary.
        """
        self.vocabulary: Vocabulary = (
            WordList(vocabulary) if isinstance(vocabulary, Sequence) else vocabulary
        )
        _check_range("max_length", max_length, MAX_STEPS)
        _check_range("beams", beams, _MAX_BEAMS)
        if form not in FORMS:
            raise ValueError(f"form: got '{form}', expected one of {', '.join(FORMS)}")
        cameras = replaced_batch(batch, cameras)
        self._camera = CameraInput.check(size, input_size, channel_order, camera, cameras=cameras)
        if self._camera.profiles:
            raise ValueError(
                f"cameras: got {cameras}, and a search follows a fixed number of captions. Give "
                f"one number, such as {self._camera.batch}"
            )
        if form == "step" and (beams != 1 or cameras is not None):
            raise ValueError(
                f"form: 'step' takes one beam and one frame, got {beams} and {cameras} cameras"
            )
        if not math.isfinite(length_penalty):
            raise ValueError(f"length_penalty: got {length_penalty}, expected a number")
        own = getattr(module, "max_length", None)
        if own is not None and own < max_length:
            raise ValueError(f"max_length: got {max_length}, the module holds {own} steps")
        self._start = _number("start", start, self.vocabulary)
        self._end = _number("end", end, self.vocabulary)
        self._form = form
        self._max_length, self._beams, self._penalty = max_length, beams, length_penalty
        fit = middle_of(self._camera, resize, name="resize")
        self._own_fit = None if fit is None else fit.name
        pixels = FrontEnd(self._camera, mean, std, fit=fit)
        self.inputs: tuple[TensorSpec, ...] = (self._camera.tensor,)
        self.profiles: Mapping[str, ShapeProfile] = {}
        captions = self._camera.batch * beams
        tried = _tried(module, pixels, captions, self._start, self.vocabulary.size)
        self._features, self._states, self._attends = tried
        ids = (self._start, self._end)
        self._before = Before(module, pixels, ids, max_length, beams, self._attends)
        self._body = Step(module, self._end, beams, self._features, self._states, self._attends)
        self._after = After(self._end, beams, length_penalty)
        self._pixels, self._module = pixels, module
        if form == "step":
            self.stages: Mapping[str, ModelAdapter] = self._parts()

    def settings(self) -> Settings:
        """Return the sizes, the search and where the vocabulary stands, for the manifest."""
        return {
            **self._camera.settings(own_fit=self._own_fit),
            "vocabulary": {
                "kind": self.vocabulary.kind,
                "path": _VOCABULARY,
                "size": self.vocabulary.size,
            },
            "start": self._start,
            "end": self._end,
            "max_length": self._max_length,
            "form": self._form,
            "length_penalty": self._penalty,
        }

    def files(self) -> dict[str, bytes]:
        """Return the vocabulary, by its path in the bundle."""
        return {_VOCABULARY: self.vocabulary.to_bytes()}

    def reference(self, feeds: Feeds) -> dict[str, Array]:
        """Return the captions by eager PyTorch, one step after the other."""
        with evaluating(self._before), evaluating(self._body):
            made = self._before(torch.from_numpy(np.array(feeds["frame"])))
            count = len(self._carried)
            carried, same = made[:count], made[count:]
            for step in range(self._max_length):
                going, *carried = self._body(torch.tensor(step), *carried, *same)
                if not going:
                    break
            answers = self._after(*carried[1 : len(self._answers)])
        return {name: answer.numpy() for name, answer in zip(self._answers, answers, strict=True)}

    def to_onnx(self) -> onnx.ModelProto:
        """Return the FP32 graph; see `ModelAdapter`."""
        search = self.search()
        return make_loop(search) if self._form == "loop" else unroll(search)

    def search(self) -> Search:
        """Return the graphs of one step and of what stands around it.

        Raises:
            ExportError: torch cannot export the module.
        """
        carried, same = self._carried, [f"feature_{i}" for i in range(self._features)]
        with evaluating(self._before), evaluating(self._body):
            made = self._before(torch.zeros(self.inputs[0].shape, dtype=torch.uint8))
        specs = [_spec(n, x) for n, x in zip([*carried, *same], made, strict=True)]
        step = TensorSpec(NUMBER, DType.INT64, ())
        return Search(
            before=capture(self._before, self.inputs, [*carried, *same], {}),
            body=capture(self._body, [step, *specs], [GOING, *(n + NEXT for n in carried)], {}),
            after=capture(self._after, specs[1 : len(self._answers)], self._answers, {}),
            carried=tuple(carried),
            steps=self._max_length,
        )

    def stage_feeds(self, samples: Sequence[Feeds]) -> Mapping[str, list[Feeds]]:
        """Return what the encoder and the step are fed, of a captioner of form "step"."""
        return stage_feeds(self.stages, samples, end=self._end, steps=self._max_length)

    def join_stages(self, runs: Mapping[str, Run]) -> Run:
        """Return what gives whole captions, of a captioner of form "step"."""
        return join_stages(runs, end=self._end, steps=self._max_length)

    def kept_fp32(self, graph: onnx.ModelProto) -> list[str]:
        """Return what follows from the log-probabilities: sums of scores, and what they rank.

        Two words nearly as likely are told apart by digits that float16 does not have.
        """
        behind = [name for part in nested(graph.graph) for name in nodes_behind_scores(part.node)]
        return [*behind, *self._camera.kept_fp32(graph)]

    def _parts(self) -> dict[str, ModelAdapter]:
        states = [f"state_{i}" for i in range(self._states)]
        names = ["token", *states, *(f"feature_{i}" for i in range(self._features))]
        first = FirstStep(self._module, self._pixels, self._start)
        with evaluating(first):
            made = first(torch.zeros(self.inputs[0].shape, dtype=torch.uint8))
        specs = tuple(_spec(name, x) for name, x in zip(names, made, strict=True))
        payload = ["gained", *(["places"] if self._attends else [])]
        answers = (f"token{NEXT}", *payload, *(name + NEXT for name in states))
        return {
            ENCODE: Part(first, self.inputs, tuple(names), {}),
            STEP: Part(NextWord(self._module, self._states), specs, answers, {}),
        }

    @property
    def _carried(self) -> list[str]:
        attended = ["places"] if self._attends else []
        states = [f"state_{i}" for i in range(self._states)]
        return ["token", "words", "sums", *attended, *states]

    @property
    def _answers(self) -> list[str]:
        return ["tokens", "lengths", "scores", *(["attention"] if self._attends else [])]


def _tried(
    module: Any, pixels: FrontEnd, count: int, start: int, words: int
) -> tuple[int, int, tuple[int, int] | None]:
    """Run one step, and return how many features and states there are, and the attention's grid.

    Raises:
        ExportError: the module does not do what `CaptionModule` says.
    """
    missing = [name for name in ("encode", "start", "step") if not hasattr(module, name)]
    if missing:
        raise ExportError(
            f"{type(module).__name__} has no {', '.join(missing)}: a captioner needs encode(pixels)"
            " -> features, start(features) -> state, step(token, state, features) -> logits, state"
        )
    frame = torch.zeros(count, *pixels.camera.layout.shape, dtype=torch.uint8)
    with evaluating(module, "a frame"):
        features = as_tuple(module.encode(pixels(frame)))
        state = as_tuple(module.start(features))
        token = torch.full((count,), start)
        logits, new, weights = take_step(module, token, state, features)
    for name, parts in (("feature", features), ("state", state)):
        for i, x in enumerate(parts):
            if x.ndim == 0 or len(x) != count:
                raise ExportError(
                    f"{name} {i} is {list(x.shape)}, expected the batch of {count} first"
                )
    if logits.shape != (count, words):
        raise ExportError(
            f"the head gives logits {list(logits.shape)}, expected [{count}, {words}] for the "
            f"{words} words of the vocabulary"
        )
    before, after = ([_described(x) for x in parts] for parts in (state, new))
    if before != after:
        raise ExportError(
            f"the step changes its state from {before} to {after}; a loop carries tensors of one "
            "shape: keep a cache of max_length places and a position"
        )
    if weights is None:
        return len(features), len(state), None
    if not isinstance(weights, Tensor) or weights.ndim != 3 or len(weights) != count:
        raise ExportError(
            f"the step gives attention {_described(weights)}, expected float32[{count}, h, w]"
        )
    return len(features), len(state), (int(weights.shape[1]), int(weights.shape[2]))


def _described(x: object) -> str:
    return f"{x.dtype}{list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__


def _spec(name: str, x: Tensor) -> TensorSpec:
    return TensorSpec(name, DType(str(x.dtype).removeprefix("torch.")), tuple(x.shape))


def _check_range(name: str, value: int, most: int) -> None:
    if not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{name}: got {value!r}, expected 1 to {most}")


def _number(name: str, token: str | int, vocabulary: Vocabulary) -> int:
    """Return a token's number; ValueError if the vocabulary has no such token."""
    number = token if isinstance(token, int) else vocabulary.number(token)
    if number is None or not 0 <= number < vocabulary.size:
        raise ValueError(
            f"{name}: {token!r} is none of the vocabulary's {vocabulary.size} tokens. Name the "
            f"token that the net was trained with: {name}=..."
        )
    return number


def from_card(module: nn.Module, card: Mapping[str, Any], given: Given) -> Captioner:
    """Return the adapter of a shipped net; see `registry`."""
    refuse_options("a shipped captioner", size=given.get("size"))
    own = {"size": card_size(card), "max_length": card["max_length"]}
    return Captioner(module, card["vocabulary"], **{**own, **given})


ADAPTER = Captioner
MODULE_REASON = (
    "a captioner needs its vocabulary; let the factory return "
    "edgevision.export.Captioner(module, vocabulary, size=...)"
)

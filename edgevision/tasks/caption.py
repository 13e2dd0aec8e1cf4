"""Captions on the run side: camera frame in, sentences out, and where the net looked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.camera import Image, check_same_frame, feed_of, order_of
from edgevision.tasks.timings import Timings
from edgevision.tasks.vocabulary import Vocabulary, read_vocabulary

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]

ENCODE, STEP = "encode", "step"
"""Names of the stages of a captioner that speaks word by word."""

NEXT = "_next"
"""Ends the name of what a step makes anew."""

MOST_STEPS = 512
"""Words of a caption at most."""

_OUTPUTS = ("tokens", "lengths", "scores")
_COLUMNS = 5
_TILE_PX = 240
_MARGIN_PX = 4


@dataclass(frozen=True, slots=True)
class CaptionResult:
    """What a captioner says of one frame.

    Attributes:
        text: the best caption.
        words: its words, or pieces of words.
        tokens: int32[n], their numbers, without start and end; host, the caller's own.
        scores: float32[K], the sum of log-probabilities of each hypothesis.
        hypotheses: the text of each, best first; one without beams.
        attention: float32[n, h, w], how much each place of the frame counted for each word of the
            best caption, summing to 1; None if the net does not attend.
        frame_size: (H, W) of the frame.
        timings: how long it took.
    """

    text: str
    words: tuple[str, ...]
    tokens: npt.NDArray[np.int32]
    scores: Floats
    hypotheses: tuple[str, ...]
    attention: Floats | None
    frame_size: tuple[int, int]
    timings: Timings

    def __str__(self) -> str:
        """Return the caption."""
        return self.text

    def overlay(self, frame: Image) -> Image:
        """Return the frame with its caption, and with the attention of each word if there is any.

        Returns:
            uint8[H', W', 3] RGB: the frame, then for each word the frame lit where the net looked
            (as in Xu et al. 2015, "Show, Attend and Tell", figure 3).

        Raises:
            FrameError: `frame` is not uint8[H, W, 3] of the size that was run.
        """
        check_same_frame(frame, self.frame_size)
        images = require("PIL.Image", extra="media")
        height, width = self.frame_size
        scale = _TILE_PX / width
        size = (_TILE_PX, max(1, round(height * scale)))
        photo = np.asarray(images.fromarray(frame).resize(size))
        tiles = [(photo, "")]
        if self.attention is not None:
            tiles += [
                (_lit(photo, weights), word)
                for weights, word in zip(self.attention, self.words, strict=True)
            ]
        return _sheet(tiles, self.text)


@dataclass(frozen=True, slots=True)
class CaptionTask:
    """Turns frames into feeds and outputs into `CaptionResult`.

    Attributes:
        vocabulary: what the tokens mean.
        frame_size: (H, W) of the frame that the graph takes.
        channel_order: "rgb" or "bgr", the order in which the graph takes the frame's channels.
        input_name: the graph's name for the frame.
    """

    vocabulary: Vocabulary
    frame_size: tuple[int, int]
    channel_order: str
    input_name: str

    @staticmethod
    def from_manifest(
        settings: Settings, stages: tuple[Stage, ...], read: Callable[[str], bytes]
    ) -> CaptionTask:
        """Read the task's settings, and its vocabulary by `read`.

        Raises:
            BundleFormatError: they are not those of this task, or do not fit the graph.
            MissingDependencyError: the vocabulary needs a library that is not installed.
        """
        if len(stages) != 1 or len(stages[0].inputs) != 1:
            raise BundleFormatError("task caption: expected one stage with one input")
        frame, outputs = stages[0].inputs[0], {spec.name: spec for spec in stages[0].outputs}
        if not _fits(frame, outputs):
            found = ", ".join(str(spec) for spec in (frame, *outputs.values()))
            raise BundleFormatError(
                "task caption: expected uint8[1, H, W, 3] -> tokens int32[1, K, T], lengths "
                "int32[1, K], scores float32[1, K] and maybe attention float32[1, K, T, h, w], "
                f"got {found}"
            )
        return _task_of(frame, settings, read)

    @staticmethod
    def by_words(
        settings: Settings, encode: Stage, read: Callable[[str], bytes]
    ) -> tuple[CaptionTask, int, int]:
        """Read the settings of a captioner in two stages; see `from_manifest`.

        Returns:
            The task, the end token, and the number of words at most.

        Raises:
            BundleFormatError: they are not those of this task, or do not fit the graph.
            MissingDependencyError: the vocabulary needs a library that is not installed.
        """
        if len(encode.inputs) != 1 or not _is_frame(encode.inputs[0]):
            found = ", ".join(map(str, encode.inputs))
            raise BundleFormatError(f"task caption: expected uint8[1, H, W, 3], got {found}")
        task = _task_of(encode.inputs[0], settings, read)
        end = _integer("end", settings, 0, task.vocabulary.size - 1)
        return task, end, _integer("max_length", settings, 1, MOST_STEPS)

    def feeds(self, frame: Image) -> dict[str, object]:
        """Return `frame: uint8[H, W, 3]` as the graph takes it (a view)."""
        return feed_of(frame, self.input_name, self.frame_size, self.channel_order)

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> CaptionResult:
        """Return the result of one inference.

        Raises:
            FrameError: the engine gave a token that the vocabulary does not have.
        """
        rows, lengths = outputs["tokens"][0], outputs["lengths"][0]
        captions = [row[: int(n)] for row, n in zip(rows, lengths, strict=True)]
        size = self.vocabulary.size
        for tokens, length in zip(captions, lengths, strict=True):
            if not 0 <= length <= rows.shape[1] or ((tokens < 0) | (tokens >= size)).any():
                raise FrameError(
                    f"the engine gave {int(length)} tokens, {tokens.tolist()[:8]} and so on; the "
                    f"bundle has {size} words. Run `edgevision verify` on the bundle."
                )
        best = captions[0].astype(np.int32)
        attention = outputs.get("attention")
        return CaptionResult(
            text=self.vocabulary.text(best.tolist()),
            words=tuple(self.vocabulary.words(best.tolist())),
            tokens=best,
            scores=outputs["scores"][0].astype(np.float32),
            hypotheses=tuple(self.vocabulary.text(tokens.tolist()) for tokens in captions),
            attention=None if attention is None else attention[0, 0, : len(best)].astype("f4"),
            frame_size=self.frame_size,
            timings=timings,
        )


def gathered(words: Iterable[Mapping[str, Array]], *, end: int, steps: int) -> dict[str, Array]:
    """Return what one graph would have given, of the steps of a search word by word.

    Args:
        words: of each step "token" int64[1], "gained" float32[1], its log-probability, and maybe
            "places" float32[1, h, w]; the end may be the last of them.
        end: the end token.
        steps: words of a caption at most.
    """
    said, score = [], 0.0
    for word in words:
        score += float(word["gained"][0])
        if int(word["token"][0]) != end:
            said.append(word)
    tokens = np.full((1, 1, steps), end, np.int32)
    tokens[0, 0, : len(said)] = [int(word["token"][0]) for word in said]
    found: dict[str, Array] = {
        "tokens": tokens,
        "lengths": np.array([[len(said)]], np.int32),
        "scores": np.array([[score]], np.float32),
    }
    if said and "places" in said[0]:
        found["attention"] = np.stack([word["places"] for word in said], 1)[None]
    return found


def vocabulary_of(settings: Settings, read: Callable[[str], bytes]) -> Vocabulary:
    """Read the vocabulary that the settings name.

    Raises:
        BundleFormatError: there is none, or it is not what the settings say.
        MissingDependencyError: it needs a library that is not installed.
    """
    said = settings.get("vocabulary")
    path = said.get("path") if isinstance(said, dict) else None
    if not isinstance(said, dict) or not isinstance(path, str):
        raise BundleFormatError(f"task caption: expected a vocabulary's file, got {said!r:.80}")
    try:
        content = read(path)
    except (ValueError, KeyError) as error:
        raise BundleFormatError(f"task caption: no file '{path[:80]}' in the bundle") from error
    vocabulary = read_vocabulary(said.get("kind"), content)
    if vocabulary.size != said.get("size"):
        raise BundleFormatError(
            f"task caption: the vocabulary has {vocabulary.size} words, the net "
            f"{said.get('size')!r:.40}"
        )
    return vocabulary


def _task_of(frame: TensorSpec, settings: Settings, read: Callable[[str], bytes]) -> CaptionTask:
    size = (frame.shape[1], frame.shape[2])
    order = order_of(settings, "caption")
    return CaptionTask(vocabulary_of(settings, read), size, order, frame.name)


def _integer(name: str, settings: Settings, least: int, most: int) -> int:
    value = settings.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BundleFormatError(
            f"task caption: {name} is {value!r:.40}, expected {least} to {most}. Build the bundle "
            "again."
        )
    return value


def _is_frame(spec: TensorSpec) -> bool:
    shape = spec.shape
    return len(shape) == 4 and (shape[0], shape[3]) == (1, 3) and spec.dtype is DType.UINT8


def _fits(frame: TensorSpec, outputs: Mapping[str, TensorSpec]) -> bool:
    if set(outputs) - {"attention"} != set(_OUTPUTS):
        return False
    tokens, lengths, scores = (outputs[name] for name in _OUTPUTS)
    if len(tokens.shape) != 3:
        return False
    beams = tokens.shape[1]
    fits = _is_frame(frame) and tokens.shape[0] == 1 and tokens.dtype is DType.INT32
    fits = fits and lengths == TensorSpec("lengths", DType.INT32, (1, beams))
    fits = fits and scores == TensorSpec("scores", DType.FLOAT32, (1, beams))
    if attention := outputs.get("attention"):
        fits = fits and attention.shape[:3] == tokens.shape and len(attention.shape) == 5
    return fits


def _lit(photo: Image, weights: Floats) -> Image:
    """Return the photo dark, and bright where the weights are large."""
    images = require("PIL.Image", extra="media")
    height, width = photo.shape[:2]
    peak = max(float(weights.max()), 1e-9)
    levels = (weights / peak * 255).astype(np.uint8)
    smooth = np.asarray(images.fromarray(levels).resize((width, height), images.Resampling.BICUBIC))
    share = smooth[..., np.newaxis].astype(np.float32) / 255
    return (photo * (0.25 + 0.75 * share)).astype(np.uint8)


def _sheet(tiles: list[tuple[Image, str]], caption: str) -> Image:
    """Lay tiles out in rows, each with its word beneath, under the whole caption."""
    images = require("PIL.Image", extra="media")
    fonts = require("PIL.ImageFont", extra="media")
    font, small = fonts.load_default(16), fonts.load_default(14)
    height, width = tiles[0][0].shape[:2]
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    line = 22
    canvas = images.new("RGB", (columns * width, line + rows * (height + line)), "white")
    draw = require("PIL.ImageDraw", extra="media").Draw(canvas)
    text = caption
    while text and draw.textlength(text, font=font) > columns * width - 2 * _MARGIN_PX:
        text = text[:-2].rstrip(". ") + "."  # as much as there is room for
    draw.text((_MARGIN_PX, 1), text, "black", font)
    for index, (tile, word) in enumerate(tiles):
        x, y = index % columns * width, line + index // columns * (height + line)
        canvas.paste(images.fromarray(tile), (x, y))
        draw.text((x + _MARGIN_PX, y + height + 2), word, "black", small)
    return np.asarray(canvas)

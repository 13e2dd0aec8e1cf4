"""Captions on the run side: camera frame in, sentences out, and where the net looked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.bundle.forms import Form
from edgevision.bundle.manifest import Manifest, Settings, Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import Array, Arrays, DType, Floats, Image, TensorSpec
from edgevision.errors import BundleFormatError, FrameError
from edgevision.tasks.camera import CameraFrame, FrameDecoder, check_same_frame
from edgevision.tasks.camera_task import CameraTask, both_beneath
from edgevision.tasks.matching import caption_distances
from edgevision.tasks.proof import Bars, Proof, element_tolerance
from edgevision.tasks.task import Headline, Read, Summary, bounded_read
from edgevision.tasks.timings import Timings
from edgevision.tasks.vocabulary import Vocabulary, read_vocabulary

ENCODE, STEP = "encode", "step"
"""Names of the stages of a captioner that streams tokens."""


MAX_STEPS = 512
"""Words of a caption at most."""

_OUTPUTS = ("tokens", "lengths", "scores")
# Best captions: how many may be others, and how far scores and weights of the same ones may be off.
_SHARES = Bars(0.0, 0.125, 0.25)
_DISTANCES = {
    "tokens": Bars(0.0, 0.0, 0.0),
    "scores": Bars(1e-3, 0.1, 1.0),
    "attention": Bars(1e-3, 0.05, 0.3),
}
# One word changes all that follow. Of 400 captions of captioner-digits 98.0 % stay the same at
# 36 dB, 98.8 at 38, 99.2 at 40 and 99.0 to 99.2 here; 95 to 97 where every layer is INT8.
_MIN_END_SNR_DB = 43.0
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
        return self.text

    def summary(self) -> Summary:
        """Return the caption, and every hypothesis with its score."""
        scores = self.scores.tolist()
        others = [
            {"text": text, "score": score}
            for text, score in zip(self.hypotheses, scores, strict=True)
        ]
        return Summary(self.text, {"caption": self.text, "hypotheses": others})

    def pictures(self, frame: Image) -> dict[str, Image]:
        """Return the overlay."""
        return {".overlay.jpg": self.overlay(frame)}

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
class CaptionDecoder(FrameDecoder):
    """Turns frames into feeds and outputs into `CaptionResult`.

    Attributes:
        vocabulary: what the tokens mean.
        camera: the frame that the graph takes.
    """

    vocabulary: Vocabulary
    camera: CameraFrame

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> CaptionResult:
        """Return the result of one inference; see `Decoder`."""
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
            frame_size=self.camera.size,
            timings=timings,
        )


class _StepProof(Proof):
    """One step of a search: a word is the same or another, as in a whole caption."""

    min_end_snr_db = _MIN_END_SNR_DB

    def tolerances(self, form: Form, golden: Arrays) -> dict[str, Tolerance]:
        """Return the bars of what one step gives."""
        return {name: self._tolerance(name, form, array) for name, array in golden.items()}

    def _tolerance(self, name: str, form: Form, golden: Array) -> Tolerance:
        share = _SHARES[form]
        if golden.dtype.kind != "f":
            return Tolerance(0.0, share)
        known = {"gained": "scores", "places": "attention"}
        if name in known:  # log-probabilities and weights have a scale of their own
            return Tolerance(_DISTANCES[known[name]][form], share)
        return element_tolerance(form, golden)


class CaptionTask(CameraTask[CaptionResult]):
    """Sentences; each is the same as its reference or another."""

    name = "caption"
    # CIDEr runs to 10: this is the hundredth of the scale that other tasks allow.
    headline = Headline("CIDEr", max_loss=0.1)
    golden_count = 8  # a caption is the same or another: of three, one would be a third
    paired = _DISTANCES
    shares = _SHARES
    min_end_snr_db = _MIN_END_SNR_DB
    stage_proof = _StepProof()

    def decoder(self, settings: Settings, stages: tuple[Stage, ...], read: Read) -> CaptionDecoder:
        """Return the decoder of one bundle, whole or of an encoder and a step; see `Task`."""
        if [stage.name for stage in stages] == [ENCODE, STEP]:
            return self._decoder(stages[:1], settings, read)
        decoder = self._decoder(stages, settings, read)
        outputs = {spec.name: spec for spec in stages[0].outputs}
        if not _fits(outputs):
            found = ", ".join(map(str, (*stages[0].inputs, *outputs.values())))
            raise BundleFormatError(
                "task caption: expected uint8[1, H, W, 3] -> tokens int32[1, K, T], lengths "
                "int32[1, K], scores float32[1, K] and optional attention "
                f"float32[1, K, T, h, w], got {found}"
            )
        return decoder

    def streaming(self, manifest: Manifest, read: Read) -> tuple[CaptionDecoder, int, int]:
        """Return the decoder of a bundle that streams tokens, its end token and longest caption.

        Raises:
            BundleFormatError: it is not such a bundle.
            MissingDependencyError: the vocabulary needs a library that is not installed.
        """
        names = [stage.name for stage in manifest.stages]
        if manifest.task != self.name or names != [ENCODE, STEP]:
            raise BundleFormatError(
                f"'{manifest.name}' (task {manifest.task}, stages {', '.join(names)}) does not "
                "stream tokens: open it with edgevision.load, or build a captioner with "
                "form='step'"
            )
        settings = manifest.settings
        decoder = self._decoder(manifest.stages[:1], settings, bounded_read(manifest, read))
        end = _integer("end", settings, 0, decoder.vocabulary.size - 1)
        return decoder, end, _integer("max_length", settings, 1, MAX_STEPS)

    def distances(self, reference: Arrays, candidate: Arrays) -> dict[str, npt.NDArray[np.float64]]:
        """Take captions whole; see `matching`."""
        return caption_distances(reference, candidate)

    def apart(self, before: CaptionResult, after: CaptionResult) -> float:
        """Return 1 where the texts differ."""
        return float(before.text != after.text)

    def difference(
        self, frame: Image, before: CaptionResult, after: CaptionResult
    ) -> tuple[float, Image]:
        """Return 1 where the texts differ, and the frame with both beneath."""
        return self.apart(before, after), both_beneath(frame, before.text, after.text)

    def _decoder(self, stages: tuple[Stage, ...], settings: Settings, read: Read) -> CaptionDecoder:
        _, camera = self.read_camera(settings, stages)
        return CaptionDecoder(load_vocabulary(settings, read), camera)


def gather_caption(
    words: Iterable[Mapping[str, Array]], *, end: int, steps: int
) -> dict[str, Array]:
    """Return what one graph would have given, of the steps of a token stream.

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


def load_vocabulary(settings: Settings, read: Callable[[str], bytes]) -> Vocabulary:
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


def _integer(name: str, settings: Settings, least: int, most: int) -> int:
    value = settings.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BundleFormatError(
            f"task caption: {name} is {value!r:.40}, expected {least} to {most}. Build the bundle "
            "again."
        )
    return value


def _fits(outputs: Mapping[str, TensorSpec]) -> bool:
    if set(outputs) - {"attention"} != set(_OUTPUTS):
        return False
    tokens, lengths, scores = (outputs[name] for name in _OUTPUTS)
    if len(tokens.shape) != 3:
        return False
    beams = tokens.shape[1]
    fits = tokens.shape[0] == 1 and tokens.dtype is DType.INT32
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


TASK = CaptionTask()

"""The task's metric over a labelled folder, for any function from frame to answer."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgevision.errors import FileReadError
from edgevision.metrics.captions import CaptionScores, caption_scores, token_agreement
from edgevision.metrics.detection import Detections, DetectionScore
from edgevision.metrics.labels import LabelValues
from edgevision.metrics.segmentation import ConfusionMatrix
from edgevision.progress import Progress, silent
from edgevision.runtime.coco import read_captions, read_objects
from edgevision.runtime.frames import list_images, read_image, read_labels, resize
from edgevision.runtime.tasks.caption import CaptionResult
from edgevision.runtime.tasks.instance import InstanceResult

Image = npt.NDArray[np.uint8]
Predict = Callable[[Image], Image]
"""From frame uint8[H, W, 3] RGB to class map uint8[H, W]."""
Detect = Callable[[Image], InstanceResult]
"""From frame uint8[H, W, 3] RGB to what is in it."""
Describe = Callable[[Image], CaptionResult]
"""From frame uint8[H, W, 3] RGB to what is said of it."""


@dataclass(frozen=True, slots=True)
class SemanticScore:
    """How one form of a net does on a folder.

    Attributes:
        form: which form, e.g. "int8".
        miou: mean IoU over the classes that occur; None without labels.
        pixel_accuracy: share of labelled pixels that are right; None without labels.
        iou: IoU per class, NaN where a class does not occur; empty without labels.
        agreement: share of pixels where it says what the first form says.
    """

    form: str
    miou: float | None
    pixel_accuracy: float | None
    iou: tuple[float, ...]
    agreement: float

    def figures(self) -> dict[str, float | None]:
        """Return what is worth a column."""
        return {
            "mIoU": self.miou,
            "pixel accuracy": self.pixel_accuracy,
            "agrees with torch": self.agreement,
        }

    def per_class(self) -> tuple[float, ...]:
        """Return the IoU of each class, NaN where it does not occur."""
        return self.iou


@dataclass(frozen=True, slots=True)
class InstanceScore:
    """How one form of a net does on a folder, by the COCO protocol.

    Attributes:
        form: which form, e.g. "int8".
        box_ap: average precision of the boxes, 0 to 1.
        mask_ap: average precision of the masks.
        box_ap50: of the boxes at IoU 0.50.
        mask_ap50: of the masks at IoU 0.50.
        class_mask_ap: `mask_ap` per class, NaN where a class does not occur.
    """

    form: str
    box_ap: float
    mask_ap: float
    box_ap50: float
    mask_ap50: float
    class_mask_ap: tuple[float, ...]

    def figures(self) -> dict[str, float | None]:
        """Return what is worth a column."""
        return {
            "box AP": self.box_ap,
            "mask AP": self.mask_ap,
            "box AP50": self.box_ap50,
            "mask AP50": self.mask_ap50,
        }

    def per_class(self) -> tuple[float, ...]:
        """Return the mask AP of each class, NaN where it does not occur."""
        return self.class_mask_ap


@dataclass(frozen=True, slots=True)
class CaptionScore:
    """How one form of a captioner does on a folder.

    Attributes:
        form: which form, e.g. "int8".
        scores: BLEU, ROUGE-L and CIDEr.
        agreement: share of captions that are those of the first form, token for token.
    """

    form: str
    scores: CaptionScores
    agreement: float

    def figures(self) -> dict[str, float | None]:
        """Return what is worth a column."""
        return {
            "BLEU-1": self.scores.bleu[0],
            "BLEU-4": self.scores.bleu[3],
            "ROUGE-L": self.scores.rouge_l,
            "CIDEr": self.scores.cider,
            "same as torch": self.agreement,
        }

    def per_class(self) -> tuple[float, ...]:
        """Return nothing: captions have no classes."""
        return ()


Score = SemanticScore | InstanceScore | CaptionScore


def evaluate_semantic(
    forms: Mapping[str, Predict],
    folder: str | os.PathLike[str],
    *,
    class_count: int,
    frame_size: tuple[int, int],
    progress: Progress = silent,
) -> list[SemanticScore]:
    """Score each form on every image of `folder`; the first form is what the others agree with.

    `folder` holds `images/` and `labels/` (PNG of class indices, an index beyond the classes is
    void), or images alone: then there is agreement and no mIoU. Frames are resized to
    `frame_size`, predictions to the labels by nearest neighbour.

    The labels are read before any form runs: those that cannot be meant so are refused, and what a
    reader of the scores should know of them is warned of.

    Raises:
        FileReadError: the folder is empty, an image has no label or one that is turned, or no
            score of these labels would say anything.
    """
    images, labels = labelled_images(folder)
    if labels is not None:
        _look_at(labels, images, class_count, progress)
    scores = {form: ConfusionMatrix(class_count) for form in forms}
    same = dict.fromkeys(forms, 0)
    for done, image in enumerate(images):
        progress("evaluating", done, len(images))
        picture = read_image(image)
        frame = resize(picture, frame_size)
        truth = read_labels(labels / f"{image.stem}.png") if labels else None
        if truth is not None and truth.shape == picture.shape[1::-1] != picture.shape[:2]:
            raise FileReadError(
                f"{labels}/{image.stem}.png: {list(truth.shape)} pixels, and its picture "
                f"{list(picture.shape[:2])}: one of them is turned. Pictures are turned as their "
                "EXIF orientation says; turn the label map as well"
            )
        first: Image | None = None
        for form, predict in forms.items():
            mask = predict(frame)
            first = mask if first is None else first
            same[form] += int(np.count_nonzero(mask == first))
            if truth is not None:
                scores[form].add(truth, _nearest(mask, truth.shape))
    progress("evaluating", len(images), len(images))
    pixels = len(images) * frame_size[0] * frame_size[1]
    return [
        SemanticScore(
            form=form,
            miou=score.miou() if labels else None,
            pixel_accuracy=score.pixel_accuracy() if labels else None,
            iou=tuple(score.iou()) if labels else (),
            agreement=same[form] / pixels,
        )
        for form, score in scores.items()
    ]


def evaluate_instances(
    forms: Mapping[str, Detect],
    folder: str | os.PathLike[str],
    *,
    classes: Sequence[str],
    frame_size: tuple[int, int],
    progress: Progress = silent,
) -> list[InstanceScore]:
    """Score each form on every picture of `folder`, see `coco`.

    Frames are resized to `frame_size`, detections back to the picture.

    Raises:
        FileReadError: the folder is no such folder.
    """
    truth = read_objects(folder, classes)
    boxes = {form: DetectionScore("boxes") for form in forms}
    masks = {form: DetectionScore("masks") for form in forms}
    for index, path in enumerate(truth.images):
        progress("evaluating", index, len(truth.images))
        picture = read_image(path)
        size = (picture.shape[0], picture.shape[1])
        frame, objects = resize(picture, frame_size), truth.objects(index, size)
        for form, detect in forms.items():
            found = _resized(detect(frame), size)
            pasted = Detections(found.boxes, found.labels, found.scores, found.pasted())
            boxes[form].add(objects, pasted)
            masks[form].add(objects, pasted)
    progress("evaluating", len(truth.images), len(truth.images))
    scores = []
    for form in forms:
        box, mask = boxes[form].average_precision(), masks[form].average_precision()
        per_class = tuple(mask.per_class.get(k, float("nan")) for k in range(len(classes)))
        scores.append(InstanceScore(form, box.ap, mask.ap, box.ap50, mask.ap50, per_class))
    return scores


def evaluate_captions(
    forms: Mapping[str, Describe],
    folder: str | os.PathLike[str],
    *,
    frame_size: tuple[int, int],
    progress: Progress = silent,
) -> list[CaptionScore]:
    """Score each form on every picture of `folder`, see `coco`.

    Raises:
        FileReadError: the folder is no such folder.
    """
    pictures = read_captions(folder)
    said: dict[str, list[CaptionResult]] = {form: [] for form in forms}
    for done, (path, _) in enumerate(pictures):
        progress("evaluating", done, len(pictures))
        frame = resize(read_image(path), frame_size)
        for form, describe in forms.items():
            said[form].append(describe(frame))
    progress("evaluating", len(pictures), len(pictures))
    truth = [captions for _, captions in pictures]
    tokens = {form: [r.tokens.tolist() for r in results] for form, results in said.items()}
    first = next(iter(tokens.values()))
    return [
        CaptionScore(
            form,
            caption_scores([result.text for result in results], truth),
            token_agreement(first, tokens[form]).captions,
        )
        for form, results in said.items()
    ]


def _resized(result: InstanceResult, size: tuple[int, int]) -> InstanceResult:
    """Return what was found, in the pixels of a picture of `size`."""
    height, width = (new / old for new, old in zip(size, result.frame_size, strict=True))
    boxes = result.boxes * np.array([width, height, width, height], np.float32)
    masks = result.masks
    if masks.dtype == np.uint8:  # of the frame, not of the boxes
        masks = np.array([_nearest(mask, size) for mask in masks], np.uint8).reshape(-1, *size)
    return replace(result, boxes=boxes, masks=masks, frame_size=size)


def pictures_of(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the images of `folder`, or of its `images/`.

    Raises:
        FileReadError: the folder is missing or empty.
    """
    path = Path(folder)
    return list_images(path / "images" if (path / "images").is_dir() else path)


def labelled_images(folder: str | os.PathLike[str]) -> tuple[list[Path], Path | None]:
    """Return a folder's images, and the folder of their labels if there is one.

    Raises:
        FileReadError: the folder is missing or empty, or an image has no label of its own.
    """
    path = Path(folder)
    if not (path / "images").is_dir():
        return list_images(path), None
    images, labels = list_images(path / "images"), path / "labels"
    missing = [image.stem for image in images if not (labels / f"{image.stem}.png").is_file()]
    shared = [stem for stem, count in Counter(image.stem for image in images).items() if count > 1]
    if shared:
        raise FileReadError(
            f"{path / 'images'}: {len(shared)} names stand for several pictures, the first "
            f"'{shared[0]}'. Each images/NAME needs a labels/NAME.png of its own."
        )
    if missing:
        raise FileReadError(
            f"{labels}: {len(missing)} of {len(images)} images have no label, the first "
            f"'{missing[0]}.png'. Each images/NAME needs labels/NAME.png."
        )
    return images, labels


def _look_at(labels: Path, images: Sequence[Path], class_count: int, progress: Progress) -> None:
    """Refuse labels that no score can be made of; warn of those that may not be meant so."""
    values = LabelValues(class_count)
    for done, image in enumerate(images):
        progress("reading labels", done, len(images))
        values.add(read_labels(labels / f"{image.stem}.png"))
    if (fault := values.fault()) is not None:
        raise FileReadError(f"{labels}: the labels cannot be scored: {fault}")
    if (doubt := values.doubt()) is not None:
        warnings.warn(f"{labels}: the labels may not be what they should: {doubt}", stacklevel=3)


def _nearest(mask: Image, shape: tuple[int, ...]) -> Image:
    if mask.shape == shape:
        return mask
    rows = (np.arange(shape[0]) * mask.shape[0]) // shape[0]
    columns = (np.arange(shape[1]) * mask.shape[1]) // shape[1]
    scaled: Image = mask[rows[:, None], columns]
    return scaled

"""The trained nets that the repository ships: one folder under `checkpoints/` for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevision.errors import FileReadError
from edgevision.tasks.seeds import GeneratorInput, generator_input

_CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


@dataclass(frozen=True, slots=True)
class SegmenterCard:
    """What a shipped segmentation net was trained for.

    Attributes:
        size: (H, W) of its input.
        classes: (name, "#rrggbb") of each class.
        mean: per channel, on the 0-1 scale, RGB.
        std: per channel, on the 0-1 scale, RGB.
    """

    size: tuple[int, int]
    classes: tuple[tuple[str, str], ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class DetectorCard:
    """What a shipped Mask R-CNN was trained for: its input's (H, W), and its classes."""

    size: tuple[int, int]
    classes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CaptionerCard:
    """What a shipped captioner was trained for.

    Attributes:
        size: (H, W) of its input.
        vocabulary: the words in the order of its outputs.
        max_length: words of a caption at most.
    """

    size: tuple[int, int]
    vocabulary: tuple[str, ...]
    max_length: int


@dataclass(frozen=True, slots=True)
class GeneratorCard:
    """What a shipped generator takes, and which of its values are black and white."""

    inputs: tuple[GeneratorInput, ...]
    output_range: tuple[float, float]


Card = SegmenterCard | DetectorCard | CaptionerCard | GeneratorCard


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """A shipped net: how to make it, its weights, and what they were trained for.

    Attributes:
        name: the folder's name.
        factory: `package.module:function` that makes the untrained module.
        arguments: what the factory takes.
        weights: the safetensors file.
        card: what its task must know.
        metrics: what the model card states.
        samples: folder of frames that it knows what to do with, if there is one.
    """

    name: str
    factory: str
    arguments: dict[str, Any]
    weights: Path
    card: Card
    metrics: dict[str, float]
    samples: Path | None = None


def zoo_names() -> list[str]:
    """List the shipped nets; empty where edgevision was installed without its repository."""
    return sorted(path.parent.name for path in _CHECKPOINTS.glob("*/model.json"))


def zoo_entry(name: str) -> ZooEntry:
    """Return the shipped net called `name`.

    Raises:
        FileReadError: its folder is not on this machine.
    """
    folder = _CHECKPOINTS / name
    try:
        card = json.loads((folder / "model.json").read_text())
    except OSError as error:
        raise FileReadError(
            f"{folder}: {error.strerror}. Trained nets come with the repository, not with the "
            "wheel: clone it and install it with pip install -e ."
        ) from error
    return ZooEntry(
        name=name,
        factory=card["factory"],
        arguments=card["arguments"],
        weights=folder / "model.safetensors",
        card=_CARDS[card["task"]](card),
        metrics=card["metrics"],
        samples=folder / "scenes" if (folder / "scenes").is_dir() else None,
    )


def _segmenter(card: dict[str, Any]) -> SegmenterCard:
    height, width = card["size"]
    return SegmenterCard(
        size=(height, width),
        classes=tuple((c["name"], c["color"]) for c in card["classes"]),
        mean=tuple(card["mean"]),
        std=tuple(card["std"]),
    )


def _detector(card: dict[str, Any]) -> DetectorCard:
    height, width = card["size"]
    return DetectorCard((height, width), tuple((c["name"], c["color"]) for c in card["classes"]))


def _captioner(card: dict[str, Any]) -> CaptionerCard:
    height, width = card["size"]
    return CaptionerCard((height, width), tuple(card["vocabulary"]), card["max_length"])


def _generator(card: dict[str, Any]) -> GeneratorCard:
    low, high = card["output_range"]
    return GeneratorCard(tuple(generator_input(item) for item in card["inputs"]), (low, high))


_CARDS: dict[str, Callable[[dict[str, Any]], Card]] = {
    "semantic": _segmenter,
    "instance": _detector,
    "caption": _captioner,
    "generated": _generator,
}


def shipped_photos() -> Path | None:
    """Return the folder of free-licence street photos, if the repository is here."""
    folder = _CHECKPOINTS.parent / "examples" / "photos"
    return folder if folder.is_dir() else None

"""The trained nets that the repository ships: one folder under `checkpoints/` for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevision.bundle.files import read_plain
from edgevision.bundle.reading import Reader, parse
from edgevision.errors import FileReadError

_CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
_MAX_CARD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """A shipped net: how to make it, its weights, and what they were trained for.

    Attributes:
        name: the folder's name.
        factory: `package.module:function` that makes the untrained module.
        arguments: what the factory takes.
        weights: the safetensors file.
        task: what it was trained for.
        card: what its adapter must know, as its model.json says it.
        metrics: what the model card states.
        samples: folder of frames that it knows what to do with, if there is one.
    """

    name: str
    factory: str
    arguments: dict[str, Any]
    weights: Path
    task: str
    card: Mapping[str, Any]
    metrics: dict[str, float]
    samples: Path | None = None


def zoo_names() -> list[str]:
    """List the shipped nets; empty where edgevision was installed without its repository."""
    return sorted(path.parent.name for path in _CHECKPOINTS.glob("*/model.json"))


def zoo_entry(name: str) -> ZooEntry:
    """Return the shipped net called `name`.

    Raises:
        FileReadError: its folder is not on this machine, or its card is damaged.
    """
    folder = _CHECKPOINTS / name
    try:
        content = read_plain(folder / "model.json", max_bytes=_MAX_CARD_BYTES, follow_links=True)
    except OSError as error:
        raise FileReadError(
            f"{folder}: {error.strerror}. Trained nets come with the repository, not with the "
            "wheel: clone it and install it with pip install -e ."
        ) from error
    try:
        card = Reader(parse(content), "model.json")
        return ZooEntry(
            name=name,
            factory=card.text("factory"),
            arguments=card.mapping("arguments"),
            weights=folder / "model.safetensors",
            task=card.text("task"),
            card=card.fields,
            metrics=card.numbers("metrics"),
            samples=folder / "scenes" if (folder / "scenes").is_dir() else None,
        )
    except ValueError as error:
        raise FileReadError(f"{folder}: {error}") from error


def card_size(card: Mapping[str, Any]) -> tuple[int, int]:
    """Return (H, W) of the net's input, as its card says."""
    height, width = card["size"]
    return height, width


def card_classes(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, "#rrggbb") of each class, as its card says."""
    return [(item["name"], item["color"]) for item in card["classes"]]


def shipped_photos() -> Path | None:
    """Return the folder of free-licence street photos, if the repository is here."""
    folder = _CHECKPOINTS.parent / "examples" / "photos"
    return folder if folder.is_dir() else None

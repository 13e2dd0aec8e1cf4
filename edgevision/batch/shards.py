"""The folder of a run: what it is of, and a file for each shard that is done.

A shard's file is whole or not there, so that a run can be killed at any moment and goes on with the
shards that have none. What a run is of is one SHA-256 over the bundles and the names,
sizes and times of change of all frames and labels; each shard's file has it inside.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevision.bundle import locking
from edgevision.bundle.files import read_plain, write_whole
from edgevision.bundle.reading import Reader, parse
from edgevision.errors import FileReadError, FileWriteError, RunError
from edgevision.metrics.tally import Tally
from edgevision.tasks.outputs import MARK
from edgevision.tasks.places import Place

_MISSING = (-1, -1)
_MANIFEST, _SHARDS, _LOCK = "run.json", "shards", "run.lock"
_RUN = "run"
_LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_MAX_ATTEMPTS = 3
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_SHARD_BYTES = 1 << 32


@dataclass(frozen=True, slots=True)
class Shard:
    """Frames that one worker takes at once, the first of them by its number in the whole set."""

    number: int
    first: int
    places: tuple[Place, ...]


def identify(parts: Sequence[object], places: Sequence[Place], sources: Iterable[Path] = ()) -> str:
    """Return the SHA-256 of what a run is of.

    Args:
        parts: what the figures depend on beside files.
        places: of the frames, in order.
        sources: files of the labels, in order.

    Raises:
        FileReadError: a file of the labels is missing.
    """
    digest = hashlib.sha256(json.dumps(list(parts)).encode())
    file, stamp = "", _MISSING
    for place in places:
        if place.file != file:  # of a tar file, one behind the other
            file = place.file
            try:
                stamp = _stamp(file)
            except FileReadError:  # one of the bad frames, which may be passed over
                stamp = _MISSING
        entry = (place.name, place.kind, place.at, place.size_bytes, *stamp)
        digest.update(json.dumps(entry).encode())
    for path in sources:
        digest.update(json.dumps((path.name, *_stamp(path))).encode())
    return digest.hexdigest()


def _stamp(file: str | Path) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except OSError as error:
        raise FileReadError(f"{file}: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns


def divide(places: Sequence[Place], frames_a_shard: int) -> list[Shard]:
    """Return the frames in shards, in order."""
    return [
        Shard(number, first, tuple(places[first : first + frames_a_shard]))
        for number, first in enumerate(range(0, len(places), frames_a_shard))
    ]


class RunFolder:
    """A run's folder, opened by its path on every machine.

    Attributes:
        path: the folder.
        identity: see `identify`.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity

    @contextlib.contextmanager
    def begun(self, described: dict[str, Any], *, resume: bool) -> Iterator[None]:
        """Make the folder, or take up the run in it; no other command is at work there meanwhile.

        Args:
            described: what goes into its `run.json` for people.
            resume: go on with what is there.

        Raises:
            FileWriteError: a run or something else is there, or it cannot be written.
            RunError: the run there is of another bundle or other data, or another command is at
                work.
        """
        manifest = self.path / _MANIFEST
        try:
            if (
                not manifest.exists()
                and self.path.exists()
                and any(map(_is_foreign, self.path.iterdir()))
            ):
                raise FileWriteError(f"'{self.path}' holds other files: give another --out")
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(self.path, error) from error
        with self._alone():
            if manifest.exists():
                self._take_up(manifest, described, resume=resume)
            content = {"remark": MARK, **described, "identity": self.identity}
            self.write(_MANIFEST, (json.dumps(content, indent=1) + "\n").encode())
            try:
                (self.path / _SHARDS).mkdir(exist_ok=True)
            except OSError as error:
                raise self._unwritable(self.path / _SHARDS, error) from error
            yield

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock, where its file system has locks."""
        try:
            lock = locking.try_lock(self.path / _LOCK)
        except OSError as error:
            if error.errno not in _LOCKLESS:
                raise self._unwritable(self.path, error) from error
            warnings.warn(
                f"'{self.path}' lies where no file can be locked ({error.strerror}): see that no "
                "other command writes there meanwhile",
                stacklevel=6,
            )
            lock = os.open(self.path, os.O_RDONLY)  # holds nothing
        if lock is None:
            raise RunError(
                f"another command is at work in '{self.path}': wait for it, or give another --out"
            )
        try:
            yield
        finally:
            os.close(lock)

    def _take_up(self, manifest: Path, described: dict[str, Any], *, resume: bool) -> None:
        if not resume:
            raise FileWriteError(
                f"'{self.path}' holds a run: go on with it by --resume (resume=True in Python), or "
                "give another --out"
            )
        try:
            content = read_plain(manifest, max_bytes=_MAX_MANIFEST_BYTES)
            found = Reader(parse(content), _MANIFEST).fields
        except (OSError, ValueError) as error:
            raise FileReadError(f"{manifest}: not a run's description: {error}") from error
        if found.get("identity") == self.identity:
            return
        keys = [key for key, value in described.items() if found.get(key) != value]
        named = "; ".join(f"{k} was {found.get(k)!s:.80}, is {described[k]!s:.80}" for k in keys)
        raise RunError(
            f"'{self.path}' is a run of something else, and figures of both would mix: "
            f"{named or 'frames or labels were changed or touched'}. Give another --out"
        )

    def reported(self, shard: Shard) -> dict[str, Any] | None:
        """Return what a shard that is done says of itself; None if it is not done."""
        tally = self._load(shard.number)
        return None if tally is None else dict(shard_reports(tally))[shard.number]

    def save(self, shard: Shard, tallies: Mapping[str, Tally], reported: dict[str, Any]) -> None:
        """Write a shard's files.

        Args:
            shard: what is done.
            tallies: of the bundle, under "", and of the one that it is held against.
            reported: of the shard, for the report.

        Raises:
            FileWriteError: it cannot be written.
        """
        # The bundle's own goes last: the shard is done once it is there.
        for kind in sorted(tallies, reverse=True):
            text = json.dumps({"identity": self.identity, **reported})
            tallies[kind].write(_RUN, shard.number, text)
            self.write(f"{_SHARDS}/{_named(shard.number, kind)}", tallies[kind].to_bytes())

    def end_attempt(self, shard: Shard, token: str) -> None:
        """Forget how often a shard was begun: it is done."""
        for mark in self._attempts(shard, token):
            mark.unlink(missing_ok=True)

    def merged(self, shards: Sequence[Shard], kind: str = "") -> Tally:
        """Return what all shards add up to, of the tallies of one kind; see `save`.

        Raises:
            FileReadError: a shard's file is missing, damaged, or of another run.
        """
        whole = Tally()
        for shard in shards:
            tally = self._load(shard.number, kind)
            if tally is None:
                raise FileReadError(
                    f"{self.path / _SHARDS / _named(shard.number, kind)}: missing or damaged: "
                    "run the same command with --resume"
                )
            whole.merge(tally)
        for pattern in (".partial-*", "*.begun"):  # of processes that were killed
            for left in self.path.rglob(pattern):
                left.unlink(missing_ok=True)
        return whole

    def begin_attempt(self, shard: Shard, token: str) -> None:
        """Note that a shard is begun, so that one that kills its workers ends the run.

        Args:
            shard: what is begun.
            token: of the command that asked for it: what an earlier one did does not count.

        Raises:
            RunError: it was begun too often, and never ended.
            FileWriteError: the note cannot be written.
        """
        marks = self._attempts(shard, token)
        mark = next((path for path in marks if not path.exists()), None)
        if mark is None:
            first, last = shard.places[0].name, shard.places[-1].name
            raise RunError(
                f"shard {shard.number} ended {len(marks)} workers, and no result: one of its "
                f"{len(shard.places)} frames, '{first}' to '{last}', may be what does it"
            )
        try:
            mark.touch()
        except OSError as error:
            raise self._unwritable(mark, error) from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the run: whole, or not at all.

        Raises:
            FileWriteError: it cannot be written; says how to go on.
        """
        try:
            (self.path / name).parent.mkdir(exist_ok=True)
            write_whole(self.path / name, content)
        except OSError as error:
            raise self._unwritable(self.path / name, error) from error

    def _unwritable(self, path: Path, error: OSError) -> FileWriteError:
        return FileWriteError(
            f"'{path}' cannot be written: {error.strerror}. What is done is kept: make room, and "
            "run the same command with --resume"
        )

    def _attempts(self, shard: Shard, token: str) -> list[Path]:
        """Return the marks of every time that a shard may be begun."""
        # By their names: whoever lists a folder of a million shards for each of them never ends.
        named = f"{shard.number:08d}.{token}"
        return [self.path / _SHARDS / f"{named}.{count}.begun" for count in range(_MAX_ATTEMPTS)]

    def _load(self, number: int, kind: str = "") -> Tally | None:
        try:
            path = self.path / _SHARDS / _named(number, kind)
            tally = Tally.from_bytes(read_plain(path, max_bytes=_MAX_SHARD_BYTES))
            reported = {shard: json.loads(text) for shard, text in tally.texts(_RUN)}
        except (OSError, ValueError):
            return None
        fits = list(reported) == [number] and reported[number].get("identity") == self.identity
        return tally if fits else None


def shard_reports(tally: Tally) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give what each shard says of itself, in order."""
    for number, text in tally.texts(_RUN):
        yield number, json.loads(text)


def _is_foreign(path: Path) -> bool:
    """Tell what a command leaves that was killed before there was a run from other files."""
    return path.name != _LOCK and not path.name.startswith(".partial-run-")


def _named(number: int, kind: str = "") -> str:
    return f"{number:08d}.{kind}.npz" if kind else f"{number:08d}.npz"

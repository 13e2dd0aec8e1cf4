"""Engines that were built before: found by what they were built from, checked before they are used.

An entry is a folder, named by the SHA-256 of everything that shapes an engine: the graph's bytes,
the builder and its version, the GPUs, profiles and options. It holds `artifact` and `entry.json`,
is written aside and renamed whole, and is hashed whenever it is taken. Two builders of one engine
take turns by a lock that dies with its holder: the first builds, the second takes its result.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgevision._files import read_plain, write_new
from edgevision._locking import try_lock
from edgevision.engines.builder import BuildRequest, BuildResult, build_engine, builder_for
from edgevision.manifest import profile_to_json
from edgevision.progress import Progress, silent
from edgevision.runtime.machine import machine_name
from edgevision.targets import Flavour

_log = logging.getLogger(__name__)
_SCHEMA = 1
"""Part of every key: raise it when edgevision builds otherwise from the same request."""
_KEY = re.compile(r"[0-9a-f]{64}")
_PARTIAL = re.compile(r"\.partial-([0-9a-f]{64})-[0-9a-f]{8}")
ENTRY, ARTIFACT = "entry.json", "artifact"
MAX_ENTRY_BYTES = 1 << 20
_DEFAULT_BYTES = 4 << 30
_POLL_S = 0.05
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One engine in the cache.

    Attributes:
        key: the folder's name.
        target: what it was first built for.
        flavour: the runtime that executes it.
        version: the builder's version.
        size_bytes: of the artifact.
        used: when it was last taken or written, in seconds since 1970.
    """

    key: str
    target: str
    flavour: str
    version: str
    size_bytes: int
    used: float


class EngineCache:
    """A folder of built engines; safe under any number of processes.

    Args:
        root: the folder; by default EDGEVISION_CACHE, or edgevision/ in XDG_CACHE_HOME or ~/.cache.
        max_bytes: what is kept at most: the entries that were not used for longest go.
    """

    def __init__(
        self, root: str | os.PathLike[str] | None = None, *, max_bytes: int = _DEFAULT_BYTES
    ) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes: got {max_bytes}, expected 0 or more")
        self.root = Path(root) if root is not None else _default_root()
        self.max_bytes = max_bytes
        self._engines = self.root / "engines"

    def take(self, key: str, output: Path) -> dict[str, Any] | None:
        """Write the artifact of `key` to `output`, and return what its builder told.

        None if there is none, or if what is there is damaged or another user's: that is removed.
        The caller holds the lock of `key`.
        """
        folder = self._engines / key
        try:
            fields, artifact = _read_entry(folder)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("the cached engine %s is damaged and is built anew: %s", key[:12], error)
            shutil.rmtree(folder, ignore_errors=True)
            return None
        output.write_bytes(artifact)
        with contextlib.suppress(OSError):
            os.utime(folder / ENTRY)
        told: dict[str, Any] = fields["result"]
        return told

    def put(self, key: str, result: BuildResult, target: str) -> None:
        """Keep a built artifact; the caller holds the lock of `key`.

        Raises:
            OSError: it could not be written; nothing half is left.
        """

        def fill(folder: Path) -> bytes:
            digest, size_bytes = _copy(result.path, folder / ARTIFACT)
            told = {
                "target": target,
                "flavour": result.flavour.value,
                "version": result.version,
                "sha256": digest,
                "size_bytes": size_bytes,
                "result": result.to_json(),
            }
            return json.dumps(told).encode()

        self._publish(key, fill)
        self.prune(self.max_bytes, keep=key)

    def entries(self) -> list[Entry]:
        """Return what there is, the most recently used first; damaged entries are left out."""
        found = []
        for folder in self._folders():
            try:
                told = _read_json(folder / ENTRY)
                used = (folder / ENTRY).stat().st_mtime
                found.append(
                    Entry(folder.name, str(told["target"]), str(told["flavour"]),
                          str(told["version"]), int(told["size_bytes"]), used)
                )  # fmt: skip
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return sorted(found, key=lambda entry: -entry.used)

    def prune(self, max_bytes: int, *, keep: str = "") -> list[Entry]:
        """Remove the entries that were not used for longest until `max_bytes` hold the rest.

        What dead writers left goes, too; what somebody holds stays. Returns what was removed.
        """
        self._clear_partials()
        removed: list[Entry] = []
        left = max_bytes
        for entry in self.entries():
            if entry.size_bytes <= left or entry.key == keep:
                left -= entry.size_bytes
                continue
            lock = self._try_lock(entry.key)
            if lock is not None:
                try:
                    shutil.rmtree(self._engines / entry.key, ignore_errors=True)
                    removed.append(entry)
                finally:
                    self._unlock(entry.key, lock)
        return removed

    def read(self, entry: Entry) -> tuple[bytes, bytes]:
        """Return an entry's JSON and its artifact as they were compared with each other.

        Raises:
            OSError, ValueError, KeyError, TypeError: it is damaged, or not this user's.
        """
        folder = self._engines / entry.key
        told, artifact = _read_entry(folder)
        return json.dumps(told).encode(), artifact

    def adopt(self, key: str, entry: bytes, artifact: bytes) -> bool:
        """Take an entry that was made elsewhere; returns whether it was new.

        Raises:
            OSError: it could not be written.
            ValueError, KeyError, TypeError: it is damaged.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key[:80]!r} is no key")
        _check_entry(json.loads(entry), artifact)
        with self.lock(key):
            if (self._engines / key).exists():
                return False

            def fill(folder: Path) -> bytes:
                write_new(folder / ARTIFACT, artifact)
                return entry

            self._publish(key, fill)
        return True

    @contextlib.contextmanager
    def lock(self, key: str, progress: Progress = silent) -> Iterator[None]:
        """Hold `key` alone, waiting for whoever holds it.

        Raises:
            OSError: the folder cannot be written.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        began = time.monotonic()
        while (held := self._try_lock(key)) is None:
            progress("waiting for another build of it, s", int(time.monotonic() - began), 0)
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            self._unlock(key, held)

    def _try_lock(self, key: str) -> int | None:
        """Return the held lock of `key`; None while somebody else holds it."""
        return try_lock(self.root / f"{key}.lock")

    def _unlock(self, key: str, descriptor: int) -> None:
        with contextlib.suppress(OSError):
            (self.root / f"{key}.lock").unlink()
        os.close(descriptor)

    def _clear_partials(self) -> None:
        with contextlib.suppress(OSError):
            for path in list(self._engines.iterdir()):
                if found := _PARTIAL.fullmatch(path.name):
                    lock = self._try_lock(found[1])
                    if lock is not None:
                        shutil.rmtree(path, ignore_errors=True)
                        self._unlock(found[1], lock)
            for path in list(self.root.glob("*.lock")):
                key = path.stem
                if _KEY.fullmatch(key) and (lock := self._try_lock(key)) is not None:
                    self._unlock(key, lock)

    def _folders(self) -> list[Path]:
        try:
            names = sorted(os.listdir(self._engines))
        except OSError:
            return []
        return [self._engines / name for name in names if _KEY.fullmatch(name)]

    def _publish(self, key: str, fill: Callable[[Path], bytes]) -> None:
        """Let `fill` write the artifact aside and give the entry's JSON; put both in place."""
        self._engines.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._engines.glob(f".partial-{key}-*"):  # we hold the lock: its writer is dead
            shutil.rmtree(left, ignore_errors=True)
        partial = self._engines / f".partial-{key}-{secrets.token_hex(4)}"
        partial.mkdir(mode=0o700)
        try:
            write_new(partial / ENTRY, fill(partial))
            shutil.rmtree(self._engines / key, ignore_errors=True)
            partial.rename(self._engines / key)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def cached_build(
    request: BuildRequest, progress: Progress = silent, *, cache: EngineCache | None
) -> BuildResult:
    """Return a build's result, from the cache if the same was built before; see `build_engine`.

    A cache that cannot be written costs a warning, never the build.

    Raises:
        BuildError: the engine could not be built.
    """
    key = None if cache is None else cache_key(request)
    if cache is None or key is None:
        return build_engine(request, progress)
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(cache.lock(key, progress))
            told = cache.take(key, request.output)
        except OSError as error:
            warnings.warn(f"no engine cache in {cache.root}: {error.strerror}", stacklevel=2)
            return build_engine(request, progress)
        if told is not None:
            found = BuildResult.from_json(told, request.output, request.target.flavour)
            seconds = time.perf_counter() - began
            return replace(found, seconds=seconds, log="from the cache", cached=True)
        result = build_engine(request, progress)
        try:
            cache.put(key, result, request.target.name)
        except OSError as error:
            warnings.warn(
                f"the engine is built, and not kept in {cache.root}: {error.strerror}", stacklevel=2
            )
    return result


def cache_key(request: BuildRequest) -> str | None:
    """Return what names the request's engine; None where the builder's version is not known."""
    version = builder_for(request.target.flavour).version()
    if version is None:
        return None
    shapes = {
        "schema": _SCHEMA,
        "graph": hashlib.sha256(request.graph.read_bytes()).hexdigest(),
        "flavour": request.target.flavour.value,
        "version": version,
        "sm": list(request.target.sm),
        # A plan of full TensorRT and an optimised model fit the machine that built them alone.
        "machine": "" if request.target.built_here else machine_name(request.target.flavour),
        "profiles": {name: profile_to_json(p) for name, p in sorted(request.profiles.items())},
        "workspace_bytes": request.workspace_bytes,
        "optimization_level": request.optimization_level,
        "version_compatible": request.version_compatible,
    }
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()


def timing_cache_file(cache: EngineCache | None, flavour: Flavour) -> Path | None:
    """Return where TensorRT's timing cache of this version and GPU is kept; None for others."""
    if cache is None:
        return None
    version = builder_for(flavour).version() if flavour is Flavour.TRT else None
    if version is None:
        return None
    name = hashlib.sha256(f"{version}\0{machine_name(flavour)}".encode()).hexdigest()[:32]
    return cache.root / "timing" / f"{name}.bin"


def _default_root() -> Path:
    if chosen := os.environ.get("EDGEVISION_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgevision"


def _read_entry(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Return an entry's fields and its artifact, compared with each other.

    Raises:
        FileNotFoundError: there is no entry.
        OSError, ValueError, KeyError, TypeError: it is damaged, or not this user's.
    """
    if os.lstat(folder).st_uid != os.geteuid():
        raise ValueError("it is another user's")
    told = _read_json(folder / ENTRY)
    with (folder / ARTIFACT).open("rb") as file:
        if os.fstat(file.fileno()).st_size != told["size_bytes"]:
            raise ValueError("the artifact has another size")
        artifact = file.read()
    _check_entry(told, artifact)
    return told, artifact


def _check_entry(told: Any, artifact: bytes) -> None:
    if len(artifact) != told["size_bytes"]:
        raise ValueError("the artifact has another size")
    if hashlib.sha256(artifact).hexdigest() != told["sha256"]:
        raise ValueError("the artifact was changed")
    BuildResult.from_json(told["result"], Path(ARTIFACT), Flavour(told["flavour"]))
    if not isinstance(told["target"], str) or not isinstance(told["version"], str):
        raise TypeError("target and version are no text")


def _read_json(path: Path) -> dict[str, Any]:
    told = json.loads(read_plain(path, max_bytes=MAX_ENTRY_BYTES))
    if not isinstance(told, dict):
        raise TypeError(f"{path.name} is no object")
    return told


def _copy(source: Path, target: Path) -> tuple[str, int]:
    digest, size_bytes = hashlib.sha256(), 0
    with source.open("rb") as file, target.open("xb") as copy:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest(), size_bytes

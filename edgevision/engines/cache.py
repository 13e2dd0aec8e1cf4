"""Engines that were built before: found by what they were built from, checked before they are used.

An entry is a folder, named by the SHA-256 of everything that shapes an engine: the graph's bytes,
the builder and its version, the GPUs, profiles and options. It holds `artifact` and `entry.json`,
in which all of that stands again, so that no entry can take another's place. It is written aside
and renamed whole, and is hashed whenever it is taken. Two builders of one engine take turns by a
lock that dies with its holder: the first builds, the second takes its result.

Whoever can write here as this user can put another engine in; hashes are no signature.
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgevision.bundle.files import open_folder, read_plain, write_new
from edgevision.bundle.flavours import Flavour, flavour
from edgevision.bundle.locking import try_lock, waited_lock
from edgevision.bundle.manifest import MAX_FILE_BYTES
from edgevision.bundle.reading import Reader, parse, to_fields
from edgevision.bundle.user_cache import cache_root
from edgevision.engines.builder import build_engine
from edgevision.engines.registry import builder_for
from edgevision.engines.request import BuildRequest, BuildResult
from edgevision.errors import EdgeVisionError
from edgevision.machine.identity import processor_name
from edgevision.progress import Progress, silent

_log = logging.getLogger(__name__)
_SCHEMA = 2
"""Part of every key: raise it when edgevision builds otherwise from the same request."""
_KEY = re.compile(r"[0-9a-f]{64}")
_PARTIAL = re.compile(r"\.partial-([0-9a-f]{64})-[0-9a-f]{8}")
ENTRY, ARTIFACT = "entry.json", "artifact"
# What a damaged or foreign entry makes its reader raise, whatever is damaged.
DAMAGED = (
    OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, EdgeVisionError,
)  # fmt: skip
MAX_ENTRY_BYTES = 1 << 20
_DEFAULT_BYTES = 4 << 30


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
        root: the folder; see `cache_root` for where it is by default.
        max_bytes: what is kept at most: the entries that were not used for longest go.
    """

    def __init__(
        self, root: str | os.PathLike[str] | None = None, *, max_bytes: int = _DEFAULT_BYTES
    ) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes: got {max_bytes}, expected 0 or more")
        self.root = Path(root) if root is not None else cache_root()
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
        except DAMAGED as error:
            _log.warning("the cached engine %s is damaged and is built again: %r", key[:12], error)
            _remove(folder)
            return None
        output.write_bytes(artifact)
        with contextlib.suppress(OSError):
            os.utime(folder / ENTRY)
        payload: dict[str, Any] = fields["result"]
        return payload

    def put(self, shapes: Mapping[str, Any], result: BuildResult, target: str) -> None:
        """Keep a built artifact; the caller holds the lock of its key.

        Args:
            shapes: what it was built from, see `engine_shapes`.
            result: what its builder told.
            target: what it was built for.

        Raises:
            OSError: it could not be written; nothing half is left.
        """
        artifact = result.path.read_bytes()
        payload = {
            "key": shapes,
            "target": target,
            "flavour": result.flavour.name,
            "version": result.version,
            "sha256": hashlib.sha256(artifact).hexdigest(),
            "size_bytes": len(artifact),
            "result": result.to_json(),
        }
        key = shape_key(shapes)
        self._publish(key, json.dumps(payload).encode(), artifact)
        self.prune(self.max_bytes, keep=key)

    def entries(self) -> list[Entry]:
        """Return what there is, the most recently used first; damaged entries are left out."""
        found = []
        for folder in self._folders():
            try:
                with open_folder(folder, is_ours=True) as opened:
                    payload = _read_json(opened, folder.name)
                    used = os.stat(ENTRY, dir_fd=opened, follow_symlinks=False).st_mtime
            except DAMAGED:
                continue
            found.append(
                Entry(folder.name, payload["target"], payload["flavour"], payload["version"],
                      payload["size_bytes"], used)
            )  # fmt: skip
        return sorted(found, key=lambda entry: -entry.used)

    def prune(self, max_bytes: int, *, keep: str = "") -> list[Entry]:
        """Remove the entries that were not used for longest until `max_bytes` hold the rest.

        What dead writers left goes, too, and what is damaged; what somebody holds stays. Returns
        the entries that were removed.
        """
        self._clear_partials()
        removed: list[Entry] = []
        left = max_bytes
        entries = self.entries()
        for folder in self._folders():
            if folder.name not in {keep, *(entry.key for entry in entries)}:
                self._clear(folder.name, folder)
        for entry in entries:
            if entry.size_bytes <= left or entry.key == keep:
                left -= entry.size_bytes
            elif self._clear(entry.key, self._engines / entry.key):
                removed.append(entry)
        return removed

    def read(self, entry: Entry) -> tuple[bytes, bytes]:
        """Return an entry's JSON and its artifact as they were compared with each other.

        Raises:
            one of DAMAGED: it is damaged, or not this user's.
        """
        folder = self._engines / entry.key
        payload, artifact = _read_entry(folder)
        return json.dumps(payload).encode(), artifact

    def adopt(self, key: str, entry: bytes, artifact: bytes) -> bool:
        """Take an entry that was made elsewhere; returns whether it was new.

        Raises:
            OSError: it could not be written.
            one of DAMAGED: it is damaged, or not what its key says.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key[:80]!r} is not a key")
        _check_artifact(_checked(entry, key), artifact)
        with self.lock(key):
            if (self._engines / key).exists():
                return False
            self._publish(key, entry, artifact)
        return True

    @contextlib.contextmanager
    def lock(self, key: str, progress: Progress = silent) -> Iterator[None]:
        """Hold `key` alone, waiting for whoever holds it.

        Raises:
            TimeoutError: somebody held it for two hours; says who.
            OSError: the folder cannot be written.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.root / f"{key}.lock"
        with waited_lock(
            path, waiting=lambda s: progress("waiting for another build of it, s", int(s), 0)
        ):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _clear(self, key: str, path: Path | None = None) -> bool:
        """Remove what lies at `path`, and the lock of `key`, unless somebody holds it."""
        file = self.root / f"{key}.lock"
        lock = try_lock(file)
        if lock is None:
            return False
        try:
            if path is not None:
                _remove(path)
            with contextlib.suppress(OSError):
                file.unlink()
        finally:
            os.close(lock)
        return True

    def _clear_partials(self) -> None:
        with contextlib.suppress(OSError):
            for path in list(self._engines.iterdir()):
                if found := _PARTIAL.fullmatch(path.name):
                    self._clear(found[1], path)
            for path in list(self.root.glob("*.lock")):
                if _KEY.fullmatch(path.stem):
                    self._clear(path.stem)

    def _folders(self) -> list[Path]:
        try:
            names = sorted(os.listdir(self._engines))
        except OSError:
            return []
        return [self._engines / name for name in names if _KEY.fullmatch(name)]

    def _publish(self, key: str, entry: bytes, artifact: bytes) -> None:
        """Write an entry aside, and put it in place whole."""
        self._engines.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._engines.glob(f".partial-{key}-*"):  # we hold the lock: its writer is dead
            shutil.rmtree(left, ignore_errors=True)
        partial = self._engines / f".partial-{key}-{secrets.token_hex(4)}"
        partial.mkdir(mode=0o700)
        try:
            write_new(partial / ARTIFACT, artifact, mode=0o644)
            write_new(partial / ENTRY, entry, mode=0o644)
            _remove(self._engines / key)
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
    shapes = None if cache is None else engine_shapes(request)
    if cache is None or shapes is None:
        return build_engine(request, progress)
    key = shape_key(shapes)
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(cache.lock(key, progress))
            payload = cache.take(key, request.output)
        except OSError as error:
            warnings.warn(f"no engine cache in {cache.root}: {error.strerror}", stacklevel=2)
            return build_engine(request, progress)
        if payload is not None:
            found = BuildResult.from_json(payload, request.output, request.target.flavour)
            seconds = time.perf_counter() - began
            return replace(found, seconds=seconds, log="from the cache", cached=True)
        result = build_engine(request, progress)
        try:
            cache.put(shapes, result, request.target.name)
        except OSError as error:
            warnings.warn(
                f"the engine is built, and not kept in {cache.root}: {error.strerror}", stacklevel=2
            )
    return result


def cache_key(request: BuildRequest) -> str | None:
    """Return what names the request's engine; None where the builder's version is not known."""
    shapes = engine_shapes(request)
    return None if shapes is None else shape_key(shapes)


def shape_key(shapes: Mapping[str, Any]) -> str:
    """Return the key of what an engine is built from."""
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()


def engine_shapes(request: BuildRequest) -> dict[str, Any] | None:
    """Return all that shapes the request's engine; None where the builder's version is not known.

    It is JSON, and the same after it was written and read.
    """
    version = builder_for(request.target.flavour).version()
    if version is None:
        return None
    return {
        "schema": _SCHEMA,
        "graph": hashlib.sha256(request.graph.read_bytes()).hexdigest(),
        "flavour": request.target.flavour.name,
        "version": version,
        "sm": list(request.target.sm),
        # A plan of full TensorRT and an optimised model fit only the machine that built them.
        "machine": "" if request.target.portable else processor_name(request.target.flavour),
        "profiles": {name: to_fields(p) for name, p in sorted(request.profiles.items())},
        "workspace_bytes": request.workspace_bytes,
        "optimization_level": request.optimization_level,
        "version_compatible": request.version_compatible,
    }


def timing_cache_file(cache: EngineCache | None, runtime: Flavour) -> Path | None:
    """Return where what the builder measures by this version on this machine is kept, if anywhere.

    Builders that measure nothing leave it alone.
    """
    version = None if cache is None else builder_for(runtime).version()
    if cache is None or version is None:
        return None
    name = hashlib.sha256(f"{version}\0{processor_name(runtime)}".encode()).hexdigest()[:32]
    return cache.root / "timing" / f"{name}.bin"


def _read_entry(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Return an entry's fields and its artifact, compared with each other and with its key.

    Raises:
        FileNotFoundError: there is no entry.
        one of DAMAGED: it is damaged, or not this user's.
    """
    # By the folder's descriptor: whoever can exchange folders cannot do so between two looks.
    with open_folder(folder, is_ours=True) as opened:
        payload = _read_json(opened, folder.name)
        artifact = read_plain(
            ARTIFACT, max_bytes=payload["size_bytes"], is_ours=True, folder=opened
        )
    _check_artifact(payload, artifact)
    return payload, artifact


def _read_json(folder: int, key: str) -> dict[str, Any]:
    content = read_plain(ENTRY, max_bytes=MAX_ENTRY_BYTES, is_ours=True, folder=folder)
    return _checked(content, key)


def _checked(content: bytes, key: str) -> dict[str, Any]:
    """Return an entry's fields, of their types, if they are those of `key`."""
    r = Reader(parse(content), "entry")
    shapes, runtime = r.inner("key"), r.text("flavour")
    if shape_key(shapes.fields) != key or runtime != shapes.text("flavour"):
        raise ValueError("it was built from something else than its key says")
    size_bytes = r.integer("size_bytes")
    if not 0 <= size_bytes <= MAX_FILE_BYTES:
        raise ValueError(f"size_bytes: got {size_bytes}")
    BuildResult.from_json(r.mapping("result"), Path(ARTIFACT), flavour(runtime))
    for name in ("target", "version", "sha256"):
        r.text(name)
    return r.fields


def _check_artifact(payload: Mapping[str, Any], artifact: bytes) -> None:
    digest = hashlib.sha256(artifact).hexdigest()
    if len(artifact) != payload["size_bytes"] or digest != payload["sha256"]:
        raise ValueError("the artifact was changed")
    shapes = payload["key"]
    # What runs on any machine is the graph itself, so nothing is taken on trust.
    is_graph = flavour(shapes["flavour"]).is_graph and not shapes["machine"]
    if is_graph and digest != shapes["graph"]:
        raise ValueError("the artifact is not the graph that it was built from")


def _remove(path: Path) -> None:
    """Remove an entry, or whatever lies in its place."""
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)

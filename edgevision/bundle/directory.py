"""The bundle directory: opened and checked, read byte by byte as checked, and published whole.

A bundle may come from anywhere, so nothing in it is believed before it was compared with the
manifest, and the manifest itself is hostile until read. What is compared is what is handed out:
`read` hashes the very bytes that it returns, so that changing a file after `open` changes nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from edgevision.bundle.files import write_new, write_whole
from edgevision.bundle.manifest import MAX_BYTES, FileEntry, Manifest, Stage
from edgevision.bundle.onnx_bytes import external_weights
from edgevision.bundle.tensors import TensorSpec
from edgevision.errors import (
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    ClosedError,
)

if TYPE_CHECKING:  # only those who write, or read golden vectors, need zip files and the rest
    from edgevision.bundle.staging import Staging

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
SIGNATURE = "signature.json"

Arrays = dict[str, npt.NDArray[np.generic]]

_CHUNK_BYTES = 1 << 20
_MAX_SIGNATURE_BYTES = 4096
_MAX_GOLDEN_BYTES = 1 << 30
_MAX_GOLDEN_SAMPLES = 64
_GOLDEN_HEADER_BYTES = 1024  # of a member and its array, with room to spare
_ATTEMPTS = 20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files were compared with its manifest.

    Attributes:
        root: the bundle's directory.
        manifest: what the bundle says of itself.
        manifest_sha256: of the very bytes that the manifest was read from.
        signature: the bytes of its signature, unchecked; None if it has none. See `signature`.
    """

    root: Path
    manifest: Manifest
    manifest_sha256: str
    signature: bytes | None = None

    @staticmethod
    def open(path: str | os.PathLike[str], *, check_hashes: bool = True) -> Bundle:
        """Open the bundle at `path` and compare its files with its manifest.

        Args:
            path: the bundle's directory.
            check_hashes: read every file through and compare its SHA-256; else names and sizes.

        Raises:
            BundleFormatError: it is not a bundle, or one that this version cannot read.
            BundleIntegrityError: a file is missing, changed, not listed, or no plain file.
            BundleError: the operating system does not let us read it.

        Example:
            >>> Bundle.open("road.ev").manifest.task  # doctest: +SKIP
            'semantic'
        """
        root = Path(os.path.abspath(path))
        if not os.path.lexists(root):
            from edgevision.bundle.staging import recover

            recover(root)
        return settled(root, lambda: _checked(root, check_hashes=check_hashes))

    def check_hashes(self) -> None:
        """Read every file through and compare its SHA-256, as `open` does.

        Raises:
            BundleIntegrityError: a file is missing or changed.
            BundleError: the operating system does not let us read it.
        """
        for entry in self.manifest.files:
            with _opened(self.root, entry.path) as file:
                _compare(entry, *_hash(file, entry.size_bytes))

    def path(self, name: str) -> Path:
        """Return where file `name` lies; who needs its bytes as they were checked calls `read`.

        Raises:
            ValueError: the bundle has no such file.
        """
        return self.root / self._entry(name).path

    def read(self, name: str) -> bytes:
        """Return the bytes of file `name`, compared with the manifest.

        Raises:
            ValueError: the bundle has no such file.
            BundleIntegrityError: it was changed or replaced since the bundle was made.
        """
        entry = self._entry(name)
        with _opened(self.root, entry.path) as file:
            data = file.read(entry.size_bytes)
            _compare(entry, len(data) + len(file.read(1)), hashlib.sha256(data).hexdigest())
        return data

    def write_signature(self, content: bytes) -> None:
        """Put a signature into the bundle, replacing one that is there.

        Raises:
            BundleError: it could not be written.
        """
        with _writing(self.root, len(content)):
            # Beside the bundle, for in it every file must be listed.
            write_whole(self.root / SIGNATURE, content, beside=self.root)

    def golden(self, stage: str) -> tuple[Arrays, Arrays]:
        """Return the golden inputs and outputs of `stage`, each with samples as first axis.

        Raises:
            ValueError: there is no such stage.
            BundleFormatError: the golden file is missing or not what the manifest needs.
            BundleIntegrityError: the golden file was changed.
        """
        from edgevision.bundle.golden import decode

        stages = {known.name: known for known in self.manifest.stages}
        if stage not in stages:
            raise ValueError(f"no stage '{stage}'; the bundle has: {', '.join(stages)}")
        if GOLDEN not in {entry.path for entry in self.manifest.files}:
            raise BundleFormatError(f"'{self.root}' has no {GOLDEN}. Build it again.")
        expected = {key: spec for s in stages.values() for key, spec in _golden_keys(s).items()}
        arrays = decode(self.read(GOLDEN), expected, f"{stage}/")
        if len({len(array) for array in arrays.values()}) != 1:
            raise BundleFormatError(f"{GOLDEN}: the arrays of '{stage}' differ in samples")
        inputs = {s.name: arrays[f"{stage}/input/{s.name}"] for s in stages[stage].inputs}
        outputs = {s.name: arrays[f"{stage}/output/{s.name}"] for s in stages[stage].outputs}
        return inputs, outputs

    def _entry(self, name: str) -> FileEntry:
        for entry in self.manifest.files:
            if entry.path == name:
                return entry
        raise ValueError(f"'{self.root}' has no file '{name}'")


class BundleWriter:
    """Writes a bundle aside and publishes it whole, or leaves nothing behind.

    A context manager: add the files, then `publish`. Leaving without it, for whatever reason,
    removes what was written; a bundle that is already at the path stays until the new one has been
    checked. Equal files make equal bytes.

    Example:
        >>> with BundleWriter("road.ev") as writer:  # doctest: +SKIP
        ...     writer.add("stages/main/model.onnx", graph)
        ...     writer.add_golden("main", inputs, outputs)
        ...     bundle = writer.publish(manifest)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        self._staging: Staging | None = None
        self._files: dict[str, FileEntry] = {}
        self._golden: Arrays = {}

    def __enter__(self) -> BundleWriter:
        """Make the directory aside.

        Raises:
            BundleError: something that is not a bundle is at the path, or it cannot be written.
        """
        from edgevision.bundle.staging import Staging

        _refuse_foreign(self.path)
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._staging = Staging(self.path)
        return self

    def __exit__(self, *error: object) -> None:
        """Remove what was written aside."""
        if self._staging is not None:
            staging, self._staging = self._staging, None
            with _writing(self.path):
                staging.close()

    def add(self, name: str, content: bytes) -> None:
        """Put file `name` into the bundle.

        Raises:
            ValueError: a file of that name was added before, or is the bundle's own.
            BundleFormatError: the name is not one that a bundle takes.
            BundleError: it could not be written.
        """
        if name in (MANIFEST, GOLDEN, SIGNATURE):
            raise ValueError(f"'{name}' is written by the bundle itself")
        self._write(name, content)

    def add_golden(
        self,
        stage: str,
        inputs: Mapping[str, npt.NDArray[np.generic]],
        outputs: Mapping[str, npt.NDArray[np.generic]],
    ) -> None:
        """Keep golden inputs and outputs of `stage`, each with samples as first axis."""
        for kind, arrays in (("input", inputs), ("output", outputs)):
            for name, array in arrays.items():
                self._golden[f"{stage}/{kind}/{name}"] = array

    def publish(self, manifest: Manifest) -> Bundle:
        """Write the golden vectors and the manifest, check all of it, and put it in place.

        Args:
            manifest: its `files` are filled in here.

        Returns:
            The bundle at its path.

        Raises:
            BundleError: it could not be written, or what was written is not a valid bundle.
        """
        from edgevision.bundle.golden import encode

        folder = self._open_staging().folder
        self._write(GOLDEN, encode(self._golden))
        files = tuple(sorted(self._files.values(), key=lambda entry: entry.path))
        manifest = replace(manifest, files=files)
        self._write(MANIFEST, manifest.to_json().encode())
        written = Bundle.open(folder)
        for stage in written.manifest.stages:
            written.golden(stage.name)
            _refuse_external(written, stage)
        _refuse_foreign(self.path)
        with _writing(self.path):
            self._open_staging().put_in_place()
        return replace(written, root=self.path)

    def _open_staging(self) -> Staging:
        if self._staging is None:
            raise ClosedError("the bundle writer is not open; use it in a `with` statement")
        return self._staging

    def _write(self, name: str, content: bytes) -> None:
        staging = self._open_staging()
        if name in self._files:
            raise ValueError(f"'{name}' is added twice")
        # Made first, for it refuses names that are no path in a bundle.
        entry = FileEntry(name, len(content), hashlib.sha256(content).hexdigest())
        target = staging.folder / name
        with _writing(self.path, len(content)):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_new(target, content)
        self._files[name] = entry


def settled(root: Path, attempt: Callable[[], _T]) -> _T:
    """Return what `attempt` gives; again if a writer replaced the bundle while it was read."""
    for _ in range(_ATTEMPTS):
        before = _identity(root)
        try:
            return attempt()
        except BundleError:
            if _identity(root) == before:
                raise
    raise BundleError(f"'{root}' is being replaced again and again; try when its writers are done.")


def _identity(root: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(root)
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


def _checked(root: Path, *, check_hashes: bool) -> Bundle:
    manifest, manifest_sha256 = _read_manifest(root)
    _refuse_unlisted(root, manifest)
    _check_golden_size(manifest)
    bundle = Bundle(root, manifest, manifest_sha256, _read_signature(root))
    for entry in manifest.files:
        # A file of another size is refused unread, however large it is.
        with _opened(root, entry.path) as file:
            _compare(entry, os.fstat(file.fileno()).st_size, entry.sha256)
    if check_hashes:
        bundle.check_hashes()
    return bundle


def _check_golden_size(manifest: Manifest) -> None:
    """Refuse golden vectors that are far more than samples of the stages' tensors, unread."""
    specs = [spec for stage in manifest.stages for spec in (*stage.inputs, *stage.outputs)]
    limit_bytes = _MAX_GOLDEN_BYTES
    if not any(spec.is_dynamic for spec in specs):
        sample_bytes = sum(spec.size_bytes + _GOLDEN_HEADER_BYTES for spec in specs)
        limit_bytes = min(limit_bytes, _MAX_GOLDEN_SAMPLES * sample_bytes)
    for entry in manifest.files:
        if entry.path == GOLDEN and entry.size_bytes > limit_bytes:
            raise BundleFormatError(
                f"{GOLDEN} has {entry.size_bytes} bytes, and {_MAX_GOLDEN_SAMPLES} samples of what "
                f"the stages take and give have {limit_bytes}. Build it again with fewer samples"
            )


def _read_signature(root: Path) -> bytes | None:
    if not os.path.lexists(root / SIGNATURE):
        return None
    with _opened(root, SIGNATURE) as file:
        content = file.read(_MAX_SIGNATURE_BYTES + 1)
    if len(content) > _MAX_SIGNATURE_BYTES:
        raise BundleFormatError(f"{SIGNATURE} is larger than {_MAX_SIGNATURE_BYTES} bytes.")
    return content


def _read_manifest(root: Path) -> tuple[Manifest, str]:
    """Return the manifest, and the SHA-256 of the bytes that it was read from."""
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise BundleFormatError(f"'{root}' {found}; expected the directory of a bundle.")
    if not os.path.lexists(root / MANIFEST):
        raise BundleFormatError(f"'{root}' is not a bundle: it has no {MANIFEST}.")
    with _opened(root, MANIFEST) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise BundleFormatError(f"{MANIFEST} is larger than {MAX_BYTES} bytes, the most it may be.")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BundleFormatError(f"{MANIFEST} is not UTF-8: {error}") from error
    return Manifest.from_json(text), hashlib.sha256(data).hexdigest()


def _refuse_unlisted(root: Path, manifest: Manifest) -> None:
    """Refuse links, special files, and whatever the manifest does not list."""
    files = {MANIFEST, SIGNATURE, *(entry.path for entry in manifest.files)}
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    pending = ["."]
    while pending:
        folder = pending.pop()
        with _reading(root / folder), os.scandir(root / folder) as entries:
            for entry in entries:
                name = str(PurePosixPath(folder, entry.name))
                if entry.is_dir(follow_symlinks=False) and name in folders:
                    pending.append(name)
                elif entry.is_symlink() or name not in files:
                    kind = "is a link" if entry.is_symlink() else "is not listed in the manifest"
                    raise BundleIntegrityError(
                        f"{name!r} {kind}. Remove it, or copy the bundle again."
                    )


@contextmanager
def _opened(root: Path, name: str) -> Iterator[BinaryIO]:
    """Open file `name` without following a link anywhere below `root`, or blocking on a pipe."""
    with _reading(root / name):
        descriptor = _open_below(root, name)
        # Asked before it becomes a file object, which would not close the descriptor of a folder.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _not_plain(name)
        with os.fdopen(descriptor, "rb") as file:
            yield file


def _open_below(root: Path, name: str) -> int:
    *folders, last = name.split("/")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise BundleIntegrityError(f"'{name}' is missing. Copy the bundle again.") from error
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise _not_plain(name) from error
        raise
    finally:
        os.close(folder)


def _not_plain(name: str) -> BundleIntegrityError:
    return BundleIntegrityError(
        f"'{name}' is not a plain file, or lies behind a link. Copy the bundle again."
    )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"could not read '{path}': {error.strerror}") from error


def _hash(file: BinaryIO, limit_bytes: int) -> tuple[int, str]:
    """Return size and SHA-256 of `file`, reading no more than one byte beyond `limit_bytes`."""
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := file.read(min(_CHUNK_BYTES, limit_bytes + 1 - size_bytes)):
        digest.update(chunk)
        size_bytes += len(chunk)
    return size_bytes, digest.hexdigest()


def _compare(entry: FileEntry, size_bytes: int, sha256: str) -> None:
    if (size_bytes, sha256) != (entry.size_bytes, entry.sha256):
        raise BundleIntegrityError(
            f"'{entry.path}' was changed: found {size_bytes} bytes, sha256 {sha256}, expected "
            f"{entry.size_bytes} bytes, sha256 {entry.sha256}. Copy the bundle again."
        )


def _refuse_external(bundle: Bundle, stage: Stage) -> None:
    """Refuse graphs whose weights lie in files that no manifest lists, which no hash covers."""
    onnx = {a.path for a in stage.artifacts if a.flavour.is_graph and a.path is not None}
    for path in sorted(onnx | set(stage.graphs())):
        try:
            found = external_weights(bundle.read(path))
        except ValueError:
            continue  # no ONNX file: whoever loads it says so
        if found is not None:
            raise BundleFormatError(
                f"the graph '{path}' keeps the weights {found[:80]!r} in another file, which would "
                "not be in the bundle. Save it as one file: onnx.save(onnx.load(NAME), NAME, "
                "save_as_external_data=False)"
            )


def _golden_keys(stage: Stage) -> dict[str, TensorSpec]:
    inputs = {f"{stage.name}/input/{spec.name}": spec for spec in stage.inputs}
    return inputs | {f"{stage.name}/output/{spec.name}": spec for spec in stage.outputs}


def _refuse_foreign(path: Path) -> None:
    """Refuse to replace anything but a bundle or an empty folder: what is replaced is removed."""
    try:
        settled(path, lambda: _check_replaceable(path))
    except BundleError as error:
        raise BundleFormatError(
            f"'{path}' is there and is not a valid bundle, so it is not replaced: {error} "
            "Give another path, or remove it yourself."
        ) from error


def _check_replaceable(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if path.is_symlink():
        raise BundleFormatError("it is a link.")
    with _reading(path):
        if path.is_dir() and not os.listdir(path):
            return
    manifest, _ = _read_manifest(path)
    _refuse_unlisted(path, manifest)


@contextmanager
def _writing(path: Path, size_bytes: int = 0) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = f" Free at least {size_bytes} bytes there, and try again." if full else ""
        raise BundleError(f"could not write '{path}': {error.strerror}.{advice}") from error

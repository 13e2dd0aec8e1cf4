"""A bundle directory: opened and checked, or written beside its place and moved in as a whole.

What is read is hostile until its hash was checked, so bytes are handed out only after that. What is
written is invisible until it is complete: at every moment the old bundle or the new one is whole.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import io
import os
import secrets
import shutil
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edgevision.errors import BundleError, BundleFormatError, BundleIntegrityError
from edgevision.manifest import MAX_BYTES, FileEntry, Manifest
from edgevision.tensors import TensorSpec

Array = npt.NDArray[np.generic]
Arrays = Mapping[str, Array]

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
_MAX_ENTRIES = 10_000
_MAX_SAMPLES = 4096
_CHUNK_BYTES = 1 << 20
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class Bundle:
    """A bundle whose files were all found to be what the manifest lists.

    Attributes:
        root: the directory.
        manifest: what the bundle says of itself.
    """

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest
        self._entries = {entry.path: entry for entry in manifest.files}

    @staticmethod
    def open(path: str | os.PathLike[str], *, check_hashes: bool = True) -> Bundle:
        """Open the bundle at `path`.

        Args:
            path: the directory; it may be a link to one, but nothing inside may be a link.
            check_hashes: hash every file now; `read` checks what it returns in any case.

        Raises:
            BundleFormatError: it is no bundle, or not one that this version reads.
            BundleIntegrityError: a file is missing, changed, unlisted, or not a plain file.
        """
        root = Path(path).absolute()
        if not root.is_dir():
            found = "a file" if root.exists() else "nothing"
            raise BundleFormatError(f"{path}: expected a bundle directory, found {found}")
        try:
            text = _read(root, MANIFEST, MAX_BYTES).decode("utf-8")
        except FileNotFoundError as error:
            raise BundleFormatError(
                f"{path}: no {MANIFEST} in it, so it is not a bundle; `edgevision build` makes one"
            ) from error
        except UnicodeDecodeError as error:
            raise BundleFormatError(f"{path}: {MANIFEST} is not UTF-8: {error}") from error
        bundle = Bundle(root, Manifest.from_json(text))
        bundle._check_listing()
        if check_hashes:
            for entry in bundle.manifest.files:
                bundle._check(entry, _hash(root, entry))
        return bundle

    def read(self, path: str) -> bytes:
        """Return a file's bytes, checked against the manifest in the same read.

        Raises:
            BundleIntegrityError: the file is not listed, missing or changed.
        """
        entry = self._entries.get(path)
        if entry is None:
            raise BundleIntegrityError(f"{self.root}: '{path}' is not listed in the manifest")
        try:
            data = _read(self.root, path, entry.size_bytes)
        except FileNotFoundError as error:
            raise BundleIntegrityError(f"{self.root}: '{path}' is missing") from error
        self._check(entry, (len(data), hashlib.sha256(data).hexdigest()))
        return data

    def golden(self, stage: str) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return a stage's golden inputs and outputs by name, each with samples first.

        Raises:
            BundleFormatError: there are none, or they do not fit the stage's tensors.
            BundleIntegrityError: the file was changed.
        """
        found = next((s for s in self.manifest.stages if s.name == stage), None)
        if found is None or GOLDEN not in self._entries:
            raise BundleFormatError(f"{self.root}: no golden vectors for stage '{stage}'")
        try:
            with zipfile.ZipFile(io.BytesIO(self.read(GOLDEN))) as archive:
                inputs = {s.name: _array(archive, _key(stage, "input", s), s) for s in found.inputs}
                outputs = {
                    s.name: _array(archive, _key(stage, "output", s), s) for s in found.outputs
                }
        except BundleError:
            raise
        # zipfile raises half a dozen kinds of errors on hostile bytes.
        except Exception as error:
            raise BundleFormatError(f"{self.root}: {GOLDEN} is damaged: {error}") from error
        if len({len(array) for array in (*inputs.values(), *outputs.values())}) != 1:
            raise BundleFormatError(f"{self.root}: {GOLDEN}: tensors differ in sample count")
        return inputs, outputs

    def _check(self, entry: FileEntry, found: tuple[int, str]) -> None:
        if found != (entry.size_bytes, entry.sha256):
            raise BundleIntegrityError(
                f"{self.root}: '{entry.path}' was changed: found {found[0]} bytes, sha256 "
                f"{found[1][:12]}; the manifest lists {entry.size_bytes} bytes, "
                f"{entry.sha256[:12]}. Copy the bundle again, or build it again."
            )

    def _check_listing(self) -> None:
        for path in self.manifest.used_paths():
            if path not in self._entries:
                raise BundleFormatError(
                    f"{self.root}: the manifest uses '{path}', but lists it not"
                )
        listed = {MANIFEST, *self._entries}
        folders = {str(p) for name in listed for p in PurePosixPath(name).parents} - {"."}
        present = set()
        for name, kind in _walk(self.root):
            if kind not in ("file", "folder"):
                raise BundleIntegrityError(f"{self.root}: '{name}' is a {kind}, not a plain file")
            if name not in (listed if kind == "file" else folders):
                raise BundleIntegrityError(
                    f"{self.root}: {kind} '{name}' is not listed in the manifest. Remove it, or "
                    "build the bundle again."
                )
            present.add(name)
        missing = sorted(listed - present)
        if missing:
            raise BundleIntegrityError(
                f"{self.root}: {len(missing)} listed files are missing, the first '{missing[0]}'. "
                "Copy the bundle again."
            )


class BundleWriter:
    """Writes a bundle beside `path` and moves it into place; leaves nothing on any failure.

    Use it as a context manager; `publish` ends it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Prepare to write a bundle at `path`.

        Raises:
            BundleError: `path` is something other than a bundle, or cannot be written beside.
        """
        self._target = Path(path).absolute()
        if not self._target.name:
            raise BundleError(f"{path}: needs a name to write a bundle to, such as net.ev")
        _check_replaceable(self._target)
        self._remove_stale()
        self._partial = self._target.with_name(f"{self._prefix}{secrets.token_hex(8)}")
        self._golden: dict[str, Array] = {}
        self._lock = -1
        with _writing(self._target):
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._partial.mkdir()
            # The lock tells a live writer's folder from one that a killed process left.
            self._lock = os.open(self._partial, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    @property
    def _prefix(self) -> str:
        return f".{self._target.name}.partial-"

    def add(self, path: str, data: bytes) -> None:
        """Write a file at `path` inside the bundle.

        Raises:
            BundleError: it cannot be written.
        """
        FileEntry(path, 0, "0" * 64)
        with _writing(self._target):
            destination = self._partial / path
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_bytes(data)

    def add_golden(self, stage: str, inputs: Arrays, outputs: Arrays) -> None:
        """Add a stage's golden inputs and outputs, by tensor name, each with samples first."""
        for kind, arrays in (("input", inputs), ("output", outputs)):
            for name, array in arrays.items():
                self._golden[f"{stage}/{kind}/{name}"] = np.ascontiguousarray(array)

    def publish(self, manifest: Manifest) -> Bundle:
        """List all files in `manifest`, check the result by opening it, and move it into place.

        Raises:
            BundleError: it cannot be written, or what was written is no good bundle.
        """
        if self._golden:
            self.add(GOLDEN, _npz(self._golden))
        with _writing(self._target):
            names = sorted(name for name, kind in _walk(self._partial) if kind == "file")
            entries = []
            for name in names:
                data = (self._partial / name).read_bytes()
                entries.append(FileEntry(name, len(data), hashlib.sha256(data).hexdigest()))
            text = replace(manifest, files=tuple(entries)).to_json()
            (self._partial / MANIFEST).write_text(text, "utf-8")
            for name, _ in [*_walk(self._partial), (".", "folder")]:
                _sync(self._partial / name)
            Bundle.open(self._partial)
            _check_replaceable(self._target)
            _move_into_place(self._partial, self._target)
            _sync(self._target.parent)
        self.close()
        return Bundle.open(self._target, check_hashes=False)

    def close(self) -> None:
        """Remove whatever was not published; safe to call twice."""
        if self._lock >= 0:
            # What lies here now is the unfinished bundle, or the old one after the exchange.
            shutil.rmtree(self._partial, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def _remove_stale(self) -> None:
        for stale in self._target.parent.glob(f"{_glob_escape(self._prefix)}*"):
            try:
                lock = os.open(stale, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            else:
                shutil.rmtree(stale, ignore_errors=True)
            finally:
                os.close(lock)

    def __enter__(self) -> BundleWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _writing:  # noqa: N801 - reads as a verb: `with _writing(path):`
    """Turns an OSError into a BundleError that names the bundle."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, BundleError):
            raise BundleError(
                f"could not write {self._target}: {error.strerror or error}. Nothing was changed; "
                "free some space or choose another place."
            ) from error


def _check_replaceable(target: Path) -> None:
    try:
        status = target.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BundleError(f"{target}: {error.strerror}") from error
    if stat.S_ISLNK(status.st_mode):
        raise BundleError(f"{target} is a link; give the path that it leads to")
    if not stat.S_ISDIR(status.st_mode):
        raise BundleError(f"{target} is a file, not a bundle; give another path")
    if any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise BundleError(f"{target} is a folder but no bundle, so it is not replaced")


def _move_into_place(partial: Path, target: Path) -> None:
    """Rename `partial` to `target`; an old bundle there ends up at `partial`."""
    for _ in range(100):
        try:
            # Onto nothing, or onto an empty folder.
            os.rename(partial, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
        if _exchange(partial, target):
            return
        # No atomic exchange on this file system: for an instant there is no bundle at `target`.
        aside = partial.with_name(f"{partial.name}.old")
        os.rename(target, aside)
        os.rename(partial, target)
        shutil.rmtree(aside, ignore_errors=True)
        return
    raise OSError(errno.EBUSY, f"{target} keeps changing under us")


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step; False where the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    done = libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE)
    if done == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), str(b))


def _walk(root: Path) -> list[tuple[str, str]]:
    """List everything below `root` as (relative path, kind), following no link."""
    found: list[tuple[str, str]] = []
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                kind = _kind(entry.stat(follow_symlinks=False).st_mode)
                if kind == "folder":
                    folders.append(name)
                found.append((name, kind))
                if len(found) > _MAX_ENTRIES:
                    raise BundleFormatError(f"{root}: more than {_MAX_ENTRIES} files and folders")
    return found


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "special file"


def _open(root: Path, path: str) -> int:
    """Open a file of the bundle; no component may be a link, and a pipe does not block."""
    *folders, name = path.split("/")
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(folder, flags, dir_fd=here)
            os.close(here)
            here = inner
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(name, flags, dir_fd=here)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise BundleIntegrityError(f"{root}: '{path}' is not a plain file") from error
        raise
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise BundleIntegrityError(f"{root}: '{path}' is not a plain file")
    return file


def _read(root: Path, path: str, most_bytes: int) -> bytes:
    with os.fdopen(_open(root, path), "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > most_bytes:
            raise BundleIntegrityError(
                f"{root}: '{path}' has {size_bytes} bytes, at most {most_bytes} are expected"
            )
        return file.read(most_bytes + 1)


def _hash(root: Path, entry: FileEntry) -> tuple[int, str]:
    digest, size_bytes = hashlib.sha256(), 0
    with os.fdopen(_open(root, entry.path), "rb") as file:
        if os.fstat(file.fileno()).st_size == entry.size_bytes:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
        else:
            size_bytes = os.fstat(file.fileno()).st_size
    return size_bytes, digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _glob_escape(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _key(stage: str, kind: str, spec: TensorSpec) -> str:
    return f"{stage}/{kind}/{spec.name}.npy"


def _npz(arrays: Arrays) -> bytes:
    """Return an .npz whose bytes depend on the arrays alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted(arrays.items()):
            data = io.BytesIO()
            np.lib.format.write_array(data, np.asarray(array), (1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), data.getvalue())
    return buffer.getvalue()


def _array(archive: zipfile.ZipFile, key: str, spec: TensorSpec) -> Array:
    """Read one array; its header is checked against `spec` and its size before anything grows."""
    info = archive.getinfo(key)
    # Stored, never compressed: the file's own size, which the manifest bounds, bounds the array.
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise BundleFormatError(f"{GOLDEN}: '{key}' is compressed")
    file = io.BytesIO(archive.read(info))
    if np.lib.format.read_magic(file) != (1, 0):
        raise BundleFormatError(f"{GOLDEN}: '{key}' has another form than .npy 1.0")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    fits = len(shape) > 0 and 0 < shape[0] <= _MAX_SAMPLES and spec.accepts(tuple(shape[1:]))
    if fortran_order or dtype != spec.dtype.numpy or not fits:
        raise BundleFormatError(f"{GOLDEN}: '{key}' is {dtype}{list(shape)}, expected {spec}")
    array: Array = np.frombuffer(file.read(), dtype)
    if array.size != np.prod(shape, dtype=object):
        raise BundleFormatError(f"{GOLDEN}: '{key}' has {array.size} elements, not {shape}")
    return array.reshape(shape)

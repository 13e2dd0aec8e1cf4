"""An engine cache as one tar file, for the cache of a CI.

The file is hostile until each entry was held against its key and its hash. Those are no signature:
whoever writes the archive says what an engine was built from, and a plan is machine code. So import
what your own CI wrote, from where nobody else can write.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from edgevision.bundle.files import PathLike, open_plain, staged
from edgevision.bundle.manifest import MAX_FILE_BYTES
from edgevision.engines.cache import ARTIFACT, DAMAGED, ENTRY, MAX_ENTRY_BYTES, EngineCache
from edgevision.errors import FileReadError, FileWriteError
from edgevision.tasks.outputs import MARK, refuse_foreign

_MAX_ENTRIES = 10_000
_MAX_ARCHIVE_BYTES = 1 << 40


def export_cache(cache: EngineCache, file: PathLike, *, force: bool = False) -> int:
    """Write every valid entry into a tar file; returns how many.

    Raises:
        FileWriteError: the file cannot be written, or one is there that edgevision did not make
            (`force` replaces it); none is left then, and an older one stays.
    """
    target = Path(file)
    refuse_foreign([target], force=force)
    count = 0
    try:
        with (
            staged(target) as partial,
            tarfile.open(partial, "x", pax_headers={"comment": MARK}) as archive,
        ):
            for entry in cache.entries():
                try:
                    payload, artifact = cache.read(entry)
                except DAMAGED:
                    continue
                for name, content in ((ENTRY, payload), (ARTIFACT, artifact)):
                    _add(archive, f"{entry.key}/{name}", content)
                count += 1
    except OSError as error:
        raise FileWriteError(f"could not write '{target}': {error.strerror}") from error
    return count


def import_cache(cache: EngineCache, file: PathLike) -> int:
    """Take the entries of a tar file that `export_cache` wrote; returns how many were new.

    The file is trusted with what each engine was built from, see the module.

    Raises:
        FileReadError: there is no such file, or an entry in it is damaged; those before it stay.
    """
    count = 0
    try:
        with (
            open_plain(file, max_bytes=_MAX_ARCHIVE_BYTES, follow_links=True) as opened,
            tarfile.open(fileobj=opened, mode="r:") as archive,
        ):
            size_bytes = os.fstat(opened.fileno()).st_size
            for _ in range(_MAX_ENTRIES):
                first = archive.next()
                if first is None:
                    return count
                count += cache.adopt(*_pair(archive, first, size_bytes))
            if archive.next() is not None:
                raise ValueError(f"it has more than {_MAX_ENTRIES} entries")
    except (tarfile.TarError, *DAMAGED) as error:
        raise FileReadError(
            f"'{os.fspath(file)}' is not an export of an engine cache, or is damaged: "
            f"{error!s:.300}"
        ) from error
    return count


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _pair(
    archive: tarfile.TarFile, first: tarfile.TarInfo, size_bytes: int
) -> tuple[str, bytes, bytes]:
    """Read one entry of an archive of `size_bytes`: its JSON, then its artifact."""
    key, _, name = first.name.partition("/")
    payload = _content(archive, first, MAX_ENTRY_BYTES, size_bytes)
    second = archive.next()
    if name != ENTRY or second is None or second.name != f"{key}/{ARTIFACT}":
        raise ValueError(f"{first.name[:80]!r} is not an entry with an artifact behind it")
    return key, payload, _content(archive, second, MAX_FILE_BYTES, size_bytes)


def _content(
    archive: tarfile.TarFile, member: tarfile.TarInfo, limit_bytes: int, size_bytes: int
) -> bytes:
    # A sparse member is as large as it says, however small the archive is.
    if not member.isreg() or member.issparse() or not 0 <= member.size <= limit_bytes:
        raise ValueError(f"{member.name[:80]!r} is not a plain file, or too large")
    if member.offset_data + member.size > size_bytes:
        raise ValueError(f"{member.name[:80]!r} ends too soon")
    file = archive.extractfile(member)
    assert file is not None
    content = file.read(member.size)
    if len(content) != member.size:
        raise ValueError(f"{member.name[:80]!r} ends too soon")
    return content

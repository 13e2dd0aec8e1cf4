"""Where frames lie: in a folder, a list, tar files or Parquet; a frame's place, and its pixels.

Another kind of data is one more row of `LISTS` and `_READS`. What a list or an archive says may
come from a stranger: a name is a name and no path, and nothing is unpacked.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn

from edgevision._optional import require
from edgevision.bundle.files import open_plain, read_plain
from edgevision.bundle.tensors import Image
from edgevision.errors import EdgeVisionError, FileReadError
from edgevision.tasks.frames import IMAGE_SUFFIXES, decode_image, read_image
from edgevision.tasks.labelled import named_pictures, pictures_in

if TYPE_CHECKING:
    import tarfile

_ARCHIVES = (".tar", ".parquet")
_COLUMNS = "a column 'path' of files, or 'image' of their bytes"
_MAX_LIST_BYTES = 1 << 30
_MAX_ARCHIVE_BYTES = 1 << 44
_MAX_IMAGE_BYTES = 1 << 30
_MAX_GROUP_BYTES = 1 << 32
_BLOCK_BYTES = 512


class Place(NamedTuple):
    """Where one frame lies.

    Attributes:
        name: unique; labels are found by it.
        file: the file, as this machine and every worker can open it.
        kind: what `file` is: "file" for the picture itself.
        at: of a tar file the first byte, of Parquet the row.
        size_bytes: of a picture in a tar file.
    """

    name: str
    file: str
    kind: str = "file"
    at: int = 0
    size_bytes: int = 0

    @property
    def is_packed(self) -> bool:
        """Whether the picture is one of several in a file."""
        return self.kind != "file"


def list_frames(
    data: str | os.PathLike[str], pictures: Mapping[str, Path] | None = None
) -> list[Place]:
    """Return where the frames of `data` lie.

    Args:
        data: a folder of pictures, of tar or of Parquet files; such a file; or a text file with
            the path of a picture on each line.
        pictures: of a labelled folder, those that have labels.

    Raises:
        FileReadError: it cannot be read, or two frames have one name.
    """
    path = Path(data)
    if pictures is not None:
        places = [_file(name, file) for name, file in pictures.items()]
    elif path.suffix in LISTS and not path.is_dir():
        places = list(LISTS[path.suffix](path))
    elif path.is_file():
        raise FileReadError(
            f"{path}: expected a folder of pictures, or {', '.join(sorted(LISTS))} files of them"
        )
    else:
        there = sorted(path.iterdir()) if path.is_dir() else []
        files = [file for file in there if file.suffix in _ARCHIVES]
        found = {} if files else named_pictures(path, pictures_in(path))
        places = [_file(name, picture) for name, picture in found.items()]
        places += [place for file in files for place in LISTS[file.suffix](file)]
    if not places:
        raise FileReadError(f"{path}: holds no frame")
    counted = Counter(place.name for place in places)
    if twice := [name for name, count in counted.items() if count > 1]:
        raise FileReadError(f"{path}: {len(twice)} names stand for several frames: '{twice[0]}'")
    return places


def read_frame(place: Place) -> Image:
    """Return a frame's photo, `uint8[h, w, 3]` RGB.

    Raises:
        FileReadError: it cannot be read, or is not a picture.
    """
    return _READS[place.kind](place)


def _from_list(path: Path) -> Iterator[Place]:
    try:
        content = read_plain(path, max_bytes=_MAX_LIST_BYTES, follow_links=True)
        lines = content.decode("utf-8-sig").split("\n")  # others end a line at U+0085 as well
    except (OSError, UnicodeDecodeError) as error:
        raise FileReadError(f"{path}: cannot be read as a list of files: {error}") from error
    for line in filter(None, map(str.strip, lines)):
        yield _listed(path, line)


def _listed(path: Path, line: object) -> Place:
    if not isinstance(line, str) or not line or "\0" in line:
        raise FileReadError(f"{path}: {line!r:.80} is not a file's path")
    return _file(line.removeprefix("images/"), path.parent / line)


def _file(name: str, path: Path) -> Place:
    return Place(name, str(path.absolute()))  # workers may be in other folders


def _from_tar(path: Path) -> Iterator[Place]:
    import tarfile  # here: every task that looks at pictures is loaded with this module

    try:
        # Uncompressed only: a worker seeks to its own frames.
        with _archive(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.size < 0:  # tarfile would go back by as much, for ever
                    _refuse_member(path, member, "has a size below 0")
                named = PurePosixPath(member.name)
                if named.suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                if named.is_absolute() or ".." in named.parts:
                    _refuse_member(path, member, "leads out of the archive")
                if member.islnk() or member.issym():
                    _refuse_member(path, member, "is a link: pack with tar --hard-dereference -h")
                if member.isreg():
                    name = f"{path.stem}/{member.name}"
                    yield Place(name, str(path.absolute()), "tar", member.offset_data, member.size)
            # tarfile takes a damaged header for the end.
            file.seek(archive.offset)
            if file.read(_BLOCK_BYTES).strip(b"\0"):
                raise FileReadError(f"{path}: damaged at byte {archive.offset}")
    except (OSError, ValueError, OverflowError, tarfile.TarError) as error:
        raise FileReadError(f"{path}: cannot be read as an uncompressed tar: {error}") from error


def _refuse_member(path: Path, member: tarfile.TarInfo, reason: str) -> NoReturn:
    raise FileReadError(f"{path}: '{member.name:.200}' {reason}")


def _from_parquet(path: Path) -> Iterator[Place]:
    with _parquet_file(path) as file:
        columns = file.schema_arrow.names
        if "path" in columns:
            for row in file.read(columns=["path"]).column("path").to_pylist():
                yield _listed(path, row)
        elif "image" in columns:
            for row in range(file.metadata.num_rows):
                yield Place(f"{path.stem}/{row:09d}", str(path.absolute()), "parquet", row)
        else:
            raise FileReadError(f"{path}: has the columns {columns}, expected {_COLUMNS}")


def _read_member(place: Place) -> Image:
    if place.size_bytes > _MAX_IMAGE_BYTES:
        raise FileReadError(
            f"{place.name}: {place.size_bytes} bytes, expected a picture of at most "
            f"{_MAX_IMAGE_BYTES}"
        )
    try:
        with _archive(place.file) as file:
            file.seek(place.at)
            data = file.read(place.size_bytes)
    except OSError as error:
        raise FileReadError(f"{place.file}: {error.strerror}") from error
    return decode_image(data, place.name)


def _read_row(place: Place) -> Image:
    start, images = _row_group(place.file, place.at)
    data = images[place.at - start]
    # As Hugging Face's data sets have it.
    data = data.get("bytes") if isinstance(data, dict) else data
    if not isinstance(data, bytes):
        raise FileReadError(f"{place.name}: the column 'image' holds no bytes")
    return decode_image(data, place.name)


def _row_group(file: str, row: int) -> tuple[int, list[Any]]:
    """Return the first row of the group that holds `row`, and the group's images."""
    starts = _group_starts(file)
    group = max(k for k, start in enumerate(starts) if start <= row)
    return starts[group], _images(file, group)


@lru_cache(maxsize=8)
def _group_starts(file: str) -> list[int]:
    with _parquet_file(file) as opened:
        metadata = opened.metadata
    starts = [0]
    for group in range(metadata.num_row_groups - 1):
        starts.append(starts[-1] + metadata.row_group(group).num_rows)
    return starts


@lru_cache(maxsize=1)
def _images(file: str, group: int) -> list[Any]:
    with _parquet_file(file) as opened:
        size_bytes = opened.metadata.row_group(group).total_byte_size
        if size_bytes > _MAX_GROUP_BYTES:
            raise FileReadError(
                f"{file}: row group {group} has {size_bytes} bytes, at most {_MAX_GROUP_BYTES} are "
                "read at once: write it in smaller row groups"
            )
        images: list[Any] = opened.read_row_group(group, columns=["image"])["image"].to_pylist()
    return images


@contextlib.contextmanager
def _parquet_file(path: str | Path) -> Iterator[Any]:
    parquet = require("pyarrow.parquet", extra="parquet")
    try:
        with _archive(path) as file:
            yield parquet.ParquetFile(file)
    except (EdgeVisionError, GeneratorExit):
        raise
    except Exception as error:  # Arrow has errors of a dozen kinds
        raise FileReadError(f"{path}: cannot be read as Parquet: {error}") from error


def _archive(path: str | Path) -> BinaryIO:
    return open_plain(path, max_bytes=_MAX_ARCHIVE_BYTES, follow_links=True)


LISTS: dict[str, Callable[[Path], Iterator[Place]]] = {
    ".txt": _from_list,
    ".tar": _from_tar,
    ".parquet": _from_parquet,
}
"""What gives the places in a file that holds frames or names them, by its suffix."""

_READS: dict[str, Callable[[Place], Image]] = {
    "file": lambda place: read_image(place.file),
    "tar": _read_member,
    "parquet": _read_row,
}

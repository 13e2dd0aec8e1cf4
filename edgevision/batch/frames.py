"""Where frames lie: in a folder, a list, tar files or Parquet; a frame's place, and its pixels.

Only places travel to workers. Another kind of data is one more row of `_LISTS` and `_READS`.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from edgevision._optional import require
from edgevision.bundle.files import open_plain, read_plain
from edgevision.errors import FileReadError
from edgevision.tasks.camera import Image
from edgevision.tasks.frames import decode_image, read_image
from edgevision.tasks.labelled import named_pictures, pictures_in

_COLUMNS = "a column 'path' of files, or 'image' of their bytes"
_MAX_LIST_BYTES = 1 << 30
_MAX_ARCHIVE_BYTES = 1 << 44
_MAX_IMAGE_BYTES = 1 << 30


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


@dataclass(frozen=True, slots=True)
class Shard:
    """Frames that one worker takes at once, the first of them by its number in the whole set."""

    number: int
    first: int
    places: tuple[Place, ...]


def list_frames(data: str | os.PathLike[str], pictures: Mapping[str, Path] | None) -> list[Place]:
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
        places = [Place(name, str(picture)) for name, picture in pictures.items()]
    elif path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".tar", ".parquet"))
        found = {} if files else named_pictures(path, pictures_in(path))
        places = [Place(name, str(picture)) for name, picture in found.items()]
        places += [place for file in files for place in _LISTS[file.suffix](file)]
    elif path.suffix in _LISTS:
        places = list(_LISTS[path.suffix](path))
    else:
        raise FileReadError(
            f"{path}: expected a folder of pictures, or {', '.join(sorted(_LISTS))} files of them"
        )
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
        lines = content.decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileReadError(f"{path}: cannot be read as a list of files: {error}") from error
    for line in filter(None, map(str.strip, lines)):
        yield Place(line.removeprefix("images/"), str(path.parent / line))


def _from_tar(path: Path) -> Iterator[Place]:
    try:
        # Uncompressed only: a worker seeks to its own frames.
        with _archive(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.isreg() and Path(member.name).suffix.lower() in _PICTURES:
                    name = f"{path.stem}/{member.name}"
                    yield Place(name, str(path), "tar", member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise FileReadError(f"{path}: cannot be read as an uncompressed tar: {error}") from error


def _from_parquet(path: Path) -> Iterator[Place]:
    try:
        with _parquet_file(path) as file:
            columns = file.schema_arrow.names
            if "path" in columns:
                for row in file.read(columns=["path"]).column("path").to_pylist():
                    yield Place(str(row).removeprefix("images/"), str(path.parent / str(row)))
            elif "image" in columns:
                for row in range(file.metadata.num_rows):
                    yield Place(f"{path.stem}/{row:09d}", str(path), "parquet", row)
            else:
                raise FileReadError(f"{path}: has the columns {columns}, expected {_COLUMNS}")
    except (OSError, ValueError) as error:
        raise FileReadError(f"{path}: cannot be read as Parquet: {error}") from error


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
    try:
        start, images = _row_group(place.file, place.at)
    except (OSError, ValueError) as error:
        raise FileReadError(f"{place.file}: row {place.at}: {error}") from error
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
        images: list[Any] = opened.read_row_group(group, columns=["image"])["image"].to_pylist()
    return images


@contextlib.contextmanager
def _parquet_file(path: str | Path) -> Iterator[Any]:
    parquet = require("pyarrow.parquet", extra="parquet")
    with _archive(path) as file:
        yield parquet.ParquetFile(file)


def _archive(path: str | Path) -> BinaryIO:
    return open_plain(path, max_bytes=_MAX_ARCHIVE_BYTES, follow_links=True)


_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_LISTS: dict[str, Callable[[Path], Iterator[Place]]] = {
    ".txt": _from_list,
    ".tar": _from_tar,
    ".parquet": _from_parquet,
}
_READS: dict[str, Callable[[Place], Image]] = {
    "file": lambda place: read_image(place.file),
    "tar": _read_member,
    "parquet": _read_row,
}

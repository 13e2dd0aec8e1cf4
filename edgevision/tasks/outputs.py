"""Files written where the user says: never over one that edgevision did not make."""

from __future__ import annotations

import base64
import io
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.errors import FileWriteError

MARK = "made by edgevision; its next run may replace this file"
"""What every such file holds near its start or its end, in its format's own place for remarks."""

_LOOKED_AT_BYTES = 1 << 16
_REMARK = {".jpg": "comment", ".jpeg": "comment", ".gif": "comment", ".tif": "description",
           ".tiff": "description"}  # fmt: skip


def refuse_foreign(paths: Iterable[Path], *, force: bool = False) -> None:
    """Refuse to write to `paths` where that would lose a file that edgevision did not make.

    Call it before the first of them is written. An empty file, a pipe or a device loses nothing.

    Args:
        paths: where will be written.
        force: replace such files; folders are refused all the same.

    Raises:
        FileWriteError: one of them is such a file or a folder, or two are the same.
    """
    checked = list(paths)
    if twice := [path for path in checked if checked.count(path) > 1]:
        raise FileWriteError(f"'{twice[0]}' would be written twice: give each output its own name")
    if folders := [path for path in checked if path.is_dir()]:
        raise FileWriteError(f"'{folders[0]}' is a folder, expected the name of a file to write")
    foreign = [] if force else [path for path in checked if not _is_replaceable(path)]
    if foreign:
        others = f" and {len(foreign) - 1} more are" if len(foreign) > 1 else " is"
        raise FileWriteError(
            f"'{foreign[0]}'{others} there already and not known to be made by edgevision: nothing "
            "was written. Give another name or folder, or --force (force=True in Python) to "
            "replace what is there"
        )


def page(package: str, template: str, *, extra: str, **values: object) -> str:
    """Return an HTML page from a package's template, which is given `mark`, too.

    Raises:
        MissingDependencyError: jinja2 is not installed, which `extra` brings.
    """
    jinja2 = require("jinja2", extra=extra)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    text: str = environment.get_template(template).render(mark=MARK, **values)
    return text


def picture_mark(path: Path) -> dict[str, Any]:
    """Return what Pillow's `save` takes to put the mark into a picture; {} if it cannot."""
    suffix = path.suffix.lower()
    if suffix == ".png":
        info = require("PIL.PngImagePlugin", extra="media").PngInfo()
        info.add_text("Comment", MARK)
        return {"pnginfo": info}
    return {_REMARK[suffix]: MARK.encode()} if suffix in _REMARK else {}


def jpeg_url(picture: npt.NDArray[np.uint8], *, max_side_px: int | None = None) -> str:
    """Return a picture, uint8[H, W, 3] RGB, as a URL that holds it, for a page of one file."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture, max_side_px)).decode()


def jpeg(picture: npt.NDArray[np.uint8], max_side_px: int | None = None) -> bytes:
    """Return a picture, uint8[H, W, 3] RGB, as the bytes of a JPEG file."""
    image = require("PIL.Image", extra="media").fromarray(picture)
    if max_side_px is not None:
        image.thumbnail((max_side_px, max_side_px))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def png(numbers: npt.NDArray[np.generic]) -> bytes:
    """Return uint8[H, W] or uint16[H, W] as the bytes of a PNG file, which keeps every number."""
    buffer = io.BytesIO()
    require("PIL.Image", extra="media").fromarray(numbers).save(buffer, "PNG")
    return buffer.getvalue()


def _is_replaceable(path: Path) -> bool:
    if not os.path.lexists(path):
        return True
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            return True  # Folders were refused before.
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT_BYTES)
            file.seek(max(0, info.st_size - _LOOKED_AT_BYTES))
            end = file.read(_LOOKED_AT_BYTES)
    except OSError:  # Also of a link to nothing.
        return False
    mark = MARK.encode()
    return not info.st_size or mark in start or mark in end

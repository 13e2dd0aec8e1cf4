"""The file that `edgevision build` takes: any argument of `edgevision.build()`, checked by key.

    source = "my_package.nets:make_net"
    out = "road.ev"
    size = [360, 480]
    classes = ["road", "sky", ["person", "#ff0000"]]
    precision = "int8"
    calibration = "frames"
    targets = ["host-cpu", "jetson-orin-jp6"]

Paths are relative to the file. What a value means is checked by `edgevision.build()`; here, what
can be said of it with the file's own words.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from edgevision.bundle.forms import PRECISIONS
from edgevision.bundle.reading import read_value
from edgevision.bundle.tensors import ShapeProfile
from edgevision.bundle.toml_file import parse_toml, read_toml
from edgevision.cli.cache import size_bytes
from edgevision.errors import FileReadError

_SIZE = re.compile(r"(\d{1,5})[xX](\d{1,5})")


Read = Callable[[object, Path], object]
"""From a value and the file's folder to an argument; a ValueError where it is of another kind."""


def _typed(kind: Any) -> Read:
    return lambda value, _folder: read_value(kind, value, "it")


def _text(value: object, _folder: Path) -> str:
    return cast(str, _expect(value, isinstance(value, str) and value != ""))


def _expect(value: Any, is_so: bool) -> Any:
    if not is_so:
        raise ValueError(value)
    return value


def _path(value: object, folder: Path) -> Path:
    return folder / _text(value, folder)


def _source(value: object, folder: Path) -> str:
    source = _text(value, folder)
    return str(folder / source) if source.endswith(".onnx") else source


def _targets(value: object, folder: Path) -> list[str]:
    names = _texts(value, folder)
    return [str(folder / name) if name.endswith(".toml") else name for name in names]


def _texts(value: object, folder: Path) -> list[str]:
    return [_text(item, folder) for item in _expect(value, isinstance(value, list))]


def _size(value: object, _folder: Path) -> tuple[int, int]:
    size = parse_size(value) if isinstance(value, str) else None
    if isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value):
        size = (value[0], value[1]) if min(value) > 0 else None
    if size is None:
        raise ValueError(value)
    return size


def _classes(value: object, folder: Path) -> Path | list[str | tuple[str, str]]:
    if isinstance(value, str):
        return _path(value, folder)
    _expect(value, isinstance(value, list) and value != [])
    classes: list[str | tuple[str, str]] = []
    for item in cast(list[object], value):
        if isinstance(item, list):
            name, color = item if len(item) == 2 else (None, None)
            classes.append((_text(name, folder), _text(color, folder)))
        else:
            classes.append(_text(item, folder))
    return classes


def _precision(value: object, _folder: Path) -> object:
    return _expect(value, value in PRECISIONS)


def _camera(value: object, folder: Path) -> dict[str, object]:
    fields: dict[str, object] = _expect(
        value, isinstance(value, dict) and not value.keys() - CAMERA_KEYS.keys()
    )
    return {key: CAMERA_KEYS[key](item, folder) for key, item in fields.items()}


def _cameras(value: object, folder: Path) -> object:
    return value if type(value) is int else _WHOLE_NUMBERS(value, folder)


def _number(value: object, folder: Path) -> float:
    number: float = read_value(float, value, "it")
    return float(_expect(number, math.isfinite(number)))


def _budget(value: object, folder: Path) -> float | str:
    return "task" if value == "task" else _number(value, folder)


def _bytes(value: object, _folder: Path) -> int:
    try:
        return size_bytes(value) if isinstance(value, str) else int(read_value(int, value, "it"))
    except argparse.ArgumentTypeError as error:
        raise ValueError(value) from error


def _cache(value: object, folder: Path) -> bool | Path:
    return value if isinstance(value, bool) else _path(value, folder)


_INTEGER, _BOOLEAN, _WHOLE_NUMBERS = map(_typed, (int, bool, tuple[int, ...]))


def _numbers(value: object, folder: Path) -> list[float]:
    return list(read_value(tuple[float, ...], value, "it"))


CAMERA_KEYS: Mapping[str, Read] = {
    "size": _size,
    "pixel_format": _text,
    "row_bytes": _INTEGER,
    "matrix": _text,
    "range": _text,
    "bits": _INTEGER,
    "fit": _text,
    "pad_value": _INTEGER,
    "region": _WHOLE_NUMBERS,
}
"""What a file's `camera` may hold: the fields of `edgevision.export.Camera`."""


def _ranges(value: object, _folder: Path) -> dict[str, tuple[float, float]]:
    return {name: _ends(ends) for name, ends in _table(value).items()}


def _ends(value: object) -> tuple[float, float]:
    ends = value.split(":") if isinstance(value, str) else _expect(value, isinstance(value, list))
    low, high = (float(_expect(end, isinstance(end, str | int | float))) for end in ends)
    return _expect((low, high), -math.inf < low <= high < math.inf)  # type: ignore[no-any-return]


def _label_map(value: object, _folder: Path) -> dict[str, int | str]:
    if not isinstance(value, dict) or not value:
        raise ValueError(value)
    found: dict[str, int | str] = {}
    for key, held in value.items():
        if not key or type(held) not in (int, str):
            raise ValueError(value)
        found[key] = int(held) if isinstance(held, str) and held.isdecimal() else held
    return found


def _shapes(value: object, _folder: Path) -> dict[str, ShapeProfile]:
    return {name: _profile(written) for name, written in _table(value).items()}


def _table(value: object) -> dict[str, object]:
    return _expect(value, isinstance(value, dict))  # type: ignore[no-any-return]


def _profile(value: object) -> ShapeProfile:
    shapes = [tuple(map(int, part.split("x"))) for part in _text(value, Path()).split(":")]
    minimum, *usual, maximum = shapes * 2 if len(shapes) == 1 else shapes
    (optimum,) = usual or (minimum,)
    return ShapeProfile(minimum, optimum, maximum)


def read_named(key: str, written: Sequence[str]) -> dict[str, Any]:
    """Return what several `NAME=VALUE` of a flag say, by name.

    Raises:
        ValueError: says what was found and what was expected.
    """
    # A name may hold "=", a value never does.
    parts = [text.rpartition("=") for text in written]
    found = _checked(key, {name: value for name, _, value in parts}, Path())
    assert isinstance(found, dict)
    return found


_A_PATH = "a path in quotes"
_READERS: Mapping[str, tuple[str, Read]] = {
    "source": ("a shipped net, package.module:factory or FILE.onnx, in quotes", _source),
    "out": ("the bundle's path in quotes", _path),
    "task": ("semantic, instance or tensors, in quotes", _text),
    "weights": (_A_PATH, _path),
    "size": ("height and width such as [360, 480]", _size),
    "classes": ('names such as ["road", ["person", "#ff0000"]], or the path of a file', _classes),
    "camera": (
        'a table such as {size = [1080, 1920], pixel_format = "nv12", fit = "letterbox"}; it may '
        f"hold {', '.join(CAMERA_KEYS)}",
        _camera,
    ),
    "cameras": ("how many frames come in one call: 6, or [1, 8] for any number of them", _cameras),
    "mean": ("three numbers such as [0.485, 0.456, 0.406]", _numbers),
    "std": ("three numbers such as [0.229, 0.224, 0.225]", _numbers),
    "precision": (f"one of {', '.join(PRECISIONS)}, in quotes", _precision),
    "calibration": (_A_PATH, _path),
    "evaluate": (_A_PATH, _path),
    "label_map": (
        'the class of each number or colour such as { 0 = 0, "#800000" = "person" }; --label-map '
        "0=0,255=1",
        _label_map,
    ),
    "ignore_index": ("a whole number, 0 to 255", _INTEGER),
    "metric": ("package.module:function, in quotes", _text),
    "samples": (_A_PATH, _path),
    "ranges": ("the ends by name such as { ids = [0, 29999] }; --range ids=0:29999", _ranges),
    "shapes": (
        'bounds by name such as { x = "1x3x480x640:4x3x960x1280" }; --shape x=1x8:4x8',
        _shapes,
    ),
    "targets": ('names such as ["host-cpu", "rtx"]', _targets),
    "keep_fp32": ('op types or node names such as ["Softmax"]', _texts),
    "method": ("auto, percentile, mse, entropy or minmax, in quotes", _text),
    "recover": ('some of equalise, correct, round, such as ["equalise", "round"]', _texts),
    "budget": ('what INT8 may lose, such as 0.005, or "task"', _budget),
    "search_minutes": ("a number of minutes", _number),
    "choose": ("true or false", _BOOLEAN),
    "strict": ("true or false", _BOOLEAN),
    "optimization_level": ("a whole number, 0 to 5", _INTEGER),
    "workspace_bytes": ('a whole number, or a size such as "500MB"', _bytes),
    "cache": ("true, false or a path in quotes", _cache),
}
KEYS: Mapping[str, str] = {key: expected for key, (expected, _) in _READERS.items()}
"""What each key of the file is: the parameters of `edgevision.build()`, but for its callback."""


def read_build_file(path: Path) -> dict[str, Any]:
    """Return what a build file says, by the parameters of `edgevision.build()`.

    `classes` may be the path of a class file, and `cache` is true, false or a folder.

    Raises:
        FileReadError: it cannot be read; or names the key, what was found and what was expected.
    """
    given = {}
    for key, value in read_toml(path, "a build file").items():
        try:
            given[key] = _checked(key, value, path.parent)
        except ValueError as error:
            raise FileReadError(f"{path}: {error}") from error
    return given


def read_setting(text: str) -> tuple[str, Any]:
    """Return the key and the value of `KEY=VALUE`; a value is as in a file, or without quotes.

    Raises:
        ValueError: names the key, what was found and what was expected.
    """
    key, equals, written = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text}: expected KEY=VALUE such as optimization_level=5")
    try:
        value = parse_toml(f"value = {written}")["value"]
    except ValueError:
        value = written
    if key in ("keep_fp32", "recover", "targets") and isinstance(value, str):
        value = value.split(",")
    try:
        return key, _checked(key, value, Path())
    except ValueError as error:
        raise ValueError(f"--set {error}") from error


def parse_size(text: str) -> tuple[int, int] | None:
    """Return (height, width) of a text such as "360x480"; None if it is not one."""
    match = _SIZE.fullmatch(text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    return size if min(size) > 0 else None


def _checked(key: str, value: object, folder: Path) -> object:
    if key not in _READERS:
        near = difflib.get_close_matches(key, list(KEYS), n=1)
        meant = f"Did you mean '{near[0]}'? " if near else ""
        raise ValueError(f"{key}: unknown key. {meant}Known: {', '.join(KEYS)}")
    expected, read = _READERS[key]
    try:
        return read(value, folder)
    except ValueError:
        raise ValueError(f"{key}: found {value!r}, expected {expected}") from None

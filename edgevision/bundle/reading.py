"""JSON as a stranger may have written it: bounded values, and typed access that names each miss.

A dataclass is read by the types of its fields, and written the same way back.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from edgevision.bundle.flavours import Flavour, flavour
from edgevision.bundle.printable import UNPRINTABLE, UNPRINTABLE_BUT_LINES

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

_MAX_DEPTH = 32
_MISSING = object()
_T = TypeVar("_T")


def parse(content: str | bytes, *, has_lines: bool = False) -> object:
    """Return what a JSON document holds; how large it may be is its reader's business.

    Args:
        content: the document.
        has_lines: whether its texts may have line breaks and tabs.

    Raises:
        ValueError: it is not JSON, or holds what JSON allows and nobody downstream expects: the
            same key twice, unprintable characters, NaN, integers of more than 64 bits, deep
            nesting.
    """
    try:
        parsed: object = json.loads(content, object_pairs_hook=_object)
        _check(parsed, UNPRINTABLE_BUT_LINES if has_lines else UNPRINTABLE, depth=0)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {_MAX_DEPTH}") from error
    return parsed


class Reader:
    """Typed access to one JSON object; every miss is a ValueError that names its place.

    Args:
        value: the object.
        place: what it is called in errors.
        only: the names that it must have, all of them and no others; None for any.
    """

    def __init__(self, value: object, place: str, *, only: Iterable[str] | None = None) -> None:
        if not isinstance(value, dict):
            # Not a TypeError: it is the file that is wrong, whose bytes are a value.
            raise ValueError(f"{place}: expected an object, got {type(value).__name__}")  # noqa: TRY004
        self.fields = cast(dict[str, object], value)
        self.place = place
        if only is not None and set(self.fields) != (names := set(only)):
            odd = sorted(set(self.fields) ^ names)[0]
            raise ValueError(f"{place}: expected the fields {', '.join(only)}; see '{odd[:64]}'")

    def text(self, key: str) -> str:
        """Return the text of that key."""
        return self._get(key, str)

    def integer(self, key: str) -> int:
        """Return the integer of that key."""
        return self._get(key, int)

    def number(self, key: str) -> float:
        """Return the number of that key, with or without a fraction."""
        return cast(float, self.read(key, float))

    def mapping(self, key: str) -> dict[str, object]:
        """Return the object of that key as it is."""
        return cast(dict[str, object], self._get(key, dict))

    def read(self, key: str, kind: Any) -> Any:
        """Return the value of that key, read as a type says, see `read_fields`."""
        return read_value(kind, self.fields.get(key, _MISSING), f"{self.place}.{key[:64]}")

    def inner(self, key: str) -> Reader:
        """Return the reader of the object of that key."""
        return Reader(self.fields.get(key), f"{self.place}.{key}")

    def _get(self, key: str, kind: type[_T]) -> _T:
        return _of_kind(kind, self.fields.get(key, _MISSING), f"{self.place}.{key[:64]}")


def read_fields(
    kind: Callable[..., _T],
    value: object,
    place: str,
    *,
    optional: Iterable[str] = (),
    exact: bool = False,
) -> _T:
    """Return the dataclass that a JSON object describes, each field read as its type says.

    Types are text, numbers, true or false, enums and flavours by their names, dataclasses, tuples
    and mappings of such, and None beside them.

    Args:
        kind: the dataclass; what it checks itself is checked by that.
        value: the object.
        place: what it is called in errors.
        optional: fields that may be missing, wherever they stand.
        exact: whether fields that it does not have are refused, wherever they stand.

    Raises:
        ValueError: it describes none; names the place.
    """
    found = Reader(value, place, only=_types(kind) if exact else None).fields
    given = {
        name: read_value(type_, found.get(name, _MISSING), f"{place}.{name}", optional, exact)
        for name, type_ in _types(kind).items()
        if name in found or name not in optional
    }
    return kind(**given)


def to_fields(value: Any) -> Any:
    """Return a dataclass as the JSON that `read_fields` reads, what is keyed by names sorted."""
    if isinstance(value, Flavour):
        return value.name
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value):
        return {field.name: to_fields(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_fields(item) for item in value]
    if isinstance(value, Mapping):
        return {name: to_fields(item) for name, item in sorted(value.items())}
    return value


@cache
def _types(kind: Any) -> Mapping[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def read_value(
    kind: Any, value: object, place: str, optional: Iterable[str] = (), exact: bool = False
) -> Any:
    """Return what a type, see `read_fields`, makes of a value.

    Raises:
        ValueError: it is of another type; names the place.
    """
    of, inner = get_origin(kind), get_args(kind)
    if NoneType in inner:  # T | None, or any JSON
        if value is None or len(inner) > 2:
            return value
        return read_value(inner[0], value, place, optional, exact)
    if of is tuple:
        listed = _of_kind(list, value, place)
        kinds = inner[:1] * len(listed) if inner[1:] == (...,) else inner
        if len(kinds) != len(listed):
            raise ValueError(f"{place}: expected {len(kinds)} values, got {len(listed)}")
        pairs = enumerate(zip(kinds, listed, strict=True))
        return tuple(
            read_value(k, item, f"{place}[{i}]", optional, exact) for i, (k, item) in pairs
        )
    if of is not None:
        named = _of_kind(dict, value, place)
        return {
            k: read_value(inner[1], v, f"{place}.{k[:64]}", optional, exact)
            for k, v in named.items()
        }
    if is_dataclass(kind) and kind is not Flavour:
        return read_fields(cast(type[Any], kind), value, place, optional=optional, exact=exact)
    if kind is float and isinstance(value, int):
        return float(_of_kind(int, value, place))
    if kind in (str, int, float, bool, list):
        return _of_kind(kind, value, place)
    text = _of_kind(str, value, place)
    return flavour(text) if kind is Flavour else kind(text)


def _of_kind(kind: type[_T], value: object, place: str) -> _T:
    # bool is an int to isinstance, but not in JSON.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        found = "nothing" if value is _MISSING else type(value).__name__
        raise ValueError(f"{place}: expected {kind.__name__}, got {found}")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same key twice")
    return fields


def _check(value: object, unprintable: re.Pattern[str], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested deeper than {_MAX_DEPTH}")
    if isinstance(value, str) and unprintable.search(value):
        raise ValueError(f"unprintable characters in {value[:80]!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a number")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise ValueError("an integer of more than 64 bits")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check(key, unprintable, depth + 1)
            _check(inner, unprintable, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, unprintable, depth + 1)

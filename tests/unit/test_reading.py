"""JSON of a stranger: what is refused whole, and that each miss names its place."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.bundle.reading import Reader, parse, read_value
from edgevision.bundle.record import Choice, EngineFile

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expecting value"),
        (b"\xff", "can't decode"),
        ('{"a": 1, "a": 2}', "the same key twice"),
        ('{"a\\u001b[2J": 1}', r"unprintable characters in 'a\\x1b\[2J'"),
        ('["\\ud800"]', "unprintable characters"),
        ("[NaN]", "nan is not a number"),
        ("[1e999]", "inf is not a number"),
        (f"[{1 << 63}]", "more than 64 bits"),
        ("[" * 40 + "]" * 40, "nested deeper than 32"),
        ("[" * 100_000, "nested deeper than 32"),
        (f"[{'9' * 10_000}]", "limit|64 bits"),
    ],
)
def test_what_nobody_expects_is_refused_whole(content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(content)


def test_lines_are_read_where_they_are_expected() -> None:
    assert parse('["a\\n\\tb"]', has_lines=True) == ["a\n\tb"]
    with pytest.raises(ValueError, match="unprintable"):
        parse('["a\\rb"]', has_lines=True)


@given(VALUES)
def test_whatever_is_written_is_read_as_it_was_or_refused(value: object) -> None:
    try:
        parsed = parse(json.dumps(value))
    except ValueError:
        return
    assert parsed == value


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda r: r.text("n"), r"^it\.n: expected str, got int$"),
        (lambda r: r.text("gone"), r"^it\.gone: expected str, got nothing$"),
        (lambda r: r.integer("yes"), r"^it\.yes: expected int, got bool$"),
        (lambda r: r.number("yes"), r"^it\.yes: expected int, got bool$"),
        (lambda r: r.read("n", bool), r"^it\.n: expected bool, got int$"),
        (lambda r: r.read("list", tuple[str, ...]), r"^it\.list\[1\]: expected str, got int$"),
        (lambda r: r.read("list", tuple[str]), r"^it\.list: expected 1 values, got 2$"),
        (lambda r: r.read("inner", dict[str, float]), r"^it\.inner\.b: expected float, got str$"),
        (lambda r: r.inner("n"), r"^it\.n: expected an object, got int$"),
        (lambda r: Reader(r.fields, "it", only=["n"]), r"^it: expected the fields n; see 'inner'$"),
    ],
)
def test_each_miss_names_its_place(read: Callable[[Reader], object], message: str) -> None:
    told = {"n": 1, "yes": True, "list": ["a", 2], "inner": {"a": 1, "b": "2"}}
    with pytest.raises(ValueError, match=message):
        read(Reader(told, "it"))


@pytest.mark.parametrize("place", ["stages", "choice"])
def test_a_record_with_a_field_that_nobody_wrote_is_refused_wherever_it_stands(place: str) -> None:
    files: list[dict[str, object]] = [
        {"name": "main", "file": "a.plan", "sha256": "0", "size_bytes": 1, "seconds": 1.0,
         "layers": None}
    ]  # fmt: skip
    choice: dict[str, object] = {"precision": "fp16", "reason": "", "verdict": "", "figures": {}}
    kinds = {"stages": tuple[EngineFile, ...], "choice": Choice}
    values: dict[str, object] = {"stages": files, "choice": choice}
    assert read_value(kinds[place], values[place], "record", exact=True)
    changed = {"stages": [{**files[0], "extra": 1}], "choice": {**choice, "extra": 1}}
    with pytest.raises(ValueError, match="extra"):
        read_value(kinds[place], changed[place], "record", exact=True)
    assert read_value(kinds[place], changed[place], "record")

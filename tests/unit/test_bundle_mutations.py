"""2,000 random changes of a bundle: each is refused as a BundleError, or does no harm."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgevision.bundle.directory import GOLDEN, MANIFEST, Bundle
from edgevision.bundle.manifest import Manifest
from edgevision.errors import BundleError
from tests.parts.two_stages import FILES, contents, relist

HOSTILE = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**50, 0.5, -0.0, 1e308, float("nan"),
        float("inf"), "", ".", "..", "/", "../x", "/etc/passwd", "a/../b", "a//b", "\0", "\ud800",
        "\x1b[31m", "\u202e", "x" * 300, "1", "object", "float64", [], {}, [[]], [None], {"": {}},
        [1, 2, 3, 4, 5, 6, 7, 8, 9], "stages/encoder/model.onnx", GOLDEN, MANIFEST,
    ]
)  # fmt: skip

BYTE_EDIT = st.tuples(
    st.sampled_from([*FILES, GOLDEN, GOLDEN, GOLDEN, MANIFEST]),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["flip", "truncate", "insert", "delete", "overwrite", "empty"]),
    st.binary(min_size=1, max_size=8),
)
FIELD_EDIT = st.tuples(
    st.integers(0, 10_000), st.sampled_from(["drop", "set", "twice", "rename"]), HOSTILE
)


def _edit_bytes(data: bytes, where: float, edit: str, new: bytes) -> bytes:
    at = int(where * len(data))
    rest = data[at:]
    changed = {
        "flip": bytes([rest[0] ^ (1 << new[0] % 8)]) + rest[1:] if rest else b"",
        "truncate": b"",
        "insert": new + rest,
        "delete": rest[len(new) :],
        "overwrite": new + rest[len(new) :],
    }
    return b"" if edit == "empty" else data[:at] + changed[edit]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Give each (container, key) of a JSON value, outer ones first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(inner):
        yield value, key
        if isinstance(part, dict | list):
            yield from _places(part)


def _edit_field(fields: Any, index: int, edit: str, new: object) -> None:
    places = list(_places(fields))
    if not places:
        return
    container, key = places[index % len(places)]
    if edit == "set":
        container[key] = copy.deepcopy(new)
    elif edit == "drop":
        del container[key]
    elif isinstance(container, list):
        container.append(copy.deepcopy(container[key]))
    elif edit == "rename" and isinstance(new, str):
        container[new] = container.pop(key)


@pytest.mark.timeout(300)  # half a minute where nothing else runs
@settings(max_examples=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(BYTE_EDIT, max_size=2),
    st.lists(FIELD_EDIT, max_size=3),
    st.booleans(),
)
@example([(GOLDEN, 0.999, "truncate", b"x")], [], True)
@example([(GOLDEN, 0.9103315149232433, "overwrite", b"\0\0\0\0\0`")], [], True)
@example([(MANIFEST, 0.5, "empty", b"x")], [], False)
def test_a_changed_bundle_is_refused_or_harmless(
    good_bundle: Path,
    byte_edits: list[tuple[str, float, str, bytes]],
    field_edits: list[tuple[int, str, object]],
    rehashed: bool,
) -> None:
    files = contents(good_bundle)
    before = dict(files)
    for name, where, edit, new in byte_edits:
        files[name] = _edit_bytes(files[name], where, edit, new)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        if files[MANIFEST] == before[MANIFEST]:
            if rehashed:
                relist(root)
            fields = json.loads((root / MANIFEST).read_bytes())
            for index, kind, value in field_edits:
                _edit_field(fields, index, kind, value)
            (root / MANIFEST).write_text(json.dumps(fields))
        problem = _use(root)
    if problem is not None:
        assert str(problem).isprintable()


def _use(root: Path) -> BundleError | None:
    """Open and read everything; return what it was refused for."""
    try:
        bundle = Bundle.open(root)
        found = {name: data for name, data in contents(root).items() if name != MANIFEST}
        assert {e.path: bundle.read(e.path) for e in bundle.manifest.files} == found
        assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest
        for stage in bundle.manifest.stages:
            inputs, outputs = bundle.golden(stage.name)
            samples = len(next(iter(inputs.values())))
            for spec in (*stage.inputs, *stage.outputs):
                array = (inputs | outputs)[spec.name]
                assert array.dtype == spec.dtype.numpy
                assert len(array) == samples > 0
                assert spec.accepts(array.shape[1:])
    except BundleError as error:
        return error
    return None

"""Manifests: what is written is read, and every wrong field is refused by its name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.bundle.flavours import flavours
from edgevision.bundle.manifest import SCHEMA, Artifact, FileEntry, Manifest, Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import DYNAMIC, DType, ShapeProfile, TensorSpec
from edgevision.errors import BundleFormatError
from tests.parts.two_stages import STAGES

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
PATHS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,9}(/[a-z0-9][a-z0-9._-]{0,9}){0,3}", fullmatch=True)
SHA256 = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
# What a manifest may hold: no control characters, no reversed text, no half characters.
TEXT = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\u2066\u2067")
    .filter(lambda c: not "\u2028" <= c <= "\u202e" and not "\u2066" <= c <= "\u2069"),
    max_size=12,
)  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
EXTENTS = st.integers(1, 2**31 - 1)


@st.composite
def profiles(draw: st.DrawFn) -> tuple[tuple[int, ...], ShapeProfile | None]:
    """A shape, and the profile that it needs."""
    shape = tuple(draw(st.lists(EXTENTS | st.just(DYNAMIC), max_size=4)))
    if DYNAMIC not in shape:
        return shape, None
    corners = [sorted(draw(st.tuples(EXTENTS, EXTENTS, EXTENTS))) for _ in shape]
    low, mid, high = (
        tuple(c[i] if d == DYNAMIC else d for d, c in zip(shape, corners, strict=True))
        for i in range(3)
    )
    return shape, ShapeProfile(low, mid, high)


@st.composite
def stages(draw: st.DrawFn, name: str, paths: list[str]) -> Stage:
    tensors = draw(st.lists(TEXT.filter(len), min_size=2, max_size=4, unique=True))
    cut = draw(st.integers(1, len(tensors) - 1))
    dtypes = st.sampled_from(DType)
    inputs, bounds = [], {}
    for tensor in tensors[:cut]:
        shape, profile = draw(profiles())
        inputs.append(TensorSpec(tensor, draw(dtypes), shape))
        if profile is not None:
            bounds[tensor] = profile
    outputs = [TensorSpec(t, draw(dtypes), draw(profiles())[0]) for t in tensors[cut:]]
    built = st.builds(
        Artifact,
        target=NAMES,
        flavour=st.sampled_from(flavours()),
        path=st.sampled_from(paths),
        version=TEXT,
        sm=st.lists(TEXT, max_size=2).map(tuple),
    )
    pending = st.builds(
        Artifact,
        target=NAMES,
        flavour=st.sampled_from(flavours()),
        path=st.none(),
        reason=TEXT,
        command=TEXT.filter(len),
    )
    artifacts = st.lists(built | pending, max_size=3, unique_by=lambda a: a.target)
    return Stage(
        name=name,
        graph=draw(st.sampled_from(paths)),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        tolerances={
            spec.name: draw(st.builds(Tolerance, st.floats(0, 1e30), st.floats(0, 1)))
            for spec in outputs
        },
        profiles=bounds,
        artifacts=tuple(draw(artifacts)),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    allowed = PATHS.filter(lambda path: path != "manifest.json")
    paths = draw(st.lists(allowed, min_size=1, max_size=4, unique=True))
    names = draw(st.lists(NAMES, min_size=1, max_size=2, unique=True))
    return Manifest(
        name=draw(NAMES),
        task=draw(NAMES),
        precision=draw(NAMES),
        settings=draw(st.dictionaries(TEXT, JSON, max_size=3)),
        stages=tuple(draw(stages(name, paths)) for name in names),
        files=tuple(FileEntry(p, draw(st.integers(0, 2**32)), draw(SHA256)) for p in paths),
        provenance=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
    )


@given(manifests())
def test_what_is_written_is_read(manifest: Manifest) -> None:
    text = manifest.to_json()
    assert Manifest.from_json(text) == manifest
    assert Manifest.from_json(text).to_json() == text
    assert json.loads(text)["schema"] == SCHEMA


@given(st.text() | JSON.map(json.dumps))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(BundleFormatError, match=r"^manifest"):
        Manifest.from_json(text)


def _good() -> Any:
    files = tuple(
        FileEntry(path, 1, "0" * 64)
        for path in ("stages/encoder/model.onnx", "stages/encoder/host-cpu.onnx",
                     "stages/decoder/model.onnx")
    )  # fmt: skip
    return json.loads(Manifest("tiny", "semantic", "fp32", {}, STAGES, files).to_json())


def _required(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of the manifest with a field of its own, that is, no user's keys."""
    found = []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        here = (*place, key)
        if isinstance(key, str) and place[-1:] != ("profiles",):
            found.append(here)
        if isinstance(inner, dict | list):
            found += _required(inner, here)
    return found


MISSING = object()
WRONG = [MISSING, {"a": 1}, [None], "\N{SNOWMAN}" * 300, True, -5, 1.5]


def _allowed(place: tuple[Any, ...], wrong: Any) -> bool:
    if isinstance(wrong, str):
        tensor_name = place[-1] == "name" and place[-3:-2] in (("inputs",), ("outputs",))
        return tensor_name or place[-1] in ("command", "reason", "version")
    if wrong is MISSING:
        return place == ("stages", 0, "artifacts", 1, "path")  # It is pending.
    return (place == ("settings",) and isinstance(wrong, dict)) or (
        place[-1] == "max_abs" and wrong == 1.5
    )


WRONG_FIELDS = [
    (place, wrong) for place in _required(_good()) for wrong in WRONG if not _allowed(place, wrong)
]


@pytest.mark.parametrize(("place", "wrong"), WRONG_FIELDS)
def test_every_field_is_needed_and_typed(place: tuple[Any, ...], wrong: Any) -> None:
    fields = inner = _good()
    for key in place[:-1]:
        inner = inner[key]
    if wrong is MISSING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = wrong
    with pytest.raises(BundleFormatError) as refused:
        Manifest.from_json(json.dumps(fields))
    assert len(str(refused.value)) < 700


def test_a_manifest_of_a_newer_edgevision_says_what_to_do() -> None:
    text = json.dumps(_good() | {"schema": SCHEMA + 1, "stages": "in another form"})
    with pytest.raises(BundleFormatError, match="Install the edgevision that made the bundle"):
        Manifest.from_json(text)


def test_an_artifact_of_an_unknown_flavour_says_what_to_do() -> None:
    fields = _good()
    fields["stages"][0]["artifacts"][0]["flavour"] = "qnn"
    with pytest.raises(BundleFormatError, match=r"flavour: got 'qnn'.*install a newer edgevision"):
        Manifest.from_json(json.dumps(fields))


def test_a_stage_may_share_a_graph_and_names_its_own_errors() -> None:
    fields = _good()
    fields["stages"][1]["inputs"][0]["shape"] = [-1, "2"]
    with pytest.raises(BundleFormatError, match=r"stages\[1\]\.inputs\[0\]\.shape\[1\]: expected"):
        Manifest.from_json(json.dumps(fields))


def test_pending_artifacts_are_told_apart() -> None:
    built, pending = STAGES[0].artifacts
    assert not built.is_pending
    assert pending.is_pending


def test_used_paths_are_graphs_and_artifacts() -> None:
    manifest = Manifest("tiny", "semantic", "fp32", {}, STAGES, ())
    assert manifest.used_paths() == [
        "stages/encoder/model.onnx",
        "stages/encoder/host-cpu.onnx",
        "stages/decoder/model.onnx",
    ]


@pytest.mark.parametrize("field", ["name", "task", "precision"])
@pytest.mark.parametrize("text", ["", "-x", "a b", "a/b", "x" * 65, "\n"])
def test_names_are_short_and_plain(field: str, text: str) -> None:
    values = {"name": "tiny", "task": "semantic", "precision": "fp32"} | {field: text}
    with pytest.raises(BundleFormatError, match=f"manifest: bad {field}"):
        Manifest(**values, settings={}, stages=STAGES, files=())


@pytest.mark.parametrize("tolerances", [{}, {"x": Tolerance()}])
def test_a_stage_is_compared_by_its_own_outputs(tolerances: dict[str, Tolerance]) -> None:
    with pytest.raises(BundleFormatError, match="expected some of its outputs"):
        replace(STAGES[1], tolerances=tolerances)

"""Bundles of every schema that was ever released are read, verified and run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edgevision
from edgevision.bundle import migrations
from edgevision.bundle.directory import Bundle
from edgevision.bundle.manifest import Manifest
from edgevision.errors import BundleFormatError

KEPT = Path(__file__).parents[1] / "data" / "bundles"


def test_every_schema_has_a_bundle_and_a_step() -> None:
    schemas = range(1, migrations.SCHEMA + 1)
    assert sorted(path.name for path in KEPT.iterdir()) == [f"schema-{n}" for n in schemas]
    assert set(migrations.STEPS) == set(range(1, migrations.SCHEMA))


@pytest.mark.parametrize("path", sorted(KEPT.iterdir()), ids=lambda path: path.name)
def test_a_kept_bundle_opens_with_its_proof(path: Path) -> None:
    bundle = Bundle.open(path)
    assert bundle.manifest.task == "semantic"
    inputs, outputs = bundle.golden("main")
    np.testing.assert_array_equal(inputs["frame"].argmax(-1), outputs["classes"])


def test_a_step_is_taken_from_each_older_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(fields: migrations.Fields) -> migrations.Fields:
        return {**fields, "name": f"{fields['name']}-moved"}

    monkeypatch.setattr(migrations, "SCHEMA", 3)
    monkeypatch.setattr(migrations, "STEPS", {1: renamed, 2: renamed})
    text = (KEPT / "schema-1" / "manifest.json").read_text()
    assert Manifest.from_json(text).name == "tiny-moved-moved"
    assert Manifest.from_json(text.replace('"schema": 1', '"schema": 2')).name == "tiny-moved"


@pytest.mark.parametrize("schema", [0, -1, migrations.SCHEMA + 1, 10**9])
def test_a_schema_that_is_not_known_is_refused(schema: int) -> None:
    fields = json.loads((KEPT / "schema-1" / "manifest.json").read_text())
    with pytest.raises(BundleFormatError, match=f"schema {schema}, this edgevision reads 1 to"):
        Manifest.from_json(json.dumps({**fields, "schema": schema}))


def test_what_is_promised_is_there() -> None:
    page = (KEPT.parents[2] / "docs" / "stability.md").read_text()
    assert f"says its schema, now {migrations.SCHEMA}" in page
    assert all(hasattr(edgevision, name) for name in edgevision.__all__)

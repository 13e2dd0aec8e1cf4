"""`finish` on the command line, and `build BUNDLE`, which is its alias for one release."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import edgevision
from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Artifact
from tests.parts.shell import Call
from tests.parts.tiny_bundles import semantic_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return semantic_bundle(tmp_path / "road.ev").root


def test_finish_proves_an_engine(call: Call, bundle: Path) -> None:
    done = call("finish", bundle, "--target", "local-cpu")
    assert "proven on" in done.out
    assert done.err == ""
    again = call("finish", bundle, "--target", "local-cpu", "--json").json
    assert again["finished"]["local-cpu"]["record"]["passed"]


def test_build_of_a_bundle_says_that_it_is_finish_now(call: Call, tmp_path: Path) -> None:
    # What bundles made before recorded, and units and scripts still type.
    old = Artifact("local-cpu", ORT, None, reason="bound to its machine",
                   command="edgevision build road.ev --target local-cpu")  # fmt: skip
    bundle = semantic_bundle(tmp_path / "road.ev", artifacts=(old,)).root
    done = call("build", bundle, "--target", "local-cpu", "--engines", tmp_path / "e", "--json")
    assert done.json["finished"]["local-cpu"]["record"]["passed"]
    assert f"is now: edgevision finish {bundle} --target local-cpu" in done.err
    shutil.move(bundle, tmp_path / "plain")
    assert "is now" in call("build", tmp_path / "plain", "--target", "local-cpu").err
    assert "--target is required" in call("build", tmp_path / "plain", code=2).err


def test_the_alias_is_removed_when_it_is_due() -> None:
    release = tuple(map(int, edgevision.__version__.split(".")[:2]))
    assert release < (0, 3), (
        "remove _finish_instead of cli/build.py, and --engines and --lean there"
    )


def test_what_is_for_a_model_is_refused_for_a_bundle(call: Call, bundle: Path) -> None:
    done = call("build", bundle, "--size", "32x48", "--out", "b.ev", "--target", "rtx", code=2)
    assert "--out, --size: " in done.err
    assert "is a bundle already" in done.err
    done = call("finish", bundle, "--target", "rtx", "--set", "method=minmax", code=2)
    assert "--set method: the bundle's graph has it already" in done.err
    assert (
        "are for a bundle: edgevision finish" in call("build", "gan-digits", "--lean", code=2).err
    )


def test_a_folder_of_a_nets_name_turns_no_build_into_a_finish(
    call: Call, project: Path, tmp_path: Path
) -> None:
    (project / "gan-digits").mkdir()
    (project / "gan-digits" / "notes.txt").write_text("of the last training")
    assert "Give --out NAME.ev" in call("build", "gan-digits", code=2).err
    # Not even a bundle: with --out it can only be the net.
    (project / "gan-digits" / "manifest.json").write_text("{}")
    call("build", "gan-digits", "--out", tmp_path / "made.ev")
    assert json.loads((tmp_path / "made.ev" / "manifest.json").read_text())["task"] == "generated"
    shutil.rmtree(project / "gan-digits")


def test_settings_reach_the_builder(call: Call, bundle: Path) -> None:
    done = call("finish", bundle, "--target", "host-cpu", "--set", "workspace_bytes=1GB", code=2)
    assert "workspace_bytes: only TensorRT's builder has it" in done.err
    done = call("finish", bundle, "--target", "local-cpu", "--set", "optimization_level=9", code=2)
    assert "optimization_level: got 9, expected a whole number, 0 (quick) to 5" in done.err
    assert not call("finish", bundle, "--target", "local-cpu", "--no-cache", "--json").json[
        "finished"
    ]["local-cpu"]["cached"]

"""The table of targets is sound, and a wrong name is answered helpfully."""

from __future__ import annotations

import re

import pytest

from edgevision.errors import BundleFormatError
from edgevision.manifest import Artifact
from edgevision.targets import Flavour, TargetProfile, get_target, known_targets

TARGETS = known_targets()


def test_names_are_unique_and_found() -> None:
    assert len({target.name for target in TARGETS}) == len(TARGETS)
    for target in TARGETS:
        assert get_target(target.name) is target


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_target_says_what_it_needs(target: TargetProfile) -> None:
    assert target.title
    assert target.notes
    assert all(re.fullmatch(r"\d+\.\d", sm) for sm in target.sm)
    if target.flavour is Flavour.ORT:
        assert target.versions is None
    else:
        assert target.versions is not None
        first, last = (tuple(map(int, version.split("."))) for version in target.versions)
        assert first <= last
    try:
        Artifact(target.name, target.flavour, "stages/main/engine")
    except BundleFormatError as error:
        raise AssertionError("a manifest refuses the target's name") from error


def test_only_engines_bound_to_a_gpu_need_it_to_be_built() -> None:
    bound = {target.name for target in TARGETS if not target.built_here}
    assert bound == {target.name for target in TARGETS if target.flavour is Flavour.TRT}


@pytest.mark.parametrize(
    ("name", "near"), [("host_cpu", "host-cpu"), ("jetson-orin-jp8", "jetson-orin-jp")]
)
def test_a_misspelt_name_is_put_right(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"unknown target '{name}'. Did you mean '{near}"):
        get_target(name)


def test_a_strange_name_gets_the_list() -> None:
    with pytest.raises(ValueError, match=r"unknown target '\?'\. Known: host-cpu, rtx, jetson"):
        get_target("?")

"""The table of targets is valid, and a wrong name is answered helpfully."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from edgevision.bundle.capabilities import can_run_plan, dla_reason, dtype_reason
from edgevision.bundle.flavours import TRT
from edgevision.bundle.manifest import Artifact
from edgevision.bundle.targets import (
    TargetProfile,
    get_target,
    known_targets,
    target_from_file,
)
from edgevision.errors import BundleFormatError, FileReadError

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
    if not target.flavour.on_gpu:
        assert target.versions is None
    else:
        assert target.versions is not None
        first, last = (tuple(map(int, version.split("."))) for version in target.versions)
        assert first <= last
    try:
        Artifact(target.name, target.flavour, "stages/main/engine")
    except BundleFormatError as error:
        raise AssertionError("a manifest refuses the target's name") from error


def test_only_engines_bound_to_a_machine_need_it_to_be_built() -> None:
    bound = {target.name for target in TARGETS if not target.portable}
    full = {target.name for target in TARGETS if target.flavour is TRT}
    assert bound == full | {"local-cpu"}


def test_everything_but_this_machine_says_where_it_was_read() -> None:
    for target in TARGETS:
        assert target.source
        if target.flavour is TRT and target.name != "local":
            assert target.sm
            assert target.memory_bytes or target.name == "drive-thor"


# TensorRT's DLA pages: 10.7 is the last 10.x, 11.4.1 brings it back on AGX Orin alone.
@pytest.mark.parametrize(
    ("name", "has_dla"),
    [
        ("jetson-agx-orin-jp6", True), ("jetson-orin-nx-jp6", True),
        ("jetson-orin-nano-jp6", False),
        ("jetson-agx-orin-jp7", True), ("jetson-orin-nx-jp7", False), ("jetson-thor", False),
        ("h100", False),
    ],
)  # fmt: skip
def test_a_dla_is_where_the_module_and_tensorrt_have_one(name: str, has_dla: bool) -> None:
    assert (get_target(name).no_dla == "") is has_dla


@pytest.mark.parametrize(
    ("version", "has_dla"),
    [
        ("10.2", False), ("10.3", True), ("10.3.0", True), ("10.7.1", True), ("10.8", False),
        ("10.16.1", False), ("11.0", False), ("11.3.0", False), ("11.4.0", False), ("11.4.1", True),
        ("11.4", True), ("11.5", True), ("12.0", True),
    ],
)  # fmt: skip
def test_which_tensorrt_has_a_dla(version: str, has_dla: bool) -> None:
    assert (dla_reason("8.7", version) == "") is has_dla
    assert "only Orin" in dla_reason("11.0", version)


@pytest.mark.parametrize(
    ("built", "here", "plain", "compatible"),
    [
        ("10.3.0", "10.3.0", True, True), ("10.3.0", "10.3.1", False, True),
        ("10.3.0", "10.16.1", False, True), ("10.16.1", "10.3.0", False, False),
        ("8.6.2", "10.3.0", False, True), ("8.6.2", "11.4.0", False, False),
        ("10.3.0", "11.4.0", False, True), ("11.4.0", "10.16.1", False, False),
        ("10.3.0.26", "10.3.0.30", True, True),
    ],
)  # fmt: skip
def test_which_tensorrt_runs_a_plan(built: str, here: str, plain: bool, compatible: bool) -> None:
    assert can_run_plan(built, here, version_compatible=False) is plain
    assert can_run_plan(built, here, version_compatible=True) is compatible


@pytest.mark.parametrize(
    ("dtype", "sm", "version", "why"),
    [
        ("fp16", "8.7", "10.3", ""), ("int8", "8.7", "10.3", ""), ("bf16", "8.7", "10.3", ""),
        ("bf16", "7.5", "10.3", "needs SM 8.0"), ("fp8", "8.7", "10.3", "needs SM 8.9"),
        ("fp8", "8.9", "10.3", ""), ("fp4", "11.0", "10.3", "needs TensorRT 10.9"),
        ("fp4", "11.0", "10.13", ""),
    ],
)  # fmt: skip
def test_which_types_a_gpu_takes(dtype: str, sm: str, version: str, why: str) -> None:
    assert why in dtype_reason(dtype, sm, version)
    assert bool(why) == bool(dtype_reason(dtype, sm, version))


BOARD = """
name = "our-board"
title = "our carrier board"
flavour = "trt"
versions = ["10.3", "10.7"]
sm = ["8.7"]
memory_bytes = 16000000000
dla_cores = 2
"""


def test_a_file_describes_a_target(tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    file.write_text(BOARD)
    target = get_target(str(file))
    assert (target.name, target.flavour, target.sm) == ("our-board", TRT, ("8.7",))
    assert target.versions == ("10.3", "10.7")
    assert not target.portable
    assert target.no_dla == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("sm =", "smm ="), "unknown field 'smm'. Did you mean 'sm'?"),
        (('"8.7"', "8.7"), r"sm: got \[8.7\], expected a list of strings"),
        (('"8.7"', '"87"'), r"sm: got \['87'\], expected compute capabilities such as '8.7'"),
        (('"10.3", ', ""), "versions: got .*expected the first and the last"),
        (('"10.3"', '"ten"'), "versions: got .*expected two such as '10.3'"),
        (('"trt"', '"tensorrt"'), "flavour: got 'tensorrt', expected ort, trt, trt_rtx"),
        (("16000000000", '"16 GB"'), "memory_bytes: got '16 GB', expected int"),
        (("16000000000", "-1"), "memory_bytes: got -1, expected 0 to 9007199254740992"),
        (("our-board", "Our Board"), "name: got 'Our Board', expected small letters"),
        (("our-board", "h100"), "'h100' is a known target's; choose another"),
        (('title = "our carrier board"', ""), "'title' is missing"),
        (("our-board", r"\u001b[2J"), r"name: got '\\x1b\[2J', expected small letters"),
        (("our carrier board", r"a\u001bb"), r"title: unprintable characters in 'a\\x1bb'"),
        (('"trt"', r'"\u001b"'), r"flavour: got '\\x1b', expected"),
        (("sm =", r'"\u001b" ='), r"unknown field '\\x1b'"),
        (("=", "=="), "is not a TOML file"),
    ],
)
def test_a_file_that_describes_none_names_the_field(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    file = tmp_path / "board.toml"
    file.write_text(BOARD.replace(*change))
    with pytest.raises(FileReadError, match=message):
        get_target(str(file))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.toml", tmp_path):
        with pytest.raises(FileReadError, match="cannot be read"):
            target_from_file(path)
    os.mkfifo(tmp_path / "fifo.toml")
    with pytest.raises(FileReadError, match="cannot be read as a target file: it is not a regular"):
        target_from_file(tmp_path / "fifo.toml")
    nested = tmp_path / "nested.toml"
    nested.write_text("a = " + "[" * 30_000)
    with pytest.raises(FileReadError, match="is not a TOML file"):
        target_from_file(nested)
    nested.write_text(BOARD.replace("16000000000", "9" * 4000))
    with pytest.raises(FileReadError, match=r"memory_bytes: got 9{40}, expected 0 to"):
        target_from_file(nested)
    file = tmp_path / "huge.toml"
    file.write_text("#" * 100_000)
    with pytest.raises(FileReadError, match="is larger than 65536 bytes"):
        target_from_file(file)


@pytest.mark.parametrize(
    ("name", "near"), [("host_cpu", "host-cpu"), ("jetson-orin-jp8", "jetson-orin-jp")]
)
def test_a_misspelt_name_is_put_right(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"unknown target '{name}'. Did you mean '{near}"):
        get_target(name)


def test_a_strange_name_gets_the_list() -> None:
    with pytest.raises(ValueError, match=r"unknown target '\?'\. Known: host-cpu, local-cpu, "):
        get_target("?")


def test_the_former_name_of_portable_is_still_read_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text('name = "board"\ntitle = "A board"\nflavour = "ort"\nbuilt_here = true\n')
    with pytest.warns(DeprecationWarning, match="now 'portable'"):
        assert target_from_file(path).portable

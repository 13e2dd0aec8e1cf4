"""The file that `edgevision build` takes: every argument of `build()`, checked by key."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

import edgevision
from edgevision.bundle.tensors import ShapeProfile
from edgevision.cli.build_file import KEYS, read_build_file, read_setting
from edgevision.errors import FileReadError
from tests.parts.shell import Call

PAGE = Path(__file__).parents[2] / "docs" / "build-file.md"
WHOLE = """
source = "nets:net"
out = "road.ev"
task = "semantic"
weights = "net.pt"
size = [32, 48]
classes = ["road", "sky", ["person", "#ff0000"]]
camera = {size = [48, 96], pixel_format = "nv12", fit = "crop", region = [0, 0, 32, 48]}
cameras = [1, 6]
mean = [0.5, 0.5, 0]
std = [1, 1, 0.5]
precision = "int8"
calibration = "frames"
evaluate = "/data/val"
label_map = { 0 = 0, "#800000" = "road" }
ignore_index = 7
metric = "scores:far"
samples = "inputs"
ranges = { ids = [0, 29999] }
shapes = { x = "1x8:2x8:4x8" }
targets = ["host-cpu", "rtx", "board.toml"]
keep_fp32 = ["Softmax", "node_conv2d"]
method = "entropy"
recover = ["correct"]
budget = 0.005
search_minutes = 30
choose = true
strict = true
optimization_level = 3
workspace_bytes = "500MB"
cache = false
"""


def written(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "road.toml"
    path.write_text(text)
    return path


def test_the_keys_are_what_build_takes() -> None:
    # Progress is a function, and nothing that a file could hold.
    assert set(KEYS) == set(inspect.signature(edgevision.build).parameters) - {"progress"}


def test_every_key_arrives_and_paths_are_beside_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "nets"
    found = read_build_file(written(folder, WHOLE))
    assert found == {
        "source": "nets:net",
        "out": folder / "road.ev",
        "task": "semantic",
        "weights": folder / "net.pt",
        "size": (32, 48),
        "classes": ["road", "sky", ("person", "#ff0000")],
        "camera": {
            "size": (48, 96),
            "pixel_format": "nv12",
            "fit": "crop",
            "region": (0, 0, 32, 48),
        },
        "cameras": (1, 6),
        "mean": [0.5, 0.5, 0.0],
        "std": [1.0, 1.0, 0.5],
        "precision": "int8",
        "calibration": folder / "frames",
        "evaluate": Path("/data/val"),
        "samples": folder / "inputs",
        "ranges": {"ids": (0, 29999)},
        "shapes": {"x": ShapeProfile((1, 8), (2, 8), (4, 8))},
        "targets": ["host-cpu", "rtx", str(folder / "board.toml")],
        "keep_fp32": ["Softmax", "node_conv2d"],
        "label_map": {"0": 0, "#800000": "road"},
        "ignore_index": 7,
        "metric": "scores:far",
        "method": "entropy",
        "recover": ["correct"],
        "budget": 0.005,
        "search_minutes": 30.0,
        "choose": True,
        "strict": True,
        "optimization_level": 3,
        "workspace_bytes": 500_000_000,
        "cache": False,
    }
    assert set(found) == set(KEYS), "a key was added and this test does not know it"
    inspect.signature(edgevision.build).bind(**found)


def test_the_page_shows_a_file_that_is_taken_and_every_key(tmp_path: Path) -> None:
    text = PAGE.read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(read_build_file(written(tmp_path, example))) == example.count(" = ")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(KEYS)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('source = "net.onnx"', "{folder}/net.onnx"),
        ('size = "32x48"', (32, 48)),
        ('classes = "classes.txt"', "{folder}/classes.txt"),
        ("workspace_bytes = 1_000_000", 1_000_000),
        ("cache = true", True),
        ('cache = "engines"', "{folder}/engines"),
    ],
)
def test_other_ways_to_say_it(tmp_path: Path, line: str, found: object) -> None:
    (value,) = read_build_file(written(tmp_path, line)).values()
    wanted = found.format(folder=tmp_path) if isinstance(found, str) else found
    assert (str(value) if isinstance(value, Path) else value) == wanted


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('presicion = "int8"', "presicion: unknown key. Did you mean 'precision'"),
        ("progress = true", "progress: unknown key"),
        ("precision = 8", "precision: found 8, expected one of fp32, fp16, int8"),
        ('precision = "int4"', "precision: found 'int4', expected one of fp32, fp16, int8"),
        ("size = [32]", r"size: found \[32\], expected height and width"),
        ("size = [0, 48]", r"size: found \[0, 48\], expected height and width"),
        ('size = "32"', "size: found '32', expected height and width"),
        ('targets = "rtx"', r"targets: found 'rtx', expected names such as \[\"host-cpu\""),
        ('keep_fp32 = "Softmax"', "keep_fp32: found 'Softmax', expected op types or node names"),
        ("keep_fp32 = [1]", r"keep_fp32: found \[1\], expected"),
        ("classes = []", r"classes: found \[\], expected names such as"),
        ('classes = [["a", "b", "c"]]', "classes: found .*, expected names such as"),
        ("weights = 1", "weights: found 1, expected a path in quotes"),
        ('out = ""', "out: found '', expected the bundle's path"),
        ("optimization_level = true", "optimization_level: found True, expected a whole number"),
        ("workspace_bytes = 1.5", "workspace_bytes: found 1.5, expected a whole number"),
        ('workspace_bytes = "much"', "workspace_bytes: found 'much', expected a whole number"),
        ("cache = 1", "cache: found 1, expected true, false or a path"),
        ("source", "is not a TOML file"),
        ("# " + "x" * 70_000, "cannot be read as a build file: it is larger than 65536 bytes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(FileReadError, match=message) as caught:
        read_build_file(written(tmp_path, line))
    assert "road.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("method=entropy", ("method", "entropy")),
        ("optimization_level=5", ("optimization_level", 5)),
        ("recover=correct,round", ("recover", ["correct", "round"])),
        ("recover=[]", ("recover", [])),
        ("workspace_bytes=2GB", ("workspace_bytes", 2_000_000_000)),
        ("keep_fp32=Softmax,Exp", ("keep_fp32", ["Softmax", "Exp"])),
        ('keep_fp32=["Softmax"]', ("keep_fp32", ["Softmax"])),
        ("size=32x48", ("size", (32, 48))),
        ("cache=false", ("cache", False)),
        ("ignore_index=0", ("ignore_index", 0)),
        ("weights=net=1.pt", ("weights", Path("net=1.pt"))),
    ],
)
def test_a_setting_needs_no_quotes(setting: str, wanted: tuple[str, Any]) -> None:
    assert read_setting(setting) == wanted


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("method", "--set method: expected KEY=VALUE"),
        ("optimisation_level=5", "Did you mean 'optimization_level'"),
        ("optimization_level=high", "--set optimization_level: found 'high', expected a whole"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_setting(setting)


def test_a_file_builds_what_the_flags_build(call: Call, project: Path, tmp_path: Path) -> None:
    written(
        project,
        'source = "nets:net"\nout = "by-file.ev"\nsize = [32, 48]\nprecision = "int8"\n'
        'classes = ["road", "sky", ["person", "#ff0000"]]\ncalibration = "frames"\n'
        'method = "minmax"\nkeep_fp32 = ["Relu"]\n',
    )
    (project / "three.txt").write_text("road\nsky\nperson #ff0000\n")
    call("build", "road.toml")
    flags = ["--size", "32x48", "--classes", "three.txt", "--precision", "int8"]
    call("build", "nets:net", *flags, "--calibration", "frames", "--out", "by-flags.ev",
         "--set", "method=minmax", "--set", "keep_fp32=Relu")  # fmt: skip
    one, other = (project / f"by-{way}.ev" / "manifest.json" for way in ("file", "flags"))
    assert one.read_bytes() == other.read_bytes()
    told = json.loads(one.read_text())["provenance"]
    assert told["calibration_method"] == "minmax"
    assert ": asked for" in told["kept_wide"]


def test_what_is_typed_wins_over_the_file(call: Call, project: Path, tmp_path: Path) -> None:
    path = written(tmp_path, 'source = "nets:net"\nsize = [32, 48]\nprecision = "int8"\n')
    assert "Give --out NAME.ev" in call("build", path, code=2).err
    out = tmp_path / "typed.ev"
    call("build", path, "--precision", "fp16", "--classes", "classes.txt", "--out", out)
    assert json.loads((out / "manifest.json").read_text())["precision"] == "fp16"
    nothing = written(tmp_path, 'out = "a.ev"')
    assert "source is missing" in call("build", nothing, code=2).err
    odd = written(tmp_path, "size = 3")
    assert f"{odd}: size: found 3, expected height and width" in call("build", odd, code=2).err
    assert "cannot be read as a build file" in call("build", "gone.toml", code=2).err

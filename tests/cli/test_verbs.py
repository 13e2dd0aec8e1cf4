"""The verbs from end to end on a small net: what they print, write and return."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevision
from edgevision.cli import exit_code
from edgevision.errors import (
    BuildError,
    FileWriteError,
    InsufficientMemoryError,
    MissingDependencyError,
    WrongTaskError,
)
from edgevision.tasks.frames import list_images
from tests.parts.shell import Call, Outcome, Shell
from tests.parts.tiny_bundles import semantic_bundle

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def test_build_reports_every_form_and_target(int8_bundle: Outcome, project: Path) -> None:
    report = int8_bundle.json
    forms = {row["form"]: row for row in report["accuracy"]}
    assert list(forms) == ["torch", "fp32", "fp16", "int8", "int8-host"]
    assert all(0 < row["miou"] <= 1 for row in forms.values())
    assert forms["fp32"]["agreement"] > 0.999
    states = {row["target"]: row for row in report["artifacts"]}
    assert states["host-cpu"]["state"] == states["rtx"]["state"] == "built"
    assert states["jetson-orin-jp6"]["state"] == "pending"
    command = states["jetson-orin-jp6"]["command"]
    assert command == "edgevision finish int8.ev --target jetson-orin-jp6"
    plan = (project / "int8.ev" / states["rtx"]["path"]).read_bytes()
    assert hashlib.sha256(plan).hexdigest() == states["rtx"]["sha256"]
    assert plan[28:32] == b"vtrt", "not a TensorRT-RTX engine"
    assert report["provenance"]["calibration_count"] == "20"


def test_a_second_build_gives_the_same_bundle(
    int8_bundle: Outcome, call: Call, project: Path, tmp_path: Path
) -> None:
    again = tmp_path / "int8.ev"
    call(  # in this process; the first was built in another
        "build", "nets:net", "--size", "32x48", "--classes", "classes.txt", "--precision", "int8",
        "--calibration", "frames", "--evaluate", "val", "--target", "host-cpu", "--target", "rtx",
        "--out", again, "--no-cache",
    )  # fmt: skip
    names = ["stages/main/model.onnx", "stages/main/host-cpu.onnx", "stages/main/rtx.plan"]
    for name in [*names, "golden.npz"]:
        assert (again / name).read_bytes() == (project / "int8.ev" / name).read_bytes(), name


def test_an_engine_that_was_built_before_is_fetched(
    int8_bundle: Outcome, call: Call, project: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.ev"
    shutil.copytree(project / "int8.ev", copy)
    told = call("finish", copy, "--target", "rtx", "--json", code=4).json
    found = {a["target"]: a for a in told["artifacts"]}
    assert found["rtx"]["cached"]
    plan = "stages/main/rtx.plan"
    assert (copy / plan).read_bytes() == (project / "int8.ev" / plan).read_bytes()
    assert "rtx" in call("cache", "ls").out


def test_verify_inspect_and_run(
    int8_bundle: Outcome, shell: Shell, call: Call, tmp_path: Path
) -> None:
    assert shell("verify", "int8.ev").out.endswith("verified\n")
    assert call("verify", "int8.ev", "--json").json["passed"] is True
    assert "pending" in call("inspect", "int8.ev").out
    assert call("inspect", "int8.ev", "--json").json["precision"] == "int8"
    done = shell("run", "int8.ev", "frames", "--out", tmp_path / "o", "--json").json
    assert len(done["frames"]) == 20
    assert len(list((tmp_path / "o").glob("*.overlay.jpg"))) == 20
    mask = np.asarray(Image.open(tmp_path / "o" / "00.classes.png"))
    assert mask.shape == (32, 48)
    assert mask.max() <= 2


def test_run_says_that_it_resized(int8_bundle: Outcome, call: Call, tmp_path: Path) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "big.png")
    told = call("run", "int8.ev", tmp_path / "big.png").out
    assert "resized to the model's frame from 64x96" in told
    assert "closed" not in told


def test_a_pending_target_can_be_added_to_a_copy(
    int8_bundle: Outcome, call: Call, project: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.ev"
    shutil.copytree(project / "int8.ev", copy)
    assert "jetson-orin-jp6" in call("finish", copy, "--target", "rtx", code=4).out
    call("verify", copy)


def test_targets_and_doctor(call: Call) -> None:
    assert "jetson-orin-jp6" in call("targets").out
    rows = {row["name"]: row for row in call("targets", "--json").json}
    assert rows["host-cpu"]["builds_here"]
    assert rows["rtx"]["builds_here"]
    assert not rows["jetson-thor"]["builds_here"]
    assert rows["jetson-thor"]["reason"]
    assert "ONNX Runtime" in call("doctor").out
    assert any(row["what"] == "python" for row in call("doctor", "--json").json)


def test_an_onnx_file_keeps_its_tensors(call: Call, tmp_path: Path) -> None:
    from tests.parts.tiny_bundles import doubled

    (tmp_path / "twice.onnx").write_bytes(doubled(2))
    report = call("build", tmp_path / "twice.onnx", "--out", tmp_path / "t.ev", "--json").json
    assert report["artifacts"][0]["state"] == "built"
    error = call("run", tmp_path / "t.ev", "frames", code=2).err
    assert "takes its own tensors, not frames" in error


def test_a_metric_of_the_user_s_scores_tensors(call: Call, tmp_path: Path) -> None:
    from tests.parts.tiny_bundles import doubled

    (tmp_path / "twice.onnx").write_bytes(doubled(2))
    for i in range(3):
        x = np.full((2, 3), i, np.float32)
        np.savez(tmp_path / f"{i}.npz", x=x, want=2 * x + 0.5)
    build = ("build", tmp_path / "twice.onnx", "--out", tmp_path / "t.ev", "--evaluate", tmp_path)
    told = call(*build, "--set", "metric=nets:far").out
    assert "mean error" in told
    rows = json.loads((tmp_path / "t.ev" / "reports" / "accuracy.json").read_text())
    assert [row["form"] for row in rows] == ["torch", "fp32"]
    assert all(row["figures"] == {"mean error": 0.5, "samples": 1.0} for row in rows)
    for wrong, message in (
        (build, "give one of yours: --set metric="),
        ((*build[:4], "--set", "metric=nets:far"), "give --evaluate DIR"),
        ((*build, "--set", "metric=nets:near"), "has no 'near'. Expected package.module:"),
        (
            (*build, "--set", "metric=nets:broken"),
            "metric 'broken' fails on 0.npz, torch: TypeError",
        ),
    ):
        assert message in call(*wrong, code=2).err


BUILD = ("build", "nets:net", "--size", "32x48", "--classes", "classes.txt", "--out", "bad.ev")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((*BUILD, "--target", "jetson-orin"), 2, "unknown target 'jetson-orin'. Did you mean"),
        ((*BUILD, "--precision", "int8"), 2, "INT8 needs frames to calibrate on"),
        ((*BUILD, "--precision", "int8", "--calibration", "nowhere"), 2, "nowhere: No such file"),
        ((*BUILD, "--precision", "int8", "--calibration", "empty"), 2, "no image in this folder"),
        ((*BUILD, "--precision", "int8", "--calibration", "corrupt"), 2, "0.png: not an image"),
        ((*BUILD, "--evaluate", "unlabelled"), 2, "images have no label"),
        ((*BUILD, "--weights", "nowhere.pt"), 2, "nowhere.pt: No such file"),
        ((*BUILD, "--weights", "evil.pt"), 2, "evil.pt: refused"),
        ((*BUILD, "--weights", "evil.safetensors"), 2, "evil.safetensors: refused"),
        ((*BUILD, "--weights", "other.pt"), 1, "does not fit Sequential"),
        (("build", "nets:net", "--out", "bad.ev"), 2, "give --size HxW and --classes FILE"),
        (("build", "nets:net", "--size", "32", "--out", "b.ev"), 2, "expected HEIGHTxWIDTH"),
        (("build", "nets:net", "--size", "0x9", "--out", "b.ev"), 2, "expected HEIGHTxWIDTH"),
        (("build", "unet", "--out", "bad.ev"), 2, "unknown source 'unet'"),
        (("build", "nets:missing", "--out", "bad.ev"), 2, "Expected package.module:factory"),
        (("build", "nowhere:net", "--out", "bad.ev"), 2, "No module named 'nowhere'"),
        (("build", "nets:broken", "--out", "bad.ev"), 1, "no such backbone"),
        (("build", "nets:nothing", "--out", "bad.ev"), 1, "returned int, expected a torch module"),
        (("build", "nowhere.onnx", "--out", "bad.ev"), 2, "nowhere.onnx"),
        (("build", "garbage.onnx", "--out", "bad.ev"), None, "garbage.onnx"),
        (("build", "nets:net", "--size", "32x48", "--classes", "empty.txt", "--out", "b.ev"), 2,
         "no class in this file"),
        (("build", "nets:net", "--size", "32x48", "--classes", "two.txt", "--out", "b.ev"), 1,
         "2"),
        (("build", "nets:net"), 2, "Give --out NAME.ev"),
        (("finish", "empty", "--target", "rtx"), 2, "manifest.json"),
        (("verify", "nowhere.ev"), 2, "nowhere.ev"),
        (("run", "nowhere.ev", "frames"), 2, "nowhere.ev"),
        (("build", "gan-digits", "--size", "9x9", "--out", "b.ev"), 2, "size: not used with a"),
        (("build", "gan-digits", "--calibration", "frames", "--out", "b.ev"), 2, "takes seeds"),
        (("inspect", "classes.txt"), 2, "classes.txt"),
    ],
)  # fmt: skip
def test_bad_input_has_one_clear_message(
    call: Call, project: Path, arguments: tuple[str, ...], code: int | None, message: str
) -> None:
    bad_files(project)
    outcome = call(*arguments, code=code)
    assert outcome.code in (1, 2)
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) <= 12
    assert not list(project.glob("*bad.ev*"))
    assert not list(project.glob(".*partial*"))
    assert not (project / "pwned").exists()


def test_a_segmenter_takes_frames_and_no_seeds(int8_bundle: Outcome, call: Call) -> None:
    for arguments in ((), ("frames", "--seed", "7"), ("frames", "--count", "3")):
        assert "takes frames: give an image" in call("run", "int8.ev", *arguments, code=2).err


def test_a_generator_makes_pictures_of_seeds(call: Call, tmp_path: Path) -> None:
    bundle, grid = tmp_path / "gan-digits.ev", tmp_path / "grid.png"
    call("build", "gan-digits", "--precision", "int8", "--out", bundle)
    assert json.loads((bundle / "reports" / "layers.json").read_text())["int8"]
    call("verify", bundle)
    done = call("run", bundle, "--seed", "7", "--count", "65", "--out", grid)
    assert "65 pictures of the seeds from 7 on, " in done.out
    assert " a second in batches of 64" in done.out
    with Image.open(grid) as picture:
        assert (picture.size, picture.mode) == ((9 * 28, 8 * 28), "L")
        pixels = np.asarray(picture)
    assert pixels.max() > 240
    assert pixels[-28:, -7 * 28 :].max() == 0, "seven cells are empty"
    report = call("run", bundle, "--count", "3", "--json").json
    assert (report["count"], report["batch"], report["out"]) == (3, 3, None)
    assert report["images_per_s"] > 0
    for arguments, message in (
        (("--count", "0"), "count: got 0, expected at least 1"),
        (("--seed", str(2**64)), "seeds: got 18446744073709551616"),
        (("--seed", str(2**64 - 1), "--count", "2"), "pass 2**64 - 1"),
        (("frames",), "makes pictures of seeds and takes no 'frames'"),
        (("--out", tmp_path / "grid.xyz"), "expected an ending such as .png"),
    ):
        assert message in call("run", bundle, *arguments, code=2).err


def bad_files(project: Path) -> None:
    """Put the files that a tired (or hostile) person would give into the project."""
    import pickle

    import torch

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return Path.touch, (Path(project / "pwned"),)  # type: ignore[return-value]

    for folder in ("empty", "corrupt", "unlabelled/images", "unlabelled/labels"):
        (project / folder).mkdir(parents=True, exist_ok=True)
    (project / "corrupt" / "0.png").write_bytes(b"no image")
    Image.new("RGB", (48, 32)).save(project / "unlabelled" / "images" / "0.png")
    (project / "evil.pt").write_bytes(pickle.dumps(Evil()))
    (project / "evil.safetensors").write_bytes(b"\xff" * 64)
    torch.save({"other": torch.zeros(3)}, project / "other.pt")
    (project / "garbage.onnx").write_bytes(b"\x08\x07garbage" * 9)
    (project / "empty.txt").write_text("\n")
    (project / "two.txt").write_text("road\nsky\n")


def test_a_warning_is_one_line(call: Call, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 48, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "few" / f"{i}.png")
    err = call(
        *BUILD[:-1], tmp_path / "w.ev", "--precision", "int8", "--calibration", tmp_path / "few",
        code=None,
    ).err  # fmt: skip
    lines = [line for line in err.splitlines() if "warning" in line]
    assert lines == [
        "edgevision: warning: INT8 was calibrated on 3 frames: 50 or more typical ones are advised"
    ]
    assert ".py:" not in err


def test_errors_as_json(shell: Shell) -> None:
    outcome = shell("verify", "nowhere.ev", "--json", code=2)
    assert outcome.json["exit_code"] == 2
    assert outcome.json["error"]["type"] == "BundleFormatError"


def test_debug_shows_the_traceback(project: Path) -> None:
    command = [sys.executable, "-m", "edgevision", "--debug", "verify", "nowhere.ev"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr


def test_a_flipped_byte_is_no(
    int8_bundle: Outcome, call: Call, project: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.ev"
    shutil.copytree(project / "int8.ev", copy)
    plan = copy / "stages/main/rtx.plan"
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(data)
    assert "rtx.plan" in call("verify", copy, code=1).err
    assert "rtx.plan" in call("run", copy, "frames", code=1).err


def test_interrupted_build_leaves_the_old_bundle_whole(
    int8_bundle: Outcome, shell: Shell, project: Path, tmp_path: Path
) -> None:
    target = tmp_path / "keep.ev"
    shutil.copytree(project / "int8.ev", target)
    before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
    options = "--size 32x48 --classes classes.txt --target host-cpu --out".split()
    build_it = [sys.executable, "-m", "edgevision", "build", "nets:net", *options, str(target)]
    for delay_s in (0.3, 1.5, 3.0, 4.5):
        build = subprocess.Popen(build_it, cwd=project, stderr=subprocess.PIPE, text=True)
        time.sleep(delay_s)
        build.send_signal(signal.SIGINT)
        _, err = build.communicate(timeout=60)
        if build.returncode == 0:
            break
        # Before main() runs there is nobody to catch the signal yet, and torch can crash when it is
        # interrupted while it loads; what counts here is the bundle.
        assert build.returncode in (130, -signal.SIGINT, -signal.SIGSEGV, 1), err
        if build.returncode == 130:
            assert "interrupted; what was not finished is as it was before" in err
        after = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
        assert [p.name for p in tmp_path.iterdir()] == ["keep.ev"]
        if after != before:  # the new bundle was in its place already, whole
            break
    shell("verify", target)


@pytest.mark.filterwarnings("ignore:INT8 was calibrated on 2 frames")
def test_the_demo_writes_its_report(
    call: Call, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for photo in list_images(PHOTOS)[:2]:
        shutil.copy(photo, tmp_path)
    monkeypatch.setattr("edgevision.export.zoo.shipped_photos", lambda: tmp_path)
    # Of a frame a tenth as large, once: what the demo does with the nets is the same.
    small = partial(edgevision.build, size=(96, 128))
    monkeypatch.setattr("edgevision.export.build.build", small)
    monkeypatch.setattr("edgevision.cli.demo._REPEATS", 1)
    told = call("demo", "--out", "demo").out
    page = (project / "demo" / "report.html").read_text()
    assert "0.7205" in page, "what the model card states"
    assert page.count("<img") >= 3
    assert str(Path("demo") / "report.html") in told


@pytest.mark.parametrize("name", ["report.html", "a picture", "int8.ev"])
def test_the_demo_replaces_nothing_of_the_user_s(call: Call, tmp_path: Path, name: str) -> None:
    photo = list_images(PHOTOS)[0].stem
    theirs = tmp_path / (f"pictures/{photo}.overlay.jpg" if name == "a picture" else name)
    if name == "int8.ev":
        semantic_bundle(theirs)
    else:
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    told = call("demo", "--out", tmp_path, code=2).err
    assert str(theirs) in told
    assert "Give another" in told
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_interrupted_import_is_an_interrupt() -> None:
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ImportError("numpy.core.multiarray failed to import")  # noqa: B904 - as C code does
    except ImportError as error:
        missing = MissingDependencyError("torch is not installed")
        missing.__cause__ = error
    assert exit_code(missing) == 130
    assert exit_code(MissingDependencyError("torch is not installed")) == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileWriteError("k.key exists already"), 2),
        (WrongTaskError("a segmenter has no generate"), 2),
        (InsufficientMemoryError("9 MB are free"), 3),
        (BuildError("no kernel"), 1),
        (MemoryError(), 3),
    ],
)
def test_exit_codes_of_errors(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    from tests.parts.tiny_bundles import doubled

    (tmp_path / "twice.onnx").write_bytes(doubled(2))
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)); "
        "sys.argv = ['edgevision', *sys.argv[1:]]; "
        "runpy.run_module('edgevision', None, '__main__')"
    )
    command = [sys.executable, "-c", limited, "build", "twice.onnx", "--out", "full.ev"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "could not write" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["twice.onnx"]


def test_json_is_json_even_where_a_class_is_absent(int8_bundle: Outcome, project: Path) -> None:
    report = json.loads((project / "int8.ev" / "reports" / "accuracy.json").read_text())
    assert len(report[0]["iou"]) == 3


def test_a_reader_that_stops_reading_is_no_error(int8_bundle: Outcome, project: Path) -> None:
    command = f"{sys.executable} -m edgevision inspect int8.ev | head -1"
    done = subprocess.run(
        command, shell=True, cwd=project, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.startswith("net: task semantic")


@pytest.mark.parametrize(
    ("module", "arguments", "line"),
    [
        ("torch", BUILD, "pip install 'edgevision[export]'"),
        ("onnx", BUILD, "pip install 'edgevision[export]'"),
        ("PIL.Image", ("run", "int8.ev", "frames/00.png"), "pip install 'edgevision[media]'"),
        ("jinja2", ("demo", "--out", "demo"), "pip install 'edgevision[report]'"),
    ],
)
def test_a_missing_package_gives_its_pip_line(
    int8_bundle: Outcome, project: Path, module: str, arguments: tuple[str, ...], line: str
) -> None:
    without = (
        f"import sys; sys.modules['{module}'] = None; import edgevision.cli; "
        "sys.exit(edgevision.cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", without, *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert line in done.stderr
    assert "Traceback" not in done.stderr


def test_video_frames_become_pictures(int8_bundle: Outcome, call: Call, tmp_path: Path) -> None:
    from tests.runtime.test_frames import write_video

    write_video(tmp_path / "drive.mp4", 5)
    done = call("run", "int8.ev", tmp_path / "drive.mp4", "--out", tmp_path / "o", "--json").json
    assert [f["name"] for f in done["frames"]] == [f"drive-{i:06d}" for i in range(5)]
    assert done["frames"][0]["resized_from"] == [48, 64]
    assert len(list((tmp_path / "o").iterdir())) == 10

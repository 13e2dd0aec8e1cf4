"""`edgevision bench` stopped by Ctrl-C, on what is pending, too short or unlike."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from edgevision.bench.gate.accuracy import compare_accuracy
from edgevision.bench.gate.compare import Comparison
from edgevision.bench.gate.counts import Counted
from edgevision.bench.gate.verdict import as_junit
from edgevision.bundle.flavours import TRT
from edgevision.bundle.manifest import Artifact
from edgevision.cli import main
from edgevision.tasks.outputs import refuse_foreign
from tests.parts.tiny_bundles import HEIGHT, WIDTH, semantic_bundle

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return semantic_bundle(tmp_path / "tiny.ev").root


def interrupted(arguments: list[str], *, after: str) -> int:
    """Run `edgevision bench` and press Ctrl-C once its progress says `after`; returns its code."""
    ours, theirs = pty.openpty()  # progress is for those who look
    command = [sys.executable, "-m", "edgevision", "bench", *arguments]
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE) as child:
        os.close(theirs)
        told = b""
        try:
            while after.encode() not in told:
                told += os.read(ours, 4096)
            child.send_signal(signal.SIGINT)
            child.communicate(timeout=60)
        finally:
            child.kill()
            os.close(ours)
    assert b"Traceback" not in told
    return int(child.returncode)


@pytest.mark.parametrize(
    ("scenario", "after"),
    [
        ("single", "one call after the other"),
        ("paced", "frames at 100 fps"),
        ("throughput", "as fast as it goes"),
        ("multi", "frames at 100 fps"),
    ],
)
def test_ctrl_c_keeps_what_was_measured(
    bundle: Path, tmp_path: Path, scenario: str, after: str
) -> None:
    kept, page = tmp_path / "kept.json", tmp_path / "page.html"
    code = interrupted(
        [str(bundle), "--scenario", scenario, "--fps", "100", "--duration", "600",
         "--json-file", str(kept), "--report", str(page)],
        after=after,
    )  # fmt: skip
    assert code == 130
    (told,) = json.loads(kept.read_text())
    assert told["is_cut"]
    assert told["summary"]["answered"] > 0
    assert told["cold"] is None, "nothing more was begun"
    assert "STOPPED before its time" in page.read_text()


def test_ctrl_c_in_a_comparison_gives_no_verdict(bundle: Path, tmp_path: Path) -> None:
    kept = tmp_path / "verdict.json"
    code = interrupted(
        ["compare", str(bundle), str(bundle), "--json-file", str(kept)], after="loads"
    )
    assert code == 130
    assert not kept.exists()


def test_a_pending_bundle_names_what_finishes_it(tmp_path: Path, capsys: Capture) -> None:
    pending = Artifact("jetson-orin-jp6", TRT, None, reason="no GPU", command="touch MARK")
    bundle = semantic_bundle(tmp_path / "road.ev", artifacts=(pending,)).root
    command = f"edgevision finish {bundle} --target jetson-orin-jp6"
    assert main(["bench", str(bundle)]) == 4
    assert command in capsys.readouterr().err
    assert main(["bench", "compare", str(bundle), str(bundle)]) == 1
    assert command in capsys.readouterr().err


def test_a_short_run_says_what_it_cannot_say(bundle: Path, capsys: Capture) -> None:
    assert main(["bench", str(bundle), "--scenario", "paced", "--fps", "100", "--duration", "0.5",
                 "--quick"]) == 0  # fmt: skip
    text = capsys.readouterr().out
    assert "n too small: 50 answers, wants 64" in text
    assert "n too small: 50 answers, wants 662" in text
    assert "n too small: 50 answers, wants 6636" in text


def test_a_half_precision_bundle_is_not_compared_with_a_whole_one(
    bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = semantic_bundle(tmp_path / "other.ev", precision="fp16").root
    assert main(["bench", "compare", str(bundle), str(other)]) == 1
    told = capsys.readouterr().err
    assert "do not do the same work" in told
    assert "precision: fp32 against fp16" in told


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Two frames, and which channel is the strongest at each of their pixels."""
    folder = tmp_path / "labelled"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for i, frame in enumerate(np.random.default_rng(3).integers(0, 256, (2, HEIGHT, WIDTH, 3))):
        Image.fromarray(frame.astype(np.uint8)).save(folder / f"images/{i}.png")
        Image.fromarray(frame.argmax(-1).astype(np.uint8)).save(folder / f"labels/{i}.png")
    return folder


@pytest.mark.filterwarnings("ignore:the net is right in")  # whose classes are exchanged here
def test_a_bundle_that_lost_its_headline_figure_is_found(
    bundle: Path, tmp_path: Path, labelled: Path
) -> None:
    worse = semantic_bundle(tmp_path / "release" / bundle.name, channel_order="bgr").root
    assert compare_accuracy(bundle, bundle, labelled, device="cpu").passed
    found = compare_accuracy(bundle, worse, labelled, device="cpu")
    assert not found.passed
    assert "A's 1.0000; a loss of" in found.text


@pytest.mark.filterwarnings("ignore:the net is right in")  # whose classes are exchanged here
def test_a_comparison_fails_on_accuracy_alone(
    bundle: Path, tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    worse = semantic_bundle(tmp_path / "worse.ev", channel_order="bgr").root
    found = Comparison("same", 1.0, 0.99, 1.01, 1.0, 0.05, 8, 7, 10.0)
    monkeypatch.setattr("edgevision.bench.gate.compare.compare", lambda *_, **__: found)
    junit = tmp_path / "gate.xml"
    for other, code in ((bundle, 0), (worse, 1)):
        arguments = [str(bundle), str(other), "--evaluate", str(labelled), "--junit", str(junit)]
        assert main(["bench", "compare", *arguments]) == code
        assert ("Accuracy LOST: mIoU" in capsys.readouterr().out) == bool(code)
        suite = ElementTree.fromstring(junit.read_text())
        failed = [case.get("name", "") for case in suite if case.find("failure") is not None]
        assert failed == (["worse.ev over tiny.ev: accuracy"] if code else [])
        assert len(list(suite.iter("testcase"))) == 3


def test_figures_of_what_is_no_pair_of_bundles_are_refused(
    bundle: Path, labelled: Path, capsys: Capture
) -> None:
    pair = [str(bundle), "HEAD", "--on", str(bundle)]
    assert main(["bench", "compare", *pair, "--evaluate", str(labelled)]) == 2
    assert "evaluate: give two bundles" in capsys.readouterr().err


def with_setting(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda run: run["settings"].update({name: value})


def with_environment(name: str, value: str) -> Callable[[dict[str, Any]], None]:
    return lambda run: run["environment"].update({name: value})


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (with_environment("power mode", "MAXN"), "power mode: not a Jetson against MAXN"),
        (with_environment("gpu", "Orin"), "against Orin"),
        (with_environment("processor", "Z80"), "against Z80"),
        (lambda run: run.update(device="cuda:0"), "against cuda:0"),
        (lambda run: run.update(precision="int8"), "precision: fp32 against int8"),
        (with_setting("scenario", "paced"), "scenario: single against paced"),
        (with_setting("fps", 60.0), "fps: 30.0 against 60.0"),
    ],
)
def test_earlier_runs_that_are_unlike_are_refused(
    earlier: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    difference: str,
    capsys: Capture,
) -> None:
    runs = json.loads(earlier.read_text())
    change(runs[0])
    other = tmp_path / "other.json"
    other.write_text(json.dumps(runs))
    assert main(["bench", "compare", str(earlier), str(other)]) == 1
    told = capsys.readouterr().err
    assert "must not be compared" in told
    assert difference in told


def test_earlier_runs_that_are_alike_give_ratios_and_no_verdict(
    earlier: Path, tmp_path: Path, capsys: Capture
) -> None:
    runs = json.loads(earlier.read_text())
    runs[0]["summary"]["mean_ms"] *= 2
    other = tmp_path / "other.json"
    other.write_text(json.dumps(runs))
    assert main(["bench", "compare", str(earlier), str(other), "--json"]) == 0
    ratios = {row["what"]: row["ratio"] for row in json.loads(capsys.readouterr().out)}
    assert ratios["mean, ms"] == pytest.approx(2)
    assert ratios["max, ms"] == pytest.approx(1)
    assert main(["bench", "compare", str(earlier), str(other)]) == 0
    assert "no gate, and no verdict" in capsys.readouterr().out


RUN = '{"name": "a", "task": "t", "precision": "p", "device": "d", %s}'
NO_OBJECTS = RUN % '"settings": 1, "environment": {}, "summary": {}'
NO_FIGURES = RUN % '"settings": {}, "environment": {}, "summary": {"percentiles_ms": 1}'


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[1]", '[{"name": 1}]', "[" * 10_000, f"[{NO_OBJECTS}]", f"[{NO_FIGURES}]"],
)
def test_what_is_no_earlier_run_is_refused(
    earlier: Path, tmp_path: Path, content: str, capsys: Capture
) -> None:
    other = tmp_path / "other.json"
    other.write_text(content)
    assert main(["bench", "compare", str(earlier), str(other)]) == 2
    assert "is not a result of `edgevision bench --json`" in capsys.readouterr().err


def test_a_page_is_refused_where_there_is_none(
    bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    page = tmp_path / "page.html"
    root = str(bundle)
    assert main(["bench", root, "--harness", "loadgen", "--report", str(page)]) == 2
    assert "LoadGen has no page" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "compare", root, root, "--report", str(page)])
    assert "unrecognized arguments: --report" in capsys.readouterr().err
    assert not page.exists()


@pytest.mark.parametrize("option", ["--json-file", "--report", "--markdown", "--junit"])
def test_a_file_of_the_user_s_is_refused_before_the_measurement(
    bundle: Path, tmp_path: Path, capsys: Capture, option: str
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("my notes")
    one, measured = str(bundle), ["--duration", "600"]
    rest = ["compare", one, one] if option in ("--markdown", "--junit") else [one, *measured]
    arguments = ["bench", *rest, option, str(theirs)]
    assert main(arguments) == 2
    assert "not known to be made by edgevision" in capsys.readouterr().err
    assert theirs.read_text() == "my notes"


def test_files_of_an_earlier_run_are_replaced(bundle: Path, tmp_path: Path) -> None:
    page, kept = tmp_path / "page.html", tmp_path / "kept.json"
    kept.write_text("[1]")
    arguments = ["bench", str(bundle), "--duration", "0.2", "--quick", "--report", str(page)]
    assert main([*arguments, "--json-file", str(kept), "--force"]) == 0
    assert main([*arguments, "--json-file", str(kept)]) == 0
    assert main([*arguments, "--json-file", str(page)]) == 2, "one file for two outputs"


def test_texts_of_a_comparison_are_known_as_ours(tmp_path: Path) -> None:
    found = Comparison("same", 1.0, 0.99, 1.01, 1.0, 0.05, 9, 7, 100.0)
    counted = Counted({}, {}, ())
    junit = tmp_path / "speed.xml"
    junit.write_text(as_junit(found, counted, "a", "b"))
    refuse_foreign([junit])


@pytest.fixture
def earlier(bundle: Path, tmp_path: Path) -> Path:
    """The JSON of a run."""
    kept = tmp_path / "earlier.json"
    assert (
        main(["bench", str(bundle), "--duration", "0.2", "--quick", "--json-file", str(kept)]) == 0
    )
    return kept

"""`edgevision bench`: what it prints, its JSON and its page say the same; the page stands alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from edgevision.bench.statistics import PERCENTILES, least_frames
from edgevision.bundle.directory import Bundle
from edgevision.cli import main
from edgevision.machine.environment import environment, unlike

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def bench(bundle: Bundle, *options: str) -> int:
    return main(["bench", str(bundle.root), "--duration", "0.3", "--quick", *options])


def test_it_prints_what_the_json_says(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(bundle, "--scenario", "paced", "--fps", "100", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["settings"]["scenario"] == "paced"
    assert told["summary"]["frames"] == 30
    assert told["summary"]["percentiles_ms"]["p99"] is None
    assert told["summary"]["missed"] is not None
    assert told["environment"]["numpy"][0].isdigit()
    assert bench(bundle, "--scenario", "paced", "--fps", "100") == 0
    text = capsys.readouterr().out
    assert re.search(r"scenario +paced, 100 fps", text)
    assert re.search(r"measured +30 frames, \d+ answers", text)
    assert re.search(r"p99 +n too small: \d+ answers, wants 662", text)
    assert "ONNX Runtime" in text


def test_a_closed_loop_misses_no_deadline_unless_one_is_given(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(bundle) == 0
    assert re.search(r"deadlines missed +no deadline", capsys.readouterr().out)
    assert bench(bundle, "--deadline", "0.000001", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["summary"]["missed"] == told["summary"]["longest_miss"] == told["summary"]["frames"]


def test_the_page_stands_alone_and_says_what_the_json_says(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    # A formula, and a wrong one, to what draws the pictures.
    named = shutil.copytree(bundle.root, tmp_path / "$road_{$<b>.ev")
    assert (
        bench(Bundle.open(named), "--scenario", "throughput", "--json", "--report", str(page)) == 0
    )
    (told,) = json.loads(capsys.readouterr().out)
    html = page.read_text()
    assert "<b>.ev" not in html
    assert "$road_{$&lt;b&gt;" in html
    summary = told["summary"]
    for value in (summary["percentiles_ms"]["p50"], summary["max_ms"], summary["max_gap_ms"]):
        assert f"{value:.3f} ms" in html
    assert f"{summary['per_second']:.1f}" in html
    for value in told["environment"].values():
        assert value.replace("&", "&amp;").replace("'", "&#39;") in html
    assert html.count("<svg") == 4
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", html), "the page fetches something"


def numbers(value: object) -> list[float]:
    """Return every number in a JSON document, also those inside its texts."""
    if isinstance(value, dict):
        return [n for pair in value.items() for inner in pair for n in numbers(inner)]
    if isinstance(value, list):
        return [n for inner in value for n in numbers(inner)]
    if isinstance(value, str):
        return [float(n) for n in _NUMBER.findall(value)]
    return [] if value is None or isinstance(value, bool) else [float(value)]  # type: ignore[arg-type]


@pytest.mark.parametrize("scenario", ["single", "paced"])
def test_every_number_on_the_page_is_in_the_json(
    bundle: Bundle, tmp_path: Path, scenario: str
) -> None:
    page, kept = tmp_path / "report.html", tmp_path / "report.json"
    options = [
        "--scenario",
        scenario,
        "--fps",
        "200",
        "--report",
        str(page),
        "--json-file",
        str(kept),
    ]
    assert main(["bench", str(bundle.root), "--duration", "0.5", *options]) == 0
    (told,) = json.loads(kept.read_text())
    deadline_ms = 2e3 / told["settings"]["fps"]  # two periods, where none was given
    known = [*numbers(told), deadline_ms, *(least_frames(point) for point in PERCENTILES)]
    known += [n / 1e3 for row in told["reference"] for n in numbers(row["median_us"])]
    tables = re.findall(r"<table>.*?</table>", page.read_text(), re.DOTALL)
    assert len(tables) == 2
    cells = re.findall(r"<td>(.*?)</td>", "".join(tables), re.DOTALL)
    shown = [number for cell in cells for number in _NUMBER.findall(unescape(cell))]
    assert len(shown) > 40
    for number in shown:
        places = len(number.partition(".")[2])
        assert any(float(f"{n:.{places}f}") == float(number) for n in known), number


def test_a_browser_shows_it(bundle: Bundle, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    page = tmp_path / "report.html"
    assert bench(bundle, "--report", str(page)) == 0
    shown = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert "How long a frame takes" in shown.stdout
    assert shown.stdout.count("</svg>") == 4
    assert "CONSOLE" not in shown.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--fps", "0"], "fps: got 0.0"), (["--duration", "-1"], "duration_s: got -1.0")],
)
def test_wrong_settings_are_refused(
    bundle: Bundle, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(bundle.root), *options]) == 2
    assert message in capsys.readouterr().err


def test_unlike_machines_are_named() -> None:
    here = environment()
    assert unlike(here, here) == []
    assert unlike(here, {**here, "cores": "96"}) == [f"cores: {here['cores']} against 96"]
    assert unlike(here, {**here, "date": "yesterday"}) == []


def test_two_bundles_are_compared(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junit = tmp_path / "junit.xml"
    root = str(bundle.root)
    code = main(["bench", "compare", root, root, "--gate", "10%", "--json", "--junit", str(junit)])
    told = json.loads(capsys.readouterr().out)
    assert code == (1 if told["verdict"] == "slower" else 0)
    # Which verdict depends on the machine; that the figures bear it out does not.
    borne_out = {
        "same": told["high"] < 1.1,
        "slower": told["low"] > 1,
        "faster": told["high"] < 1,
        "unclear": told["low"] < told["high"],
        "too noisy": abs(told["control"] - 1) > 0.02,
    }
    assert borne_out[told["verdict"]], told
    assert told["low"] <= told["ratio"] <= told["high"]
    assert (told["processes"], told["gate"]) == (7, 0.1)
    assert told["rounds"] >= 7 * 3 * 8
    assert "<testcase" in junit.read_text()


def test_what_cannot_be_compared_says_why(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(bundle.root)
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "compare", root])
    assert "the following arguments are required: B" in capsys.readouterr().err
    assert main(["bench", "compare", root, str(tmp_path / "gone.ev")]) == 1
    told = capsys.readouterr().err
    assert "the worker of 'gone.ev' ended with code 1" in told
    assert "does not exist" in told
    with pytest.raises(SystemExit):
        main(["bench", "compare", root, root, "--gate", "much"])
    assert "got 'much', expected a percentage such as 5%" in capsys.readouterr().err

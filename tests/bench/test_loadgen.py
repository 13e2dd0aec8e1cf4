"""LoadGen's SingleStream over a bundle: its log and our clock tell the same of the same calls."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edgevision.bench import loadgen
from edgevision.bundle.directory import Bundle
from edgevision.cli import main
from edgevision.errors import RunError
from tests.parts.tiny_bundles import semantic_bundle

needs_loadgen = pytest.mark.skipif(
    importlib.util.find_spec("mlperf_loadgen") is None, reason="mlcommons-loadgen is not installed"
)
POINTS = ("p50", "p90", "p99", "mean")
LOG = """noise
:::MLLOG {"key": "result_validity", "value": "VALID"}
:::MLLOG {"key": "result_query_count", "value": 100}
"""


@needs_loadgen
def test_its_log_agrees_with_our_clock_within_two_percent(tmp_path: Path) -> None:
    # A call of half a millisecond and more: LoadGen's clock has Python's way to it inside.
    bundle = semantic_bundle(tmp_path / "large.ev", size=(360, 640))
    for _ in range(10):  # a pause between the two clocks is in one of them alone
        found = loadgen.drive(bundle.root, duration_s=1.0)
        assert (found.loadgen_ms["p99.9"] is None) == (found.queries < 6636), "as ours are told"
        # A slow machine has too few answers for its high percentiles.
        told = [point for point in POINTS if found.loadgen_ms[point] is not None]
        assert {"p50", "mean"} <= {*told}
        if found.verdict == "VALID" and all(
            found.ours_ms[p] == pytest.approx(found.loadgen_ms[p], rel=0.02) for p in told
        ):
            return
    pytest.fail(f"LoadGen: {found.loadgen_ms}, ours: {found.ours_ms}")


@needs_loadgen
def test_the_command_line_calls_it_unofficial(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(bundle.root), "--harness", "loadgen", "--duration", "0.2"]) == 0
    text = capsys.readouterr().out
    assert "LoadGen SingleStream, unofficial" in text
    assert "queries, VALID" in text, "also of a model that is far faster than LoadGen expects"
    assert "MLPerf" not in text


@needs_loadgen
def test_a_bundle_that_does_not_load_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="LoadGen's process ended with code 1"):
        loadgen.drive(tmp_path / "gone.ev", duration_s=0.1)


def test_a_log_without_a_result_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "ours.npy", np.arange(1, 101))
    (tmp_path / "mlperf_log_detail.txt").write_text(LOG)
    with pytest.raises(RunError, match="log has no 'result_50"):
        loadgen.read(tmp_path)

"""The suites of benchmarks name scripts that exist, arguments that these take, and ten minutes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from benchmarks import suite

SUITES = sorted(path.stem for path in (suite.HERE / "suites").glob("*.toml"))


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_what_its_scripts_take(name: str) -> None:
    entries = suite.read(name)
    for entry in entries:
        script = importlib.import_module(f"benchmarks.{entry.script}")
        script.parser().parse_args([*entry.arguments, "--json-file", "made.json"])
    results = [entry.result for entry in entries]
    assert len(set(results)) == len(results)
    assert sum(entry.budget_s for entry in entries) <= 600


SCRIPT = """
import sys, time
from pathlib import Path
way, made = sys.argv[1], Path(sys.argv[3])
if way == "slow":
    time.sleep(60)
if way != "broken":
    made.write_text(way)
sys.exit(way != "good")
"""


def test_a_suite_goes_on_and_keeps_what_a_broken_script_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, results = tmp_path / "benchmarks", tmp_path / "results"
    for folder in (package, results):
        folder.mkdir()
    (package / "__init__.py").touch()
    (package / "made.py").write_text(SCRIPT)
    monkeypatch.setattr(suite, "HERE", package)
    ways = {"good": 30.0, "broken": 0.0, "slow": -29.0, "missed": 60.0}
    for way in ways:
        (results / f"{way}.json").write_text("old")
    entries = [suite.Entry("made", way, budget, (way,)) for way, budget in ways.items()]
    found = suite.run_all(entries, results)
    assert [outcome.outcome for outcome in found] == ["ok", "failed", "out of time", "missed a bar"]
    kept = {way: (results / f"{way}.json").read_text() for way in ways}
    assert kept == {"good": "good", "broken": "old", "slow": "old", "missed": "missed"}


def test_a_suite_ends_with_one_if_anything_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(outcome: str) -> int:
        entry = suite.Entry("gate", "gate", 1.0)
        monkeypatch.setattr(suite, "run_all", lambda *_: [suite.Outcome(entry, 1.0, outcome)])
        monkeypatch.setattr(suite.tables, "write", lambda: None)
        monkeypatch.setattr(sys, "argv", ["suite", "cpu", "--only", "gate"])
        return suite.main()

    assert [of(outcome) for outcome in ("ok", "failed", "missed a bar")] == [0, 1, 1]

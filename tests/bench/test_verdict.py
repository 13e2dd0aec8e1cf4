"""The verdict on rounds whose truth is known."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from edgevision.bench.gate.compare import compare, decide, interval
from edgevision.bench.gate.counts import judge
from edgevision.bench.gate.sides import of_bundle
from edgevision.bench.gate.verdict import as_json, as_junit, as_markdown

COUNTS = {"python_calls": 11, "allocated_bytes": 64_000, "bytes_in": 6000, "engine_bytes": 10**6}
SAME = judge(COUNTS, COUNTS, gate=0.05)


def loads(truth: float, seed: int, *, noise: float = 0.01, sets: float = 0.0) -> np.ndarray:
    """Return the logarithms of seven processes with three loads each, all a little off."""
    random = np.random.default_rng(seed)
    return np.log(truth) + random.normal(0, sets, (7, 1)) + random.normal(0, noise, (7, 3))


def test_no_false_alarm_and_every_five_percent_found() -> None:
    verdicts = {truth: [] for truth in (1.0, 1.05, 0.94)}
    for seed in range(60):
        for truth, told in verdicts.items():
            control = loads(1.0, seed + 1000, noise=0.003)
            told.append(decide(loads(truth, seed), control, gate=0.05).verdict)
    assert verdicts[1.0].count("same") >= 58
    assert not {"slower", "faster"} & set(verdicts[1.0])
    assert verdicts[1.05].count("slower") >= 57
    assert verdicts[0.94].count("faster") >= 57


def test_a_machine_that_differs_from_itself_gives_no_verdict() -> None:
    control = loads(1.06, 1, noise=0.003)
    for ratio in (0.95, 1.0, 1.08):
        found = decide(loads(ratio, 0), control, gate=0.05)
        assert found.verdict == "too noisy"
        assert "nothing is wrong with the second side" in as_markdown(found, SAME, "a", "b")
    # What is far larger than the twins' difference is not noise.
    assert decide(loads(1.2, 0), control, gate=0.05).verdict == "slower"


def test_an_interval_that_reaches_across_the_gate_is_no_verdict() -> None:
    control = loads(1.0, 1, noise=0.003)
    found = decide(loads(1.02, 2, noise=0.08), control, gate=0.05)
    assert found.low < 1
    assert found.high > 1.05
    assert found.verdict == "unclear"
    assert "skipped" in as_junit(found, SAME, "a", "b")


@pytest.mark.parametrize("sets", [0.0, 0.02])
def test_the_interval_covers_the_truth_also_of_processes_that_differ(sets: float) -> None:
    covered = 0
    for seed in range(200):
        low, ratio, high = interval(loads(1.1, seed, sets=sets))
        assert low < ratio < high
        covered += low <= 1.1 <= high
    # Where sets differ without its showing, the loads stand for them, and say too much.
    assert (195 if sets == 0.0 else 170) <= covered


def test_the_gate_says_how_small_a_slow_down_counts() -> None:
    ratios, control = loads(1.05, 3), loads(1.0, 4, noise=0.003)
    assert decide(ratios, control, gate=0.05).verdict == "slower"
    assert decide(ratios, control, gate=0.5).verdict == "same"
    for gate in (0.0, 2.0):
        with pytest.raises(ValueError, match=r"expected 0\.01 to 1"):
            compare(of_bundle("a.ev"), of_bundle("b.ev"), gate=gate)


def test_a_process_that_is_slow_for_all_its_life_decides_nothing() -> None:
    for truth, verdict in ((1.0, "same"), (1.05, "slower")):
        for slow in (0.16, -0.16):  # a process of the second side, or of the first
            found, control = loads(truth, 7, noise=0.005), loads(1.0, 8, noise=0.005)
            found[2] += slow
            assert decide(found, control, gate=0.05).verdict == verdict
            control[2] -= slow
            assert decide(found, control, gate=0.05).verdict == verdict


@pytest.mark.parametrize(("processes", "loads"), [(4, 5), (5, 1)])
def test_too_few_processes_or_loads_give_no_interval(processes: int, loads: int) -> None:
    with pytest.raises(ValueError, match=rf"got {processes} sets of processes with {loads} loads"):
        compare(of_bundle("a.ev"), of_bundle("b.ev"), processes=processes, loads=loads)


@pytest.mark.parametrize(
    ("truth", "mark"),
    [(1.2, "failure"), (1.0, None), (0.8, None)],
    ids=["slower", "same", "faster"],
)
def test_a_ci_reads_it(truth: float, mark: str | None) -> None:
    found = decide(loads(truth, 5), loads(1.0, 6, noise=0.003), gate=0.05, first_us=12.0)
    suite = ElementTree.fromstring(as_junit(found, SAME, "a.ev", "b.ev"))
    timed, counted = suite
    assert [child.tag for child in timed] == [*([mark] if mark else []), "system-out"]
    assert len(counted) == 0
    assert suite.get("failures") == str(int(mark is not None))
    told = as_json(found, SAME, "a.ev", "b.ev")
    assert told["verdict"] == found.verdict
    assert str(told["says"]).startswith(found.verdict)
    assert f"{found.ratio:.4f}" in as_markdown(found, SAME, "a.ev", "b.ev")


@pytest.mark.parametrize(
    ("name", "harmless", "harmful"),
    [
        ("python_calls", 12, 14),
        ("allocated_bytes", 65_000, 70_000),
        ("bytes_in", 6300, 6301),
        ("engine_bytes", 1_050_000, 1_050_001),
    ],
)
def test_what_is_counted_may_not_grow_beyond_the_gate(
    name: str, harmless: int, harmful: int
) -> None:
    assert judge(COUNTS, {**COUNTS, name: harmless}, gate=0.05).grown == ()
    assert judge(COUNTS, {**COUNTS, name: 1}, gate=0.05).grown == ()
    counted = judge(COUNTS, {**COUNTS, name: harmful}, gate=0.05)
    assert counted.grown == (name,)
    found = decide(loads(1.0, 5), loads(1.0, 6, noise=0.003), gate=0.05)
    suite = ElementTree.fromstring(as_junit(found, counted, "a", "b"))
    assert suite.get("failures") == "1"
    (failure,) = suite[1]
    told = f"{name.replace('_', ' ')} from {COUNTS[name]:,} to {harmful:,}"
    assert told in str(failure.get("message"))
    assert told in as_markdown(found, counted, "a", "b")

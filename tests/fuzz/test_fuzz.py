"""A few changed files of each kind: each is read, or refused in one line; more are run by hand."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.__main__ import known_kinds, run

for _package in ("av", "cryptography", "onnx", "PIL", "pycocotools", "tokenizers", "torch"):
    pytest.importorskip(_package)


def test_nothing_that_a_stranger_hands_over_brings_anything_down() -> None:
    kinds = [kind for kind in known_kinds() if kind != "nets"]
    counts, faults = run(kinds, first=0, cases=12 * len(kinds))
    assert faults == []
    assert sorted(counts) == sorted(kinds)
    for of_kind in counts.values():
        assert of_kind.get("refused", 0) + of_kind.get("read", 0) == 12


def test_a_changed_net_is_built_right_or_refused() -> None:
    cases = int(os.environ.get("EDGEVISION_TEST_NETS", "20"))
    counts, faults = run(["nets"], first=0, cases=cases)
    assert faults == []
    assert 0 < counts["nets"]["read"] < cases

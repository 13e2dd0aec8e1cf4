"""Choices of how a model runs: their types, their ranges, and that they reach the runtime."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import onnxruntime
import pytest

from edgevision.bundle.directory import Bundle
from edgevision.runtime.backends.openvino import open_program as open_by_openvino
from edgevision.runtime.backends.ort import session_options
from edgevision.runtime.load import load
from edgevision.runtime.options import RunOptions

CORES = tuple(sorted(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ({"slots": "2"}, TypeError, "slots: got '2', expected int"),
        ({"slots": True}, TypeError, "slots: got True, expected int"),
        ({"slots": 0}, ValueError, "slots: got 0, expected 1 to 64"),
        ({"cpu_threads": 1.0}, TypeError, r"cpu_threads: got 1\.0, expected int"),
        ({"cpu_threads": 1025}, ValueError, "cpu_threads: got 1025, expected 0 to 1024"),
        ({"priority": "high"}, TypeError, "priority: got 'high', expected int"),
        ({"graph": 1}, TypeError, "graph: got 1, expected bool"),
        ({"affinity": [0]}, TypeError, r"affinity: got \[0\], expected tuple"),
        ({"affinity": ("0",)}, TypeError, "affinity: got '0', expected int"),
        ({"affinity": (-1,)}, ValueError, "affinity: got -1, expected 0 to"),
        ({"affinity": (0,), "cpu_threads": 1}, ValueError, "starts no thread"),
        ({"ort": "x"}, TypeError, "ort: got 'x', expected Mapping"),
        ({"ort": {"a": 1}}, TypeError, r"ort\['a'\]: got 1, expected str"),
        ({"ort": {1: "a"}}, TypeError, "ort: the key 1: got 1, expected str"),
    ],
)
def test_a_wrong_choice_is_refused_where_it_is_made(
    choice: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RunOptions(**choice)


def test_choices_reach_onnx_runtime() -> None:
    entry = "session.intra_op.allow_spinning"
    chosen = RunOptions(affinity=CORES, ort={entry: "1"})
    options = session_options(onnxruntime, chosen)
    assert options.intra_op_num_threads == len(CORES) + 1, "the caller's thread is one more"
    places = options.get_session_config_entry("session.intra_op_thread_affinities")
    assert places == ";".join([",".join(str(core + 1) for core in CORES)] * len(CORES))
    assert options.get_session_config_entry(entry) == "1"
    options = session_options(onnxruntime, replace(chosen, cpu_threads=2))
    assert options.intra_op_num_threads == 2


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"affinity": (65535,)}, "core 65535 is not one of this process's"),
        ({"ort": {"session.load_model_format": "ORT"}}, "'session.load_model_format' cannot be"),
        ({"ort": {"session.intra_op_thread_affinities": "1"}}, r"use RunOptions\.affinity"),
        ({"ort": {"x" * 5000: "1"}}, "is refused"),
    ],
)
def test_what_onnx_runtime_cannot_be_told(
    bundle: Bundle, choice: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(bundle, options=RunOptions(**choice))


def test_a_model_runs_with_its_threads_bound(bundle: Bundle) -> None:
    with load(bundle, options=RunOptions(cpu_threads=2, affinity=CORES[:1])) as model:
        model.session.warm_up()


def test_openvino_takes_none_of_them() -> None:
    with pytest.raises(ValueError, match="are ONNX Runtime's"):
        open_by_openvino(b"", None, RunOptions(ort={"a": "b"}))

"""The same frame by other means, in shuffled rounds of the same run: how much is the runtime's own.

A row says how long another way takes for each unit of our time, or why it was not measured.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgevision._optional import require
from edgevision.bench.pairs import measure
from edgevision.bundle.directory import Bundle
from edgevision.bundle.flavours import OPENVINO, Flavour
from edgevision.progress import Progress, silent
from edgevision.runtime.backends.openvino import import_openvino
from edgevision.runtime.backends.ort import OrtProgram
from edgevision.runtime.backends.program import Program
from edgevision.runtime.model import Model
from edgevision.runtime.slots.slots import Slots

Call = Callable[[], object]
Feeds = Mapping[str, Any]

_OURS = "edgevision"
_LAUNCH, _BOUND = "one launch and one wait", "ONNX Runtime, bound once"
_TRTEXEC_FLAGS = ("--iterations=100", "--useCudaGraph", "--useSpinWait", "--percentile=99")
_MEDIAN = re.compile(r"\bLatency:.*?median = ([\d.]+) ms")


@dataclass(frozen=True, slots=True)
class Row:
    """One other way.

    Attributes:
        name: what it is.
        ratio: its time for each unit of ours, the median over rounds; None if not measured.
        low: lower end of the ratio's 99 % interval.
        high: upper end.
        median_us: of one call; holds for this machine and hour.
        note: why it was not measured, or what it leaves out.
    """

    name: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    median_us: float | None = None
    note: str = ""


def rows(
    bundle: Bundle,
    model: Model[Any],
    frame: Any,
    peers: Mapping[str, Callable[[Feeds], object] | str],
    *,
    rounds: int = 12,
    progress: Progress = silent,
) -> tuple[Row, ...]:
    """Measure ours against every way there is here.

    Args:
        bundle: what `model` was loaded from.
        model: ours.
        frame: what it is given.
        peers: other ways by name, which take what the session takes; or why there is none.
        rounds: of one block of each way.
        progress: told of the begin.
    """
    feeds = {name: np.asarray(value) for name, value in model.decoder.feeds(frame).items()}
    calls: dict[str, Call] = {_OURS: lambda: model(frame)}
    missing: list[Row] = []
    graph = model.selection.read(bundle, bundle.manifest.stages[0].name)
    with ExitStack() as stack:
        if model.selection.on_gpu:
            calls[_LAUNCH] = stack.enter_context(_one_launch(model, feeds))
            missing.append(Row("OpenVINO", note="the engine runs on a GPU"))
        else:
            if isinstance(found := _bound_once(model.session.program, feeds), str):
                missing.append(Row(_BOUND, note=found))
            else:
                calls[_BOUND] = found
            if isinstance(found := _openvino(graph, feeds), str):
                missing.append(Row("OpenVINO", note=found))
            else:
                calls["OpenVINO"] = found
        for name, peer in peers.items():
            if isinstance(peer, str):
                missing.append(Row(name, note=peer))
            else:
                calls[name] = partial(peer, feeds)
        progress("other ways, side by side", 0, 0)
        rounds_ns = measure(calls, rounds=rounds, least_calls=2, warm_up_s=1.0)
    payload = [Row(_OURS, 1.0, 1.0, 1.0, rounds_ns.median_us(_OURS))]
    for name in calls:
        if name != _OURS:
            over = rounds_ns.ratio(name, over=_OURS)
            note = "the host copies nothing in or out" if name in (_LAUNCH, _BOUND) else ""
            median_us = rounds_ns.median_us(name)
            payload.append(Row(name, over.value, over.low, over.high, median_us, note))
    flavour = model.selection.artifact.flavour
    return (*payload, *missing, _trtexec(graph, flavour))


@contextmanager
def _one_launch(model: Model[Any], feeds: Feeds) -> Iterator[Call]:
    """Give a slot's launch and wait, its frame already in place."""
    session = model.session
    slots = Slots(session.program, session.profiles, session.options, count=1, warm_up=True)
    try:
        (slot,) = slots.all
        slot.fill(session.check(feeds))
        yield slot.run
    finally:
        slots.close()


def _bound_once(program: Program, feeds: Feeds) -> Call | str:
    """Return ONNX Runtime's fastest loop in Python, everything bound, or why there is none."""
    if not isinstance(program, OrtProgram):
        return f"the model runs on {program.version}"
    session = program.session
    ort = require("onnxruntime", extra="ort")
    binding = session.io_binding()
    kept = []
    for name, array in feeds.items():
        value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
        kept.append((value, array))
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")
    session.run_with_iobinding(binding)
    for output, value in zip(session.get_outputs(), binding.get_outputs(), strict=True):
        if all(isinstance(extent, int) for extent in output.shape):
            binding.bind_ortvalue_output(output.name, value)
            kept.append((value, output))

    def call() -> object:
        session.run_with_iobinding(binding)
        return kept

    return call


def _openvino(graph: bytes, feeds: Feeds) -> Call | str:
    """Return OpenVINO's loop on the same graph, or why there is none."""
    if importlib.util.find_spec("openvino") is None:
        return f"not installed: {OPENVINO.remedy}"
    openvino: Any = import_openvino()
    try:
        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(model=graph), "CPU", {"PERFORMANCE_HINT": "LATENCY"}
        )
        request = compiled.create_infer_request()
        request.infer(dict(feeds))
    except RuntimeError as error:
        return f"OpenVINO {openvino.__version__} refuses it: {str(error).strip().splitlines()[-1]}"
    return lambda: request.infer(dict(feeds))


def _trtexec(plan: bytes, flavour: Flavour) -> Row:
    """Return trtexec's own median of the same plan; its latency is a sum of event times."""
    name = "trtexec"
    if not flavour.trtexec:
        return Row(name, note="it runs TensorRT's plans, and this is none")
    program = shutil.which(flavour.trtexec)
    if program is None:
        return Row(name, note="not on this machine's PATH")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "engine.plan")
        path.write_bytes(plan)
        command = [program, f"--loadEngine={path}", *_TRTEXEC_FLAGS]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ)
        )
    flags = " ".join(_TRTEXEC_FLAGS)
    if done.returncode or not (payload := _MEDIAN.search(done.stdout)):
        return Row(name, note=f"it failed with code {done.returncode} ({flags})")
    return Row(name, median_us=float(payload[1]) * 1e3, note=f"not interleaved; {flags}")

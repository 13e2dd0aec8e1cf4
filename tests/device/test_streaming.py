"""State on every device: each step reads what the last one wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import EngineLoadError, RunError
from edgevision.runtime.device.device import Device, Stream
from edgevision.runtime.device.host import HostDevice
from edgevision.runtime.device.memory import Array, Buffer
from edgevision.runtime.options import RunOptions
from edgevision.runtime.slots.state import StatefulRun, carried_names
from edgevision.runtime.streaming import StreamingCaptioner

FRAME = TensorSpec("frame", DType.INT64, (1,))
NAMES = ("token", "state_0", "state_1", "state_2")
CARRIED = tuple(TensorSpec(name, DType.INT64, (1,)) for name in NAMES)
LAST = TensorSpec("feature_0", DType.INT64, (1,))
MADE = tuple(TensorSpec(f"{name}_next", DType.INT64, (1,)) for name in NAMES)
TOLD = ("token_next",)
GAINED = TensorSpec("gained", DType.INT64, (1,))


class Queue:
    """A program of copies and fills: a queue of words, of which each step takes the first."""

    version = "queue"
    no_graph_reason = ""
    scratch_bytes = 0

    def __init__(self, device: Device, *, is_step: bool) -> None:
        self.device, self.is_step = device, is_step
        self.inputs = (*CARRIED, LAST) if is_step else (FRAME,)
        self.outputs = (*MADE, GAINED) if is_step else (*CARRIED, LAST)
        self.refuses = False

    def execution(self, scratch: Buffer | None) -> QueueExecution:
        return QueueExecution(self)

    def close(self) -> None:
        pass


class QueueExecution:
    def __init__(self, program: Queue) -> None:
        self.program = program
        self.bound: dict[str, Buffer] = {}

    def reshape(self, shapes: Mapping[str, Any]) -> Mapping[str, Any]:
        return {spec.name: spec.shape for spec in self.program.outputs}

    def bind(self, name: str, buffer: Buffer) -> None:
        self.bound[name] = buffer

    def enqueue(self, stream: Stream) -> None:
        if self.program.refuses:
            raise RunError("refused")
        at = self.bound
        if not self.program.is_step:
            # The frame is the first word; 1 and 2 follow it, and the frame again without end.
            stream.fill(at["token"], 0, 8)
            stream.copy(at["state_0"], at["frame"], 8)
            stream.fill(at["state_1"], 1, 8)
            stream.fill(at["state_2"], 2, 8)
            stream.copy(at["feature_0"], at["frame"], 8)
            return
        stream.copy(at["token_next"], at["state_0"], 8)
        stream.copy(at["state_0_next"], at["state_1"], 8)
        stream.copy(at["state_1_next"], at["state_2"], 8)
        stream.copy(at["state_2_next"], at["feature_0"], 8)
        stream.copy(at["gained"], at["token"], 8)

    def fetch(self, name: str) -> Array:
        raise AssertionError(name)

    def close(self) -> None:
        self.bound = {}


def wanted(frame: int) -> list[int]:
    one, two = 0x0101010101010101, 0x0202020202020202
    return [frame, one, two, frame, frame, frame]


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "plain"])
def test_each_step_reads_what_the_last_one_wrote(device: Device, graph: bool) -> None:
    programs = Queue(device, is_step=False), Queue(device, is_step=True)
    search = StatefulRun(*programs, RunOptions(graph=graph), told=TOLD)
    for frame in (5, 70, 900):
        search.begin({"frame": np.array([frame])})
        found = [search.step() for _ in wanted(frame)]
        assert [int(step["token_next"][0]) for step in found] == wanted(frame)
        assert [int(step["gained"][0]) for step in found] == [0, *wanted(frame)[:-1]]
    search.close()
    search.close()


def test_a_frame_may_be_left_for_another(device: Device) -> None:
    search = StatefulRun(Queue(device, is_step=False), Queue(device, is_step=True), told=TOLD)
    for left in range(4):
        search.begin({"frame": np.array([7])})
        for _ in range(left):
            search.step()
    search.begin({"frame": np.array([8])})
    assert [int(search.step()["token_next"][0]) for _ in range(6)] == wanted(8)
    search.close()


def test_a_step_that_fails_frees_all(device: Device) -> None:
    encode, step = Queue(device, is_step=False), Queue(device, is_step=True)
    search = StatefulRun(encode, step, RunOptions(graph=False), told=TOLD)
    search.begin({"frame": np.array([7])})
    step.refuses = True
    with pytest.raises(RunError, match="refused"):
        search.step()
    step.refuses = False
    search.begin({"frame": np.array([9])})
    assert [int(search.step()["token_next"][0]) for _ in range(6)] == wanted(9)
    search.close()


def test_an_engine_that_never_runs_leaves_nothing_behind(device: Device) -> None:
    encode, step = Queue(device, is_step=False), Queue(device, is_step=True)
    step.refuses = True
    with pytest.raises(RunError, match="refused"):
        StatefulRun(encode, step)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": (*CARRIED, LAST, FRAME)},
        {"inputs": CARRIED},
        {"outputs": (*MADE[:3], TensorSpec("state_2_next", DType.INT64, (2,)), GAINED)},
        {"inputs": (TensorSpec("token", DType.INT32, (1,)), *CARRIED[1:], LAST)},
    ],
)
def test_stages_that_do_not_follow_on_each_other(device: Device, change: dict[str, Any]) -> None:
    step = Queue(device, is_step=True)
    for name, specs in change.items():
        setattr(step, name, specs)
    with pytest.raises(EngineLoadError, match="does not follow on the first one's"):
        carried_names(Queue(device, is_step=False), step)


@pytest.mark.parametrize(
    "outputs",
    [MADE, (*MADE[1:], TensorSpec("token_n", DType.INT64, (1,)), GAINED), (*MADE, GAINED, FRAME)],
    ids=["without a score", "without a word", "with more"],
)
def test_a_step_that_is_no_captioners(outputs: tuple[TensorSpec, ...]) -> None:
    encode, step = (Queue(HostDevice(), is_step=is_step) for is_step in (False, True))
    step.outputs = outputs
    decoder: Any = None  # never asked
    with pytest.raises(EngineLoadError, match="does not follow"):
        StreamingCaptioner((encode, step), decoder, end=0, max_length=5)

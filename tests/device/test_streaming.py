"""A search word by word on every device: each step reads what the last one wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import EngineLoadError, RunError
from edgevision.runtime.device.device import Device, Stream
from edgevision.runtime.device.memory import Array, Buffer
from edgevision.runtime.options import RunOptions
from edgevision.runtime.streaming import TokenStream, check_stages

FRAME = TensorSpec("frame", DType.INT64, (1,))
NAMES = ("token", "state_0", "state_1", "state_2")
CARRIED = tuple(TensorSpec(name, DType.INT64, (1,)) for name in NAMES)
LAST = TensorSpec("feature_0", DType.INT64, (1,))
MADE = tuple(TensorSpec(f"{name}_next", DType.INT64, (1,)) for name in NAMES)
GAINED = TensorSpec("gained", DType.INT64, (1,))


class Queue:
    """A program of copies and fills: a queue of words, of which each step takes the first."""

    version = "queue"
    no_graph = ""
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
    search = TokenStream(*programs, RunOptions(graph=graph))
    for frame in (5, 70, 900):
        search.start(np.array([frame]))
        found = [search.step() for _ in wanted(frame)]
        assert [int(step["token"][0]) for step in found] == wanted(frame)
        assert [int(step["gained"][0]) for step in found] == [0, *wanted(frame)[:-1]]
    search.close()
    search.close()


def test_a_frame_may_be_left_for_another(device: Device) -> None:
    search = TokenStream(Queue(device, is_step=False), Queue(device, is_step=True))
    for left in range(4):
        search.start(np.array([7]))
        for _ in range(left):
            search.step()
    search.start(np.array([8]))
    assert [int(search.step()["token"][0]) for _ in range(6)] == wanted(8)
    search.close()


def test_a_step_that_fails_frees_all(device: Device) -> None:
    encode, step = Queue(device, is_step=False), Queue(device, is_step=True)
    search = TokenStream(encode, step, RunOptions(graph=False))
    search.start(np.array([7]))
    step.refuses = True
    with pytest.raises(RunError, match="refused"):
        search.step()
    step.refuses = False
    search.start(np.array([9]))
    assert [int(search.step()["token"][0]) for _ in range(6)] == wanted(9)
    search.close()


def test_an_engine_that_never_runs_leaves_nothing_behind(device: Device) -> None:
    encode, step = Queue(device, is_step=False), Queue(device, is_step=True)
    step.refuses = True
    with pytest.raises(RunError, match="refused"):
        TokenStream(encode, step)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": (*CARRIED, LAST, FRAME)},
        {"inputs": CARRIED},
        {"outputs": (*MADE[:3], TensorSpec("state_2_next", DType.INT64, (2,)), GAINED)},
        {"outputs": MADE},
        {"outputs": (*MADE[1:], GAINED)},
        {"outputs": (*MADE, GAINED, FRAME)},
    ],
)
def test_stages_that_do_not_follow_on_each_other(device: Device, change: dict[str, Any]) -> None:
    step = Queue(device, is_step=True)
    for name, specs in change.items():
        setattr(step, name, specs)
    with pytest.raises(EngineLoadError, match="does not follow on the encoder's"):
        check_stages(Queue(device, is_step=False), step)

"""State that goes from frame to frame: random schedules on the simulated device, and planted bugs.

The program answers each frame with the one before it, which is its state. EDGEVISION_TEST_STATES=
2000 are as many schedules as the project promises; CI does fewer.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import EdgeVisionError, FrameDroppedError, FrameError
from edgevision.runtime.device.host import HostDevice
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.runtime.slots.slots import Slots
from edgevision.runtime.slots.state import CarriedState
from edgevision.runtime.stream.pipeline import Pipeline
from edgevision.runtime.stream.schedule import Schedule as FrameSchedule
from edgevision.runtime.stream.schedule import StreamOptions
from edgevision.tasks.timings import Timings
from edgevision.testing import ScriptedProgram, SimulatedDevice
from tests.parts.echo import ECHO, FRAME, frame
from tests.pipeline.test_interrupted import in_time

SCHEDULES = int(os.environ.get("EDGEVISION_TEST_STATES", "100"))
TRIES = 200
HELD = TensorSpec("held", DType.UINT8, FRAME.shape)
STATE = {"held": "held_next"}
STEPS = ("submit", "submit", "submit", "cut", "reset", "lend", "result", "refused")
NOTHING = np.zeros(FRAME.shape, np.uint8)
Plant = Callable[[pytest.MonkeyPatch], None]


class Codec:
    def feeds(self, frame: np.ndarray) -> dict[str, object]:
        return {"frame": frame}

    def decode(self, outputs: Mapping[str, np.ndarray], timings: Timings) -> np.ndarray:
        assert list(outputs) == ["echo"], "the state is not copied to the host"
        return outputs["echo"]


def program_on(device: Any) -> ScriptedProgram:
    given = TensorSpec("held_next", DType.UINT8, FRAME.shape)
    return ScriptedProgram(device, [FRAME, HELD], [given, ECHO])


def drive(seed: int, steps: list[str], policy: str, order: object) -> None:
    """Bring frames by a schedule, and hold each answer against the frame that ran before it."""
    rng = random.Random(seed)
    device: Any = HostDevice()
    if order != "host":
        device = SimulatedDevice(order=order, integrated=rng.random() < 0.3)  # type: ignore[arg-type]
    program = program_on(device)
    pipeline: Pipeline[Any, Any] = Pipeline(
        program,
        {},
        Codec(),
        StreamOptions(rng.randint(2, 4), policy),  # type: ignore[arg-type]
        run_options=RunOptions(graph=rng.random() < 0.5),
        state=STATE,
    )
    tickets = []
    is_next_cut = False
    for number, step in enumerate(steps, 1):
        if step == "reset":
            pipeline.reset()
            is_next_cut = True
        elif step == "refused":
            with pytest.raises(FrameError):
                pipeline.submit(frame(number)[:, 1:], is_cut=True)
        elif step == "result":
            for ticket, *_ in tickets[-1:]:
                try:
                    ticket.result(20)
                except FrameDroppedError:
                    continue
        else:
            if step == "lend":
                with pipeline.input() as buffer:
                    buffer["frame"][:] = frame(number)
                    ticket = buffer.submit(is_cut=number % 5 == 0)
            else:
                ticket = pipeline.submit(frame(number), is_cut=step == "cut")
            is_cut = step == "cut" or (step == "lend" and number % 5 == 0)
            tickets.append((ticket, number, is_cut or is_next_cut))
            is_next_cut = False
    in_time(pipeline.close)
    program.close()
    before, is_cut = NOTHING, True
    for ticket, number, begins in tickets:
        is_cut |= begins
        try:
            answer = ticket.result(0)
        except FrameDroppedError:
            continue
        expected = NOTHING if is_cut else before
        assert (answer == expected).all(), f"frame {number} has another's state"
        before, is_cut = frame(number), False
    if order != "host":
        assert not any(device.live.values()), f"left behind: {device.live}"


ORDERS = st.one_of(st.sampled_from(["eager", "lazy", "host"]), st.integers(0, 1 << 16))


@settings(max_examples=SCHEDULES, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 1 << 16),
    st.lists(st.sampled_from(STEPS), max_size=14),
    st.sampled_from(["latest", "block", "drop_oldest"]),
    ORDERS,
)
def test_each_frame_has_the_state_of_the_one_before(
    seed: int, steps: list[str], policy: str, order: object
) -> None:
    drive(seed, steps, policy, order)


@pytest.mark.parametrize("device", [HostDevice(), SimulatedDevice()], ids=["host", "simulated"])
def test_a_session_hands_its_state_from_call_to_call(device: Any) -> None:
    with Session(program_on(device), {}, state=STATE) as session:
        assert [spec.name for spec in session.inputs] == ["frame"]
        session.warm_up()
        said = [session.run({"frame": frame(i)})["echo"] for i in (1, 2)]
        with session.run_view({"frame": frame(3)}) as view:
            said.append(np.array(view["echo"]))
        with session.input() as buffer:
            buffer["frame"][:] = frame(4)
            said.append(np.array(buffer.run()["echo"]))
        for found, expected in zip(said, (NOTHING, frame(1), frame(2), frame(3)), strict=True):
            assert (found == expected).all()
        outputs, _ = session.run_timed({"frame": frame(5)}, is_cut=True)
        assert (outputs["echo"] == NOTHING).all()
        session.reset()
        assert (session.run({"frame": frame(6)})["echo"] == NOTHING).all()
        with pytest.raises(FrameError):
            session.run_timed({"frame": frame(0)[:, 1:]}, is_cut=True)
        assert (session.run({"frame": frame(7)})["echo"] == NOTHING).all()  # the cut still stands
    with pytest.raises(ValueError, match="slots: got 2, and this model hands its state"):
        Session(program_on(device), {}, RunOptions(slots=2), state=STATE)


def hands_on_out_of_order(patch: pytest.MonkeyPatch) -> None:
    """On a stream of its own, which waits for nobody."""
    init, hand_on, close = CarriedState.__init__, CarriedState.hand_on, CarriedState.close

    def with_stream(self: Any, program: Any, names: Any) -> None:
        init(self, program, names)
        self.own = program.device.stream()

    def unordered(self: Any, stream: Any) -> None:
        hand_on(self, self.own)

    def close_both(self: Any) -> None:
        close(self)
        self.own.synchronize()
        self.own.close()

    patch.setattr(CarriedState, "__init__", with_stream)
    patch.setattr(CarriedState, "close", close_both)
    patch.setattr(CarriedState, "hand_on", unordered)


def runs_two_frames_at_once(patch: pytest.MonkeyPatch) -> None:
    init = FrameSchedule.__init__

    def deep(self: Any, options: StreamOptions, *, depth: int) -> None:
        init(self, options, depth=max(depth, options.slots))

    patch.setattr(FrameSchedule, "__init__", deep)


def loses_the_cut_of_a_dropped_frame(patch: pytest.MonkeyPatch) -> None:
    drop = FrameSchedule.drop_oldest

    def forgetful(self: Any, by: Any, *why: Any) -> Any:
        if self.waiting:
            self.waiting[0].is_cut = False
        return drop(self, by, *why)

    patch.setattr(FrameSchedule, "drop_oldest", forgetful)


def keeps_the_warm_up_s_state(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Slots, "begin_anew", lambda self: None)


def hands_on_the_state_of_the_run_before(patch: pytest.MonkeyPatch) -> None:
    begin, hand_on = CarriedState.begin, CarriedState.hand_on
    patch.setattr(CarriedState, "hand_on", lambda self, stream: None)

    def late(self: Any, stream: Any) -> None:
        begin(self, stream)
        hand_on(self, stream)

    patch.setattr(CarriedState, "begin", late)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "plant",
    [
        hands_on_out_of_order,
        runs_two_frames_at_once,
        loses_the_cut_of_a_dropped_frame,
        keeps_the_warm_up_s_state,
        hands_on_the_state_of_the_run_before,
    ],
    ids=lambda plant: plant.__name__,
)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(TRIES):
        try:
            drive_drawn(seed)
        except (AssertionError, EdgeVisionError):
            return
    pytest.fail(f"{TRIES} schedules did not find it")


def test_without_a_plant_nothing_is_found() -> None:
    for seed in range(TRIES):
        drive_drawn(seed)


def drive_drawn(seed: int) -> None:
    rng = random.Random(seed)
    steps = [rng.choice(STEPS) for _ in range(12)]
    drive(seed, steps, rng.choice(["latest", "block", "drop_oldest"]), rng.randrange(99))

"""Random schedules on the simulated device: no frame is lost, doubled, reordered or torn.

EDGEVISION_TEST_SCHEDULES=5000 are as many as the project promises; CI does fewer.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pipeline.drive import CLOCKS, MOMENTS, STEPS, Schedule, check

SCHEDULES = int(os.environ.get("EDGEVISION_TEST_SCHEDULES", "600"))


@st.composite
def schedules(draw: Any) -> Schedule:
    policy = draw(st.sampled_from(["latest", "block", "drop_oldest"]))
    return Schedule(
        slots=draw(st.integers(1 if policy == "block" else 2, 4)),
        policy=policy,
        order=draw(st.one_of(st.sampled_from(["eager", "lazy", "host"]), st.integers(0, 1 << 16))),
        integrated=draw(st.booleans()),
        graph=draw(st.booleans()),
        refuse_run=draw(st.sampled_from([0, 0, 0, 1, 2, 5])),
        fail_operation=draw(st.sampled_from([0, 0, 0, 0, 3, 10, 20])),
        on_device=draw(st.booleans()),
        steps=draw(st.lists(st.sampled_from(STEPS), max_size=14)),
        drain=draw(st.booleans()),
        drops_late=draw(st.booleans()),
        moment=draw(st.integers(0, MOMENTS - 1)),
        clock=draw(st.sampled_from(sorted(CLOCKS))),
    )


@settings(
    max_examples=SCHEDULES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(schedules())
def test_no_schedule_loses_doubles_reorders_or_tears_a_frame(schedule: Schedule) -> None:
    check(schedule)

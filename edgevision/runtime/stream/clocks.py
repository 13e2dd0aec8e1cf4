"""The clock by which a camera stamps its frames, and the check of a stamp."""

from __future__ import annotations

import operator
from collections.abc import Callable
from time import monotonic_ns, perf_counter_ns, time_ns
from typing import Literal

Clock = Literal["perf_counter", "monotonic", "realtime"] | Callable[[], int]

_CLOCKS: dict[str, Callable[[], int]] = {
    "perf_counter": perf_counter_ns,
    "monotonic": monotonic_ns,
    "realtime": time_ns,
}
_MAX_AHEAD_NS = 60 * 10**9
_OLDEST_NS = 3600 * 10**9


class StampClock:
    """Turns stamps of one clock into `time.perf_counter_ns`, by which everything here is timed."""

    def __init__(self, clock: Clock) -> None:
        """Take a clock's name, or a function that returns its time in nanoseconds.

        Raises:
            ValueError: there is no clock of that name.
            TypeError: the function's time is not an integer.
        """
        if callable(clock):
            self._now_ns = clock
        elif isinstance(clock, str) and clock in _CLOCKS:
            self._now_ns = _CLOCKS[clock]
        else:
            raise ValueError(
                f"clock: got {clock!r}, expected one of {', '.join(_CLOCKS)}, or a function that "
                "returns nanoseconds"
            )
        self._is_ours = self._now_ns is perf_counter_ns
        self._name = clock if isinstance(clock, str) else getattr(clock, "__name__", "your clock")
        if not self._is_ours:
            _integer(self._now_ns(), "the clock's time")

    def now_ns(self) -> int:
        """Return the clock's time."""
        return _integer(self._now_ns(), "the clock's time")

    def stamp_ns(self, stamp_ns: int) -> int:
        """Return a stamp as `time.perf_counter_ns`.

        How far the clocks are apart is measured for each stamp: NTP and PTP set theirs at any time.

        Raises:
            TypeError: it is not an integer.
            ValueError: it is over an hour old or a minute ahead, so of another clock or unit.
        """
        if type(stamp_ns) is not int:
            stamp_ns = _integer(stamp_ns, "stamp_ns")
        now_ns = perf_counter_ns()
        age_ns = (now_ns if self._is_ours else self._now_ns()) - stamp_ns
        if not -_MAX_AHEAD_NS <= age_ns <= _OLDEST_NS:
            state = "old" if age_ns > 0 else "ahead"
            raise ValueError(
                f"stamp_ns: {stamp_ns} is {abs(age_ns) / 1e9:.0f} s {state} by {self._name}. Give "
                "nanoseconds of the pipeline's clock: time.perf_counter_ns() unless it was opened "
                'with another, as stream(clock="realtime") for time.time_ns(), ROS and PTP'
            )
        return now_ns - age_ns


def _integer(value: object, what: str) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{what}: got {type(value).__name__} {value!r:.60}, expected an integer number of "
            "nanoseconds: int(seconds * 1e9), or stamp.sec * 10**9 + stamp.nanosec of a ROS message"
        ) from None

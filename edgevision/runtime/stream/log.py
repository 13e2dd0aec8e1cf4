"""What a pipeline says of itself to the log: at most a line in five seconds of each kind.

The logger is `edgevision.runtime.stream.log`. Frames that were dropped or late are INFO, a device
that does not answer is WARNING, a failed engine and a callback that raised are ERROR.
"""

from __future__ import annotations

import logging
from collections import deque
from time import perf_counter_ns
from typing import Any

from edgevision.runtime.stream.schedule import Counters
from edgevision.runtime.stream.ticket import Ticket

_EVERY_NS = 5_000_000_000
_KEPT_ERRORS = 64
_log = logging.getLogger(__name__)


class PipelineLog:
    """Logs for one worker.

    Attributes:
        callback_errors: what callbacks raised and nobody has been told of.
    """

    def __init__(self, device: str) -> None:
        """Log of what runs on `device`, a name."""
        self.callback_errors: deque[BaseException] = deque(maxlen=_KEPT_ERRORS)
        self._device = device
        self._before: Counters | None = None
        self._drops_ns = self._callbacks_ns = -_EVERY_NS
        self._is_stalled = False

    def are_drops_due(self) -> bool:
        """Whether it is time to look at the counters again."""
        return perf_counter_ns() - self._drops_ns > _EVERY_NS

    def drops(self, now: Counters) -> None:
        """Log what was dropped or late since the last line, if anything was."""
        self._drops_ns = perf_counter_ns()
        before, self._before = self._before, now
        dropped = now.dropped - (before.dropped if before else 0)
        late = now.late - (before.late if before else 0)
        if dropped or late:
            _log.info("dropped %d frames, %d were late; since the start: %s", dropped, late, now)

    def stalled(self, age_ms: float) -> None:
        """Log once that the device does not answer; 0 once it does."""
        if age_ms and not self._is_stalled:
            _log.warning("%s has not answered for %.0f ms", self._device, age_ms)
        self._is_stalled = age_ms > 0

    def failed(self, error: BaseException, frames: list[int]) -> None:
        """Log that the engine failed, and which frames were lost with it."""
        _log.error("the engine failed, and frames %s are lost: %s", frames, error)

    def callback_raised(self, error: BaseException, ticket: Ticket[Any]) -> None:
        """Log what a callback raised, and keep it for the next `submit` or `close`.

        What `ticket.result()` raised in it is the frame's outcome, which is told and counted.
        """
        payload = ticket.error()
        if payload is not None and type(error) is type(payload) and error.args == payload.args:
            return
        now_ns = perf_counter_ns()
        if now_ns - self._callbacks_ns > _EVERY_NS:
            self._callbacks_ns = now_ns
            _log.error("a callback of the pipeline raised", exc_info=error)
        self.callback_errors.append(error)

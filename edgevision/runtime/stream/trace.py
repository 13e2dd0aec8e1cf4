"""A trace of a pipeline's stages, to be looked at in ui.perfetto.dev or chrome://tracing.

The file is the JSON array of the Trace Event Format, and valid for those readers at any moment. A
row for each slot shows its frames: copy in, wait, run, answer; another the callbacks and what was
dropped.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from itertools import pairwise
from time import perf_counter_ns

from edgevision.errors import FileWriteError

_log = logging.getLogger(__name__)
_WORKER = 0
_STAGES = ("copy in", "wait", "run", "answer", "callbacks")
_KEPT_DROPS = 1024


class Trace:
    """Writes one file; only the worker's thread, which no signal interrupts, writes to it."""

    def __init__(self, path: str | os.PathLike[str], slots: int) -> None:
        """Make the file.

        Raises:
            FileWriteError: it exists, and is not replaced, or cannot be made.
        """
        try:
            self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise FileWriteError(
                f"trace: {os.fspath(path)}: {error.strerror}. Give a name that is free, in a "
                "folder that is there."
            ) from error
        self._dropped: deque[tuple[int, int, str]] = deque(maxlen=_KEPT_DROPS)
        self._free_ns = [0] * (slots + 1)
        self._pid = os.getpid()
        names = ["callbacks", *(f"slot {number}" for number in range(slots))]
        rows = [("process_name", _WORKER, "edgevision pipeline")]
        rows += [("thread_name", row, name) for row, name in enumerate(names)]
        events = [self._event("M", what, row, args={"name": name}) for what, row, name in rows]
        self._write("[\n" + ",\n".join(events))

    def frame(self, sequence: int, slot: int, times_ns: tuple[int, ...]) -> None:
        """Note a frame that ran: when its copy, its wait, its run and its answer began and ended.

        `times_ns` ends with when its callbacks were done.
        """
        events = []
        for stage, (begin_ns, end_ns) in zip(_STAGES, pairwise(times_ns), strict=True):
            row = _WORKER if stage == "callbacks" else slot + 1
            begin_ns = max(begin_ns, self._free_ns[row])  # it may have waited for the slot itself
            self._free_ns[row] = end_ns
            length_us = (end_ns - begin_ns) / 1e3
            events.append(
                self._event("X", stage, row, begin_ns, dur=length_us, args={"frame": sequence})
            )
        while self._dropped:
            number, at_ns, why = self._dropped.popleft()
            args = {"frame": number, "why": why}
            events.append(self._event("i", "dropped", _WORKER, at_ns, s="t", args=args))
        self._write("".join(",\n" + event for event in events))

    def drop(self, sequence: int, why: str) -> None:
        """Note a frame that did not run; on any thread."""
        self._dropped.append((sequence, perf_counter_ns(), why))

    def close(self) -> None:
        """End the array; safe to call twice."""
        self._write("\n]\n")
        self._file.close()

    def _event(self, kind: str, name: str, row: int, at_ns: int = 0, **more: object) -> str:
        fields = {"ph": kind, "name": name, "pid": self._pid, "tid": row, "ts": at_ns / 1e3}
        return json.dumps({**fields, **more})

    def _write(self, text: str) -> None:
        if self._file.closed:
            return
        try:
            self._file.write(text.encode())
        except OSError as error:  # a full disk ends the trace, not the pipeline
            _log.error("the trace ends here: %s", error)
            self._file.close()

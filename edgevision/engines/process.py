"""Run one module in a child process that may crash, hang or babble without harm to this one.

The child gets a request on stdin, and on the command line the number of a pipe for its messages
and its parent's process number. A message is one line of JSON: {"progress": [phase, done, total]},
and at the end {"result": {...}} or {"error": "..."}. What it prints is its log.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import edgevision
from edgevision.errors import BuildError, InsufficientMemoryError
from edgevision.progress import Progress

_MAX_LOG_BYTES = 1 << 20
_MAX_MESSAGE_BYTES = 1 << 20
_MAX_QUOTED_CHARS = 500
# How soon a child is missed that died while a process of its own keeps its pipes open.
_POLL_S = 0.5
_SECRETS = ("EDGEVISION_KEY_PASSPHRASE", "SIGNING_KEY_PEM")

_KILLED = (
    "the build was killed, most likely for memory. Close other programs, or lower "
    "workspace_bytes or optimization_level (--set KEY=VALUE)"
)


def run_child(
    module: str, request: str, progress: Progress, *, timeout_s: float | None = None
) -> tuple[Mapping[str, Any], str]:
    """Run `python -m module`, pass its progress on, and return its result and its log.

    However this ends, the child is gone: an exception here, KeyboardInterrupt too, kills it.

    Raises:
        BuildError: the child reported an error, died, ended without a result, sent what is no
            message, or took longer than `timeout_s`; `log` has what it printed.
    """
    heard = _Heard(progress)
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as messages:
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", module, str(write_end), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[write_end],
                # `-m` imports from the working directory first; the user's may hold any json.py.
                cwd=Path(edgevision.__file__).parents[1],
                # A builder runs a stranger's graph, and has no use for what signs.
                env={k: v for k, v in os.environ.items() if k not in _SECRETS},
                # Ctrl-C reaches only this process, which then ends the child.
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        with child:
            try:
                _send(child, request)
                failure = _listen(child, messages.fileno(), heard, timeout_s)
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
    if failure is None:
        failure = heard.error
    if failure is None and (child.returncode or heard.result is None):
        failure = _obituary(child.returncode, heard.log_text())
    if failure is not None:
        # By the kernel: what we kill ourselves has given its reason before.
        was_killed = failure == _KILLED
        raise (InsufficientMemoryError if was_killed else BuildError)(failure, log=heard.log_text())
    assert heard.result is not None
    return heard.result, heard.log_text()


class _NoMessageError(Exception):
    """The child sent something else than a message."""


class _Heard:
    """What a child has said so far, in bounded memory."""

    def __init__(self, progress: Progress) -> None:
        self.result: Mapping[str, Any] | None = None
        self.error: str | None = None
        self._progress = progress
        self._line = bytearray()
        self._log = bytearray()
        self._lost_bytes = 0

    def log(self, data: bytes) -> None:
        """Keep the end of what was printed."""
        self._log += data
        excess = max(0, len(self._log) - _MAX_LOG_BYTES)
        self._lost_bytes += excess
        del self._log[:excess]

    def log_text(self) -> str:
        """Return what was printed, or its end."""
        cut = f"[{self._lost_bytes} bytes before this are lost]\n" if self._lost_bytes else ""
        return cut + self._log.decode("utf-8", "replace")

    def messages(self, data: bytes) -> None:
        """Take whole messages from the pipe; half a line of a child that died is not a message.

        Raises:
            _NoMessageError: a line is not a message.
        """
        self._line += data
        *lines, rest = self._line.split(b"\n")
        for line in lines:
            self._message(bytes(line))
        self._line = bytearray(rest)
        if len(rest) > _MAX_MESSAGE_BYTES:
            raise _NoMessageError(f"{len(rest)} bytes without an end")

    def _message(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError as cause:
            raise _NoMessageError(str(cause)) from cause
        match message:
            case {"progress": [str(phase), int(done), int(total)]}:
                self._progress(phase, done, total)
            case {"result": dict(result)}:
                self.result = result
            case {"error": str(error)}:
                self.error = error
            case _:
                raise _NoMessageError(repr(line[:_MAX_QUOTED_CHARS]))


def _send(child: subprocess.Popen[bytes], request: str) -> None:
    assert child.stdin is not None
    try:
        with child.stdin:
            child.stdin.write(request.encode())
    except BrokenPipeError:
        # It died before it read; its exit code says how.
        pass


def _listen(
    child: subprocess.Popen[bytes], messages: int, heard: _Heard, timeout_s: float | None
) -> str | None:
    """Hear the child until it is over; return why it was given up, None if it was not."""
    assert child.stdout is not None
    late = f"it took longer than {timeout_s} s and was ended"
    deadline_s = float("inf") if timeout_s is None else monotonic() + timeout_s
    with selectors.DefaultSelector() as ears:
        ears.register(messages, selectors.EVENT_READ, heard.messages)
        ears.register(child.stdout, selectors.EVENT_READ, heard.log)
        while ears.get_map():
            if (left_s := deadline_s - monotonic()) <= 0:
                return late
            ready = ears.select(min(left_s, _POLL_S))
            if not ready and child.poll() is not None:
                # Whoever was stopped meanwhile (Ctrl-Z) wakes up late, to messages that wait.
                ready = ears.select(0)
                if not ready:
                    return None
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    ears.unregister(key.fileobj)
                    continue
                try:
                    key.data(data)
                except _NoMessageError as error:
                    return f"the builder sent something else than a message: {error}"
    try:
        child.wait(None if timeout_s is None else max(0.0, deadline_s - monotonic()))
    except subprocess.TimeoutExpired:
        return late
    return None


def _obituary(code: int, log: str) -> str:
    """Say how a child ended that did not say so itself."""
    if code == -signal.SIGKILL:
        return _KILLED
    if code < 0:
        return (
            f"the builder crashed ({signal.Signals(-code).name}). The graph that did it is worth "
            "a report to the builder's makers"
        )
    last = (log.strip().splitlines() or ["nothing"])[-1][:_MAX_QUOTED_CHARS]
    return f"the builder ended with code {code} and no result; the last it said: {last}"

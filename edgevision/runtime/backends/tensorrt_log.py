"""What TensorRT says while it works: one logger a module, its errors by thread, Ctrl-C kept.

TensorRT keeps the first logger that a process gives it and warns of every other one. It holds a
lock while it logs, and `Runtime()` waits for that lock without giving up the interpreter's: where
one thread logs and another enters `Runtime()`, each has what the other needs, for good. So there is
one logger, and whatever loads or frees goes through `calling`, one thread at a time.
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

_log = logging.getLogger(__name__)
_KEPT_ERRORS = 3
# Follows every real reason where CUDA does not start, and repeats it in fewer words.
_NOISE = "catchCudaError"
_CUDA_ERROR = re.compile(r"cudaError (\d+)[^)]*")
# cudaError's numbers for a plan that was made for another GPU: not the GPU's fault.
_PLANS_FAULT = {"98", "200", "209"}
_ADVICE = {
    "2": "The GPU's memory is full: close other programs, or use fewer slots.",
    "35": "The NVIDIA driver is missing, or older than this library's CUDA: update it.",
    "100": "No GPU is visible to this process: check nvidia-smi and CUDA_VISIBLE_DEVICES.",
}
_logs: WeakKeyDictionary[ModuleType, TensorRTLog] = WeakKeyDictionary()
_lock = threading.RLock()


class TensorRTLog:
    """What a module says to `logging`, and what each thread was told of errors.

    Attributes:
        logger: the `ILogger` that the module takes.
    """

    def __init__(self, trt: ModuleType) -> None:
        self._own = threading.local()
        self.logger = _logger(trt, self._hear)

    def _hear(self, level: int, message: str) -> None:
        try:
            if level == logging.ERROR:
                kept = getattr(self._own, "errors", [])
                self._own.errors = [*kept[1 - 2 * _KEPT_ERRORS :], message.strip()]
            # Noise is not an error, and neither is what was asked to see how it is refused.
            is_quiet = getattr(self._own, "is_quiet", False) or not without_noise(message)
            _log.log(logging.DEBUG if is_quiet else level, "%s", message)
        except BaseException as error:
            # The binding would print it and go on, also where it is KeyboardInterrupt.
            self._own.raised = error

    def pop_errors(self) -> list[str]:
        """Return this thread's last errors, without noise, and forget them."""
        errors: list[str] = self._own.__dict__.pop("errors", [])
        reasons = [" ".join(lines) for error in errors if (lines := without_noise(error))]
        return reasons[-_KEPT_ERRORS:] or errors[-1:]

    def pop_messages(self) -> str:
        """Return all that this thread was told of errors, noise too, and forget it."""
        return " ".join(self._own.__dict__.pop("errors", []))

    def raise_kept(self) -> None:
        """Raise what was raised on this thread while TensorRT logged."""
        error = self._own.__dict__.pop("raised", None)
        if error is not None:
            raise error

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Enter TensorRT to load or free: one thread at a time, interrupts once it has returned."""
        with _lock, _interrupts_after():
            try:
                yield
            finally:
                self.raise_kept()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Let this thread's errors be no errors of `logging`'s inside the block."""
        self._own.is_quiet = True
        try:
            yield
        finally:
            self._own.is_quiet = False


def get_log(trt: ModuleType) -> TensorRTLog:
    """Return the module's log, made once."""
    with _lock:
        if trt not in _logs:
            _logs[trt] = TensorRTLog(trt)
        return _logs[trt]


def _logger(trt: ModuleType, hear: Callable[[int, str], None]) -> Any:
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.WARNING,
    }

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, message: str) -> None:
            hear(levels.get(severity, logging.DEBUG), message)

    return Logger()


def without_noise(message: str) -> list[str]:
    """Return the lines of a message of TensorRT's that give a reason."""
    return [line for line in message.strip().splitlines() if _NOISE not in line]


def cuda_failure(reason: str) -> str:
    """Return how CUDA itself failed, out of TensorRT's words; "" where it did not."""
    found = _CUDA_ERROR.search(reason)
    return "" if found is None or found[1] in _PLANS_FAULT else found[0]


def cuda_advice(reason: str) -> str:
    """Return what to do where CUDA itself failed, by TensorRT's words for it; "" where not."""
    found = _CUDA_ERROR.search(cuda_failure(reason))
    return (
        ""
        if found is None
        else _ADVICE.get(found[1], "Look at the driver and the GPU: run nvidia-smi.")
    )


@contextmanager
def _interrupts_after() -> Iterator[None]:
    """Hold back Ctrl-C, which else were raised at the first line of `log`, and lost there."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    pressed: list[Any] = []
    try:
        signal.signal(signal.SIGINT, lambda number, frame: pressed.append((number, frame)))
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed:
            handler(*pressed[-1])


def join_reasons(errors: Sequence[str]) -> str:
    """Return errors as the end of a sentence."""
    return (
        "; ".join(error.rstrip(". ") for error in errors) + "."
        if errors
        else ("it gave no reason.")
    )

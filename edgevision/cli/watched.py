"""A verb in a process of its own, so that what a native library does to it can be told."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Callable

from edgevision.errors import InsufficientMemoryError, RunError

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


def watched(run: Callable[[], int], *, debug: bool = False) -> int:
    """Return what `run` returns in a copy of this process, which has one thread yet.

    In the copy this returns as well, and the caller ends it.

    Args:
        run: the verb.
        debug: show where a crash was.

    Raises:
        InsufficientMemoryError: the copy was killed.
        RunError: it crashed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # Where whoever started this ignores it, the kernel would tell nobody that the copy ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    waited_for = {*_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    parent, child = os.getpid(), os.fork()
    if not child:
        _end_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if debug:
            faulthandler.enable()
        return run()
    status = 0
    while True:
        heard = signal.sigwaitinfo(waited_for)
        if heard.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
        elif heard.si_code <= 0:  # what a terminal sends reaches the child by itself
            os.kill(child, heard.si_signo)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    number = signal.Signals(-code)
    if number in _PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    if number is signal.SIGKILL:
        raise InsufficientMemoryError(
            "it was killed, most likely for memory. Close other programs, or take fewer samples"
        )
    raise RunError(
        f"a library crashed ({number.name}), and the work with it; what was there before is "
        "untouched. Where it was: edgevision --debug VERB"
    )


def _end_with(parent: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

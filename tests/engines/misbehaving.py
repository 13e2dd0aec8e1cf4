"""A child for `run_child` that does what its request says: all that a builder may do wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

PIPE = int(sys.argv[1])


def tell(kind: str, content: object) -> None:
    os.write(PIPE, json.dumps({kind: content}).encode() + b"\n")


def show_environment() -> None:
    print(dict(os.environ))
    tell("result", {})


def die_and_leave_a_process() -> None:
    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(3600)"], pass_fds=[PIPE]
    )
    print(f"left {left.pid}", flush=True)
    os.abort()


def babble() -> None:
    for _ in range(1 << 18):
        sys.stdout.write("x" * 9 + "\n")
    print("the end")
    tell("result", {})


def close_everything_and_stay() -> None:
    tell("result", {})
    for fd in (0, 1, 2, PIPE):
        os.close(fd)
    time.sleep(3600)


ACTIONS: dict[str, Callable[[], object]] = {
    "abort": os.abort,
    "babble": babble,
    "close everything and stay": close_everything_and_stay,
    "die and leave a process": die_and_leave_a_process,
    "end": lambda: None,
    "exit": lambda: (print("something broke"), sys.exit(3)),
    "half a message": lambda: (os.write(PIPE, b'{"result": {'), sys.exit(4)),
    "hang": lambda: time.sleep(3600),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "nonsense": lambda: (os.write(PIPE, b"\xff\xfe no JSON\n"), time.sleep(3600)),
    "number": lambda: (os.write(PIPE, b"7\n"), time.sleep(3600)),
    "result, then crash": lambda: (tell("result", {}), os.abort()),
    "result": lambda: (tell("progress", ["a", 1, 2]), print("\udcff hi"), tell("result", {"a": 1})),
    "error": lambda: tell("error", "the graph is odd"),
    "environment": show_environment,
    "endless": lambda: [os.write(PIPE, b"x" * 65536) for _ in range(1000)],
}

if __name__ == "__main__":
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    ACTIONS[sys.stdin.read()]()

"""A build's child process: killed, crashed, late or interrupted, it never takes anyone along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from edgevision.bundle.targets import get_target
from edgevision.engines.builder import build_engine
from edgevision.engines.registry import unavailable
from edgevision.engines.request import BuildRequest
from edgevision.errors import BuildError

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    unavailable(get_target("rtx")) is not None, reason="TensorRT-RTX is not installed"
)


@pytest.fixture
def request_of_seconds(tmp_path: Path) -> BuildRequest:
    """A build that takes long enough to be disturbed."""
    rng = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for i in range(24):
        weights.append(
            numpy_helper.from_array(rng.normal(size=(64, 64, 3, 3)).astype(np.float32), f"w{i}")
        )
        nodes.append(helper.make_node("Conv", [name, f"w{i}"], [f"c{i}"], pads=[1] * 4))
        nodes.append(helper.make_node("Sigmoid", [f"c{i}"], [f"s{i}"]))
        name = f"s{i}"
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("x", 1, [1, 64, 64, 64])],
        [helper.make_tensor_value_info(name, 1, [1, 64, 64, 64])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "deep.onnx"
    source.write_bytes(model.SerializeToString())
    (tmp_path / "out").mkdir()
    return BuildRequest(source, get_target("rtx"), tmp_path / "out" / "deep.plan")


def children(parent: int) -> list[int]:
    """List the build processes of `parent`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        is_build = b"edgevision.engines.child" in command and status[0] != "Z"
        if is_build and command.rstrip(b"\0").endswith(f"\0{parent}".encode()):
            found.append(int(entry.name))
    return found


def wait_for(parent: int, *, alive: bool) -> list[int]:
    for _ in range(600):
        found = children(parent)
        if bool(found) is alive:
            return found
        time.sleep(0.05)
    raise AssertionError(f"children of {parent}: {children(parent)}, wanted alive={alive}")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, "was killed, most likely for memory. Close other programs"),
        (signal.SIGSEGV, r"crashed \(SIGSEGV\)"),
        (signal.SIGABRT, r"crashed \(SIGABRT\)"),
    ],
)
def test_a_child_that_dies_is_an_error_message(
    request_of_seconds: BuildRequest, number: signal.Signals, message: str
) -> None:
    def strike() -> None:
        for process in wait_for(os.getpid(), alive=True):
            os.kill(process, number)

    striker = threading.Thread(target=strike)
    striker.start()
    with pytest.raises(BuildError, match=message):
        build_engine(request_of_seconds)
    striker.join()
    assert not list(request_of_seconds.output.parent.iterdir())


def test_a_child_that_is_late_is_stopped(request_of_seconds: BuildRequest) -> None:
    with pytest.raises(BuildError, match=r"took longer than 0\.1 s"):
        build_engine(request_of_seconds, timeout_s=0.1)
    assert not children(os.getpid())
    assert not list(request_of_seconds.output.parent.iterdir())


# A child that is stopped cannot end by itself.
SCRIPT = """
import os, signal, sys
from pathlib import Path
from edgevision.engines.builder import build_engine
from edgevision.engines.request import BuildRequest
from edgevision.bundle.targets import get_target
from tests.engines.test_child import children

def freeze(phase, done, total):
    for child in children(os.getpid()):
        os.kill(child, signal.SIGSTOP)
        print(child, flush=True)

build_engine(BuildRequest(Path(sys.argv[1]), get_target("rtx"), Path(sys.argv[2])), freeze)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_child_does_not_outlive_its_parent(
    request_of_seconds: BuildRequest, number: signal.Signals
) -> None:
    arguments = [str(request_of_seconds.graph), str(request_of_seconds.output)]
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        try:
            assert parent.stdout is not None
            assert int(parent.stdout.readline()) in children(parent.pid)
            parent.send_signal(number)
            assert parent.wait(timeout=30) == -number
            wait_for(parent.pid, alive=False)
        finally:
            for child in children(parent.pid):
                os.kill(child, signal.SIGKILL)
            parent.kill()
    left = [path.name for path in request_of_seconds.output.parent.iterdir()]
    if number == signal.SIGINT:
        assert left == []
    assert "deep.plan" not in left, "half an engine looks like a whole one"


def test_a_failed_build_leaves_the_old_engine(request_of_seconds: BuildRequest) -> None:
    request_of_seconds.output.write_bytes(b"the old engine")
    with pytest.raises(BuildError):
        build_engine(request_of_seconds, timeout_s=0.1)
    assert request_of_seconds.output.read_bytes() == b"the old engine"


def test_nonsense_to_the_child_is_no_success() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgevision.engines.child", "1", str(os.getpid())],
        input=b"{}", capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert b"built" not in done.stdout

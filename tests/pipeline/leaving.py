"""Ends a process with pipelines open: python -m tests.pipeline.leaving WAY STATE KIND GRAPH.

It ends with the code of `CODES`. A forked child ends first, by itself, with another.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgevision.bundle.flavours import ORT
from edgevision.runtime.model import Model
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from edgevision.runtime.stream.ticket import Ticket
from edgevision.tasks.tensors import TensorsDecoder
from edgevision.testing import SimulatedDevice
from tests.parts.echo import frame, program_on

CODES = {"exit": 3, "raise": 1, "term": 5, "twice": -signal.SIGINT, "fork": 4}
STATES = ("idle", "in flight", "in a callback")
KINDS = ("host", "simulated")
SHAPE = (1, 16, 96, 96)
CHILD = 7
SOON_S = 0.2
LONG_S = 30.0


def write_graph(path: Path) -> None:
    """Write a graph that takes some tens of milliseconds."""
    from onnx import TensorProto, helper, numpy_helper

    names = ["x", *(f"t{i}" for i in range(39)), "y"]
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", [names[i], "w"], [names[i + 1]], pads=pads) for i in range(40)
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xy")
    w = numpy_helper.from_array(np.full((16, 16, 3, 3), 1e-3, np.float32), "w")
    graph = helper.make_graph(nodes, "g", [x], [y], [w])
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(net.SerializeToString())


def open_model(kind: str, graph: Path) -> tuple[Model[Any], dict[str, Any]]:
    """Return a model, and a frame of its; a simulated device begins to work a little later."""
    if kind == "host":
        options = RunOptions(cpu_threads=2)
        session = Session.open(graph.read_bytes(), flavour=ORT, options=options)
        feeds: dict[str, Any] = {"x": np.zeros(SHAPE, np.float32)}
    else:
        session = Session(program_on(SimulatedDevice()), {}, RunOptions())
        feeds = {"frame": frame(1)}
    return Model(None, session, None, TensorsDecoder(session.inputs)), feeds  # type: ignore[arg-type]


def press_twice() -> None:
    for _ in range(2):
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)


def main(way: str, state: str, kind: str, graph: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(CODES["term"]))
    model, feeds = open_model(kind, graph)
    entered = threading.Event()

    def callback(ticket: Ticket[Any]) -> None:
        entered.set()
        time.sleep(SOON_S)

    on_result: Callable[[Ticket[Any]], None] | None = callback if "callback" in state else None
    pipelines = [model.stream(on_result=on_result) for _ in range(2)]
    device = model.session.program.device
    if kind == "simulated" and state == "in flight":
        device.stall()  # type: ignore[attr-defined]
        timer = threading.Timer(SOON_S, device.resume)  # type: ignore[attr-defined]
        timer.daemon = True
        timer.start()
    for pipeline in pipelines * (0 if state == "idle" else 3):
        pipeline.submit(feeds)
    assert on_result is None or entered.wait(LONG_S)
    if way == "twice":
        threading.Thread(target=press_twice, daemon=True).start()
        with model:  # whose end is left by the second
            time.sleep(LONG_S)
    if way == "term":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LONG_S)
    if way == "raise":
        raise RuntimeError("on purpose")
    if way == "fork":
        if not (child := os.fork()):
            sys.exit(CHILD)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != CHILD:
            sys.exit(f"the child ended with {os.waitstatus_to_exitcode(status)}")
    sys.exit(CODES[way] if way == "fork" else CODES["exit"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))

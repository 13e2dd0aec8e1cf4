"""What is done with the real TensorRT-RTX on the stand-in driver, each in a process of its own.

Its CUDA asks the driver to prove that it is NVIDIA's, and stops there: a guard, which nothing here
answers. What runs before it is the library's own: its logging, its locks and its refusals.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import onnx
import tensorrt_rtx as trt
from onnx import TensorProto, helper

from edgevision.errors import EngineLoadError
from edgevision.runtime.backends.tensorrt_program import make_logger
from edgevision.runtime.backends.trt_rtx import open_program
from edgevision.runtime.device.cuda.device import cuda_device
from edgevision.runtime.options import RunOptions

_LOG = logging.getLogger("edgevision")


def plan() -> bytes:
    """Build a plan of one node, which needs no driver."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(net)
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(net.SerializeToString())
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    return bytes(builder.build_serialized_network(network, config))


def refused(content: bytes) -> str:
    """Load it, and return why it was refused."""
    try:
        open_program(content, cuda_device(), RunOptions(graph=True)).close()
    except EngineLoadError as error:
        return str(error)
    return "it was taken"


class Handler(logging.Handler):
    """Does what a user's handler may do with each record."""

    def __init__(self, does: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self._does = does

    def emit(self, record: logging.LogRecord) -> None:
        self._does(record)


def loads_in_two_threads() -> None:
    """Load beside a loaded one, with a handler that gives up the interpreter's lock."""
    _LOG.addHandler(Handler(lambda record: time.sleep(0.001)))
    _LOG.setLevel(logging.DEBUG)
    content = plan()
    alive = trt.Runtime(make_logger(trt))

    def load() -> None:
        for _ in range(10):
            refused(content)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("both ended", alive is not None)


def warns_of_nothing() -> None:
    """Load twice, and print what is logged as a warning."""
    _LOG.addHandler(
        Handler(lambda r: print(r.getMessage()) if r.levelno == logging.WARNING else None)
    )
    content = plan()
    alive = trt.Runtime(make_logger(trt))
    refused(content)
    refused(content)
    print("loaded twice", alive is not None)


def refuses_a_good_plan() -> None:
    """Print why a whole plan is refused where CUDA does not start."""
    print(refused(plan()))


def refuses_rubbish() -> None:
    """Print why what is not a plan is refused."""
    print(refused(b"not a plan"))


def is_interrupted() -> None:
    """Press Ctrl-C at the first line that is logged while a plan is loaded."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    content = plan()
    pressed: list[Any] = []

    def press(record: logging.LogRecord) -> None:
        if not pressed:
            pressed.append(record)
            signal.raise_signal(signal.SIGINT)

    _LOG.setLevel(logging.DEBUG)
    _LOG.addHandler(Handler(press))
    try:
        print("the load went on:", refused(content))
    except KeyboardInterrupt:
        print("KeyboardInterrupt", len(pressed))


def doctor() -> None:
    """Print what doctor finds of the GPU."""
    from edgevision.cli.doctor import examine_gpu

    for finding in examine_gpu():
        print(f"{finding.what}: {finding.found} -> {finding.remedy}")


if __name__ == "__main__":
    globals()[sys.argv[1]]()

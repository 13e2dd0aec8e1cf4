"""How a model is run: the few choices that a user may have to make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_MAX_THREADS = 1024


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Choices made at load; the defaults suit most.

    Attributes:
        slots: how many threads may run the model at once; each slot has its own buffers.
        graph: launch captured CUDA graphs where that is possible.
        spin: wait with a busy core for the lowest latency; otherwise the thread sleeps.
        priority: of the streams; lower goes first.
        timing: measure copies and compute by device events.
        cpu_threads: of ONNX Runtime or OpenVINO on the CPU, the caller's own among them; 0 takes
            one for each core, or for each of `affinity`. One leaves the others to your control
            loop, and is faster for models of a few hundred microseconds.
        affinity: the cores, as `os.sched_getaffinity` numbers them, on which ONNX Runtime's own
            threads may run. The caller's thread, or a pipeline's, stays where it is.
        ort: entries of ONNX Runtime's session config, by key, both as text, such as
            `{"session.intra_op.allow_spinning": "1"}`; what it does not know it ignores.

    Example:
        >>> RunOptions(cpu_threads=3, affinity=(2, 3)).cpu_threads
        3
    """

    slots: int = 1
    graph: bool = True
    spin: bool = False
    priority: int = 0
    timing: bool = True
    cpu_threads: int = 0
    affinity: tuple[int, ...] = ()
    ort: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            TypeError: one is of another type.
            ValueError: one is out of its range, or they do not go together.
        """
        for name in ("graph", "spin", "timing"):
            _check_type(name, getattr(self, name), bool)
        _check_integer("slots", self.slots, 1, 64)
        _check_integer("priority", self.priority, -(1 << 31), (1 << 31) - 1)
        _check_integer("cpu_threads", self.cpu_threads, 0, _MAX_THREADS)
        _check_type("affinity", self.affinity, tuple)
        for core in self.affinity:
            _check_integer("affinity", core, 0, (1 << 16) - 1)
        if self.affinity and self.cpu_threads == 1:
            raise ValueError(
                "affinity: with cpu_threads=1 ONNX Runtime starts no thread, and runs on the "
                "caller's. Give cpu_threads=2 or more, or bind your own thread: "
                "os.sched_setaffinity(0, cores)"
            )
        _check_type("ort", self.ort, Mapping)
        for key, value in self.ort.items():
            _check_type(f"ort: the key {key!r:.80}", key, str)
            _check_type(f"ort[{key!r:.80}]", value, str)


def _check_type(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: got {value!r:.80}, expected {kind.__name__}")


def _check_integer(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: got {value!r:.80}, expected int")
    if not least <= value <= most:
        raise ValueError(f"{name}: got {value}, expected {least} to {most}")

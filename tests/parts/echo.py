"""Programs and pipelines whose answer is the frame that they were given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.runtime.device.device import Device
from edgevision.runtime.device.memory import Array
from edgevision.runtime.options import RunOptions
from edgevision.runtime.stream.pipeline import Pipeline
from edgevision.runtime.stream.schedule import StreamOptions
from edgevision.tasks.timings import Timings
from edgevision.testing import ScriptedProgram

FRAME = TensorSpec("frame", DType.UINT8, (1, 8, 12, 3))
ECHO = TensorSpec("echo", DType.UINT8, (1, 8, 12, 3))


class EchoCodec:
    """Frames are arrays; the answer is what came back."""

    def feeds(self, frame: np.ndarray) -> dict[str, object]:
        return {"frame": frame}

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> np.ndarray:
        if outputs["echo"].ravel()[0] == POISON:
            raise ValueError("this frame cannot be decoded")
        return outputs["echo"]


POISON = 255
_BASE = np.arange(np.prod(FRAME.shape), dtype=np.int64).reshape(FRAME.shape) * 7


def frame(number: int) -> np.ndarray:
    """Return a frame unlike any other of the first 250, in every byte."""
    return ((_BASE + number) % 251).astype(np.uint8)


def program_on(device: Device, **script: str) -> ScriptedProgram:
    return ScriptedProgram(device, [FRAME], [ECHO], **script)


def pipeline_of(
    program: ScriptedProgram,
    *,
    run_options: RunOptions | None = None,
    on_result: object = None,
    clock: object = "perf_counter",
    **options: object,
) -> Pipeline[np.ndarray, np.ndarray]:
    return Pipeline(
        program,
        {},
        EchoCodec(),
        StreamOptions(**options),  # type: ignore[arg-type]
        run_options=run_options or RunOptions(),
        on_result=on_result,  # type: ignore[arg-type]
        clock=clock,  # type: ignore[arg-type]
    )

"""Programs that the tests run in child processes, one by name with one binding."""

from __future__ import annotations

import sys

import numpy as np

from tests.standin import control
from tests.standin.bindings import Bytes, Calls, opened

SIZE = 1000


def frame(index: int) -> Bytes:
    return np.random.default_rng(index).integers(0, 256, SIZE, np.uint8)


def round_trip(cuda: Calls) -> None:
    """Two streams, an event between them, bytes back as they were."""
    source, target = cuda.pinned(SIZE), cuda.pinned(SIZE)
    first, second = cuda.device(SIZE), cuda.device(SIZE)
    upload, download = cuda.stream(), cuda.stream()
    start, filled = cuda.event(), cuda.event()
    for index in range(5):
        source[:] = frame(index)
        cuda.record(start, upload)
        cuda.upload(first, source, upload)
        cuda.copy(second, first, SIZE, upload)
        cuda.record(filled, upload)
        cuda.wait(download, filled)
        cuda.download(target, second, download)
        cuda.synchronize(download)
        assert np.array_equal(target, frame(index)), index
        assert cuda.elapsed_ms(start, filled) >= 0
    for address in (first, second):
        cuda.free_device(address)
    for array in (source, target):
        cuda.free_pinned(array)
    cuda.destroy()
    assert control.live() == {"context": 1}


def main() -> None:
    name, binding = sys.argv[1:]
    cuda = opened(binding)
    try:
        globals()[name](cuda)
    finally:
        cuda.close()
    assert control.live() == {}


if __name__ == "__main__":
    main()

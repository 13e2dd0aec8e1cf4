"""Seven programs that an ordering mistake makes wrong, and the one that is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tests.standin.bindings import Bytes, Calls

SIZE = 64
WRONG_BYTES = 3  # the exit code of a program that raises this


class WrongBytesError(Exception):
    """What came back is not what was sent."""


def frame(index: int) -> Bytes:
    return np.random.default_rng(index).integers(0, 256, SIZE, np.uint8)


@dataclass(slots=True)
class Rig:
    """Pinned buffers, one device buffer, and a stream for each direction."""

    cuda: Calls
    source: Bytes
    target: Bytes
    buffer: int
    upload: int
    download: int
    filled: int

    def check(self, got: Bytes, index: int) -> None:
        if not np.array_equal(got, frame(index)):
            raise WrongBytesError(index)


@contextmanager
def rig(cuda: Calls) -> Iterator[Rig]:
    source, target, buffer = cuda.pinned(SIZE), cuda.pinned(SIZE), cuda.device(SIZE)
    try:
        yield Rig(cuda, source, target, buffer, cuda.stream(), cuda.stream(), cuda.event())
    finally:
        cuda.free_device(buffer)
        cuda.free_pinned(source)
        cuda.free_pinned(target)
        cuda.destroy()


def none(cuda: Calls) -> None:
    with rig(cuda) as at:
        for index in range(4):
            at.source[:] = frame(index)
            cuda.upload(at.buffer, at.source, at.upload)
            cuda.record(at.filled, at.upload)
            cuda.wait(at.download, at.filled)
            cuda.download(at.target, at.buffer, at.download)
            cuda.synchronize(at.download)
            at.check(at.target, index)


def consumer_never_waits(cuda: Calls) -> None:
    with rig(cuda) as at:
        at.source[:] = frame(0)
        cuda.upload(at.buffer, at.source, at.upload)
        cuda.download(at.target, at.buffer, at.download)
        cuda.synchronize(at.download)
        at.check(at.target, 0)


def overwritten_before_read(cuda: Calls) -> None:
    with rig(cuda) as at:
        at.source[:] = frame(0)
        cuda.upload(at.buffer, at.source, at.upload)
        cuda.record(at.filled, at.upload)
        cuda.wait(at.download, at.filled)
        cuda.download(at.target, at.buffer, at.download)
        cuda.synchronize(at.upload)
        at.source[:] = frame(1)
        cuda.upload(at.buffer, at.source, at.upload)
        cuda.synchronize(at.upload)
        cuda.synchronize(at.download)
        at.check(at.target, 0)


def source_rewritten_in_flight(cuda: Calls) -> None:
    with rig(cuda) as at:
        at.source[:] = frame(0)
        cuda.upload(at.buffer, at.source, at.upload)
        at.source[:] = frame(1)
        cuda.download(at.target, at.buffer, at.upload)
        cuda.synchronize(at.upload)
        at.check(at.target, 0)


def read_before_waiting(cuda: Calls) -> None:
    with rig(cuda) as at:
        at.source[:] = frame(0)
        cuda.upload(at.buffer, at.source, at.upload)
        cuda.download(at.target, at.buffer, at.upload)
        got = at.target.copy()
        cuda.synchronize(at.upload)
        at.check(got, 0)


def recorded_before_the_copy(cuda: Calls) -> None:
    with rig(cuda) as at:
        at.source[:] = frame(0)
        cuda.record(at.filled, at.upload)
        cuda.upload(at.buffer, at.source, at.upload)
        cuda.wait(at.download, at.filled)
        cuda.download(at.target, at.buffer, at.download)
        cuda.synchronize(at.download)
        at.check(at.target, 0)


def unrelated_stream_writes_early(cuda: Calls) -> None:
    with rig(cuda) as at:
        other, noise = cuda.stream(), cuda.pinned(SIZE)
        try:
            at.source[:] = frame(0)
            noise[:] = frame(1)
            cuda.upload(at.buffer, at.source, at.upload)
            cuda.download(at.target, at.buffer, at.upload)
            cuda.upload(at.buffer, noise, other)
            cuda.synchronize(at.upload)
            at.check(at.target, 0)
        finally:
            cuda.free_pinned(noise)


def filled_after_submitting(cuda: Calls) -> None:
    with rig(cuda) as at:
        cuda.upload(at.buffer, at.source, at.upload)
        at.source[:] = frame(0)
        cuda.download(at.target, at.buffer, at.upload)
        cuda.synchronize(at.upload)
        at.check(at.target, 0)

"""A frame in somebody else's memory on the device: copied in order with what its owner does."""

from __future__ import annotations

from edgevision.errors import CudaError, FrameError
from edgevision.runtime.device.device import Device, Event, Stream
from edgevision.runtime.device.memory import Buffer
from edgevision.tasks.interop import DeviceArray

_INVALID_HANDLE = 400


def queue_copy(
    feed: DeviceArray, target: Buffer, *, name: str, device: Device, stream: Stream, ready: Event
) -> None:
    """Copy the input `name` after what its owner has queued and before what it will queue.

    Without a stream of the owner's, or where it writes on another, the copy is waited for. `ready`
    is the caller's, to be used again.

    Raises:
        FrameError: the stream that the feed names cannot be waited for.
        CudaError: the device failed.
    """
    source = Buffer.borrow(
        feed.owner,
        address=feed.address,
        host=None,
        size_bytes=feed.size_bytes,
        label="the caller's array",
    )
    theirs = None
    if feed.stream is not None:
        theirs = _wait_for(feed.stream, name, device, stream, ready)
    stream.copy(target, source, feed.size_bytes)
    stream.record(ready)
    if theirs is not None and feed.is_written_on_stream:
        theirs.wait(ready)
    else:
        ready.synchronize()


def _wait_for(handle: int, name: str, device: Device, stream: Stream, ready: Event) -> Stream:
    """Let `stream` wait for all that the owner's has queued, and return that one."""
    try:
        theirs = device.foreign_stream(handle)
        theirs.record(ready)
    except CudaError as error:
        if error.code not in (0, _INVALID_HANDLE):
            raise
        raise FrameError(
            f"input '{name}': the stream {handle:#x} that it names cannot be waited for: "
            f"{error} Give a stream that is open, in this process and on this GPU."
        ) from error
    stream.wait(ready)
    return theirs

"""A camera's frame as a task takes it: with and without a batch axis, from any library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgevision.errors import FrameError
from edgevision.tasks.camera import CameraFrame
from edgevision.tasks.interop import DeviceArray
from edgevision.tasks.pixel_formats import packed

SIZE = (6, 8)
FRAME = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


class OtherArray:
    """An array of another library: axes to index, its memory by DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.ndim, self.shape, self.dtype = array.ndim, list(array.shape), "other.uint8"

    def __getitem__(self, key: Any) -> OtherArray:
        return OtherArray(self._array[key])

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, **_: object) -> object:
        raise AssertionError("the check of the feeds imports it, once")


class ByProtocol:
    """Memory on a GPU and nothing else."""

    def __init__(self, *shape: int) -> None:
        interface = {"shape": shape, "typestr": "|u1", "data": (4096, False), "version": 3}
        self.__cuda_array_interface__ = interface


class HostOnly:
    """Nothing but DLPack, on the host."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return FRAME.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> object:
        return FRAME.__dlpack__(**options)


@pytest.mark.parametrize(
    "frame",
    [FRAME, FRAME[np.newaxis], FRAME.view(np.recarray), HostOnly()],
)
def test_both_shapes_are_taken_without_a_copy(frame: Any) -> None:
    fed: Any = CameraFrame("frame", packed("rgb", SIZE)).feeds(frame)["frame"]
    assert fed.shape == (1, *SIZE, 3)
    assert np.shares_memory(fed, FRAME)


@pytest.mark.parametrize("axis", [False, True])
def test_arrays_of_other_libraries_keep_or_get_the_batch_axis(axis: bool) -> None:
    other = OtherArray(FRAME[np.newaxis] if axis else FRAME)
    fed: Any = CameraFrame("frame", packed("rgb", SIZE)).feeds(other)["frame"]
    assert fed.shape == [1, *SIZE, 3]
    shape = (1, *SIZE, 3) if axis else (*SIZE, 3)
    there: Any = CameraFrame("frame", packed("rgb", SIZE)).feeds(ByProtocol(*shape))["frame"]
    assert isinstance(there, DeviceArray)
    assert there.shape == (1, *SIZE, 3)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME[:5], r"got uint8\[5, 8, 3\], expected a numpy array uint8\[6, 8, 3\] \(BGR\)"),
        (FRAME.astype(np.float32), r"got float32\[6, 8, 3\], expected .*uint8\[6, 8, 3\]"),
        (np.stack([FRAME, FRAME]), r"got uint8\[2, 6, 8, 3\], expected .*uint8\[6, 8, 3\]"),
        (OtherArray(FRAME[0]), r"got other.uint8\[8, 3\], expected .*uint8\[6, 8, 3\]"),
        (ByProtocol(6, 8), r"got uint8\[6, 8\], expected .*uint8\[6, 8, 3\]"),
        (FRAME.tolist(), r"got list, expected .*uint8\[6, 8, 3\].*numpy.asarray"),
        (memoryview(FRAME), r"got memoryview, expected .*uint8\[6, 8, 3\].*numpy.asarray"),
        ({"frame": FRAME}, "got a dict"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_frame_is_told_what_is_taken(frame: object, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        CameraFrame("frame", packed("bgr", SIZE)).feeds(frame)

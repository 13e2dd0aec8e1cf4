"""The few calls that the test programs make, over cuda-bindings and over pycuda alike."""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


class Calls(Protocol):
    """One binding with the primary context current; handles are plain integers."""

    error: type[Exception]

    def pinned(self, size: int) -> Bytes: ...
    def free_pinned(self, array: Bytes) -> None: ...
    def device(self, size: int) -> int: ...
    def free_device(self, address: int) -> None: ...
    def stream(self) -> int: ...
    def event(self) -> int: ...
    def destroy(self) -> None: ...
    def upload(self, to: int, source: Bytes, stream: int) -> None: ...
    def download(self, target: Bytes, source: int, stream: int) -> None: ...
    def copy(self, to: int, source: int, size: int, stream: int) -> None: ...
    def upload_now(self, to: int, source: Bytes) -> None: ...
    def download_now(self, target: Bytes, source: int) -> None: ...
    def record(self, event: int, stream: int) -> None: ...
    def wait(self, stream: int, event: int) -> None: ...
    def synchronize(self, stream: int) -> None: ...
    def synchronize_event(self, event: int) -> None: ...
    def is_done(self, event: int) -> bool: ...
    def elapsed_ms(self, start: int, stop: int) -> float: ...
    def close(self) -> None: ...


class CodeError(Exception):
    """A code other than success, which cuda-bindings returns and does not raise."""


class CudaBindings:
    """Over NVIDIA's cuda-bindings."""

    error = CodeError

    def __init__(self) -> None:
        from cuda.bindings import driver

        self.driver = driver
        self._streams: list[int] = []
        self._events: list[int] = []
        self.ok(driver.cuInit(0))
        self.context = self.ok(driver.cuDevicePrimaryCtxRetain(0))
        self.ok(driver.cuCtxSetCurrent(self.context))

    def ok(self, result: tuple[Any, ...]) -> Any:
        """Return what a call returned, alone if it is one value, without its code."""
        code, *values = result
        if code != self.driver.CUresult.CUDA_SUCCESS:
            raise self.error(code.name)
        return values[0] if len(values) == 1 else values

    def pinned(self, size: int) -> Bytes:
        address = int(self.ok(self.driver.cuMemHostAlloc(size, 2)))
        return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)

    def free_pinned(self, array: Bytes) -> None:
        self.ok(self.driver.cuMemFreeHost(array.ctypes.data))

    def device(self, size: int) -> int:
        return int(self.ok(self.driver.cuMemAlloc(size)))

    def free_device(self, address: int) -> None:
        self.ok(self.driver.cuMemFree(address))

    def stream(self) -> int:
        self._streams.append(int(self.ok(self.driver.cuStreamCreate(1))))
        return self._streams[-1]

    def event(self) -> int:
        self._events.append(int(self.ok(self.driver.cuEventCreate(0))))
        return self._events[-1]

    def destroy(self) -> None:
        while self._streams:
            self.ok(self.driver.cuStreamDestroy(self._streams.pop()))
        while self._events:
            self.ok(self.driver.cuEventDestroy(self._events.pop()))

    def upload(self, to: int, source: Bytes, stream: int) -> None:
        self.ok(self.driver.cuMemcpyHtoDAsync(to, source.ctypes.data, source.nbytes, stream))

    def download(self, target: Bytes, source: int, stream: int) -> None:
        self.ok(self.driver.cuMemcpyDtoHAsync(target.ctypes.data, source, target.nbytes, stream))

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        self.ok(self.driver.cuMemcpyDtoDAsync(to, source, size, stream))

    def upload_now(self, to: int, source: Bytes) -> None:
        self.ok(self.driver.cuMemcpyHtoD(to, source.ctypes.data, source.nbytes))

    def download_now(self, target: Bytes, source: int) -> None:
        self.ok(self.driver.cuMemcpyDtoH(target.ctypes.data, source, target.nbytes))

    def record(self, event: int, stream: int) -> None:
        self.ok(self.driver.cuEventRecord(event, stream))

    def wait(self, stream: int, event: int) -> None:
        self.ok(self.driver.cuStreamWaitEvent(stream, event, 0))

    def synchronize(self, stream: int) -> None:
        self.ok(self.driver.cuStreamSynchronize(stream))

    def synchronize_event(self, event: int) -> None:
        self.ok(self.driver.cuEventSynchronize(event))

    def is_done(self, event: int) -> bool:
        code = self.driver.cuEventQuery(event)[0]
        if code == self.driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        self.ok((code,))
        return True

    def elapsed_ms(self, start: int, stop: int) -> float:
        return float(self.ok(self.driver.cuEventElapsedTime(start, stop)))

    def close(self) -> None:
        self.ok(self.driver.cuCtxSetCurrent(self.driver.CUcontext(0)))
        self.ok(self.driver.cuDevicePrimaryCtxRelease(0))


class PyCuda:
    """Over pycuda, whose objects are kept by handle."""

    def __init__(self) -> None:
        import pycuda.driver as cuda

        self.cuda = cuda
        self.error = cuda.Error
        self._objects: dict[int, Any] = {}
        cuda.init()
        self.context = cuda.Device(0).retain_primary_context()
        self.context.push()

    def pinned(self, size: int) -> Bytes:
        return self.cuda.pagelocked_empty(
            size, np.uint8, mem_flags=self.cuda.host_alloc_flags.DEVICEMAP
        )

    def free_pinned(self, array: Bytes) -> None:
        array.base.free()

    def device(self, size: int) -> int:
        allocation = self.cuda.mem_alloc(size)
        self._objects[int(allocation)] = allocation
        return int(allocation)

    def free_device(self, address: int) -> None:
        self._objects.pop(address).free()

    def stream(self) -> int:
        stream = self.cuda.Stream(1)
        self._objects[stream.handle] = stream
        return int(stream.handle)

    def event(self) -> int:
        event = self.cuda.Event()  # which does not tell its handle
        self._objects[id(event)] = event
        return id(event)

    def destroy(self) -> None:
        self._objects = {
            handle: kept
            for handle, kept in self._objects.items()
            if isinstance(kept, self.cuda.DeviceAllocation)
        }

    def upload(self, to: int, source: Bytes, stream: int) -> None:
        self.cuda.memcpy_htod_async(to, source, self._objects[stream])

    def download(self, target: Bytes, source: int, stream: int) -> None:
        self.cuda.memcpy_dtoh_async(target, source, self._objects[stream])

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        self.cuda.memcpy_dtod_async(to, source, size, self._objects[stream])

    def upload_now(self, to: int, source: Bytes) -> None:
        self.cuda.memcpy_htod(to, source)

    def download_now(self, target: Bytes, source: int) -> None:
        self.cuda.memcpy_dtoh(target, source)

    def record(self, event: int, stream: int) -> None:
        self._objects[event].record(self._objects[stream])

    def wait(self, stream: int, event: int) -> None:
        self._objects[stream].wait_for_event(self._objects[event])

    def synchronize(self, stream: int) -> None:
        self._objects[stream].synchronize()

    def synchronize_event(self, event: int) -> None:
        self._objects[event].synchronize()

    def is_done(self, event: int) -> bool:
        return bool(self._objects[event].query())

    def elapsed_ms(self, start: int, stop: int) -> float:
        return float(self._objects[start].time_till(self._objects[stop]))

    def close(self) -> None:
        self._objects.clear()
        self.context.pop()
        self.context.detach()


def opened(binding: str) -> Calls:
    return {"cuda-bindings": CudaBindings, "pycuda": PyCuda}[binding]()

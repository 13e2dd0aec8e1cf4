"""The driver through NVIDIA's cuda-bindings."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from edgevision._optional import require
from edgevision.errors import CudaError
from edgevision.runtime.device.cuda.driver import Handle
from edgevision.runtime.device.memory import Bytes, host_bytes


class BindingsDriver:
    """See `Driver`; the primary context stays retained for the life of the process."""

    missing: Mapping[str, str] = {}

    def __init__(self, ordinal: int) -> None:
        """Retain the primary context of GPU `ordinal`.

        Raises:
            MissingDependencyError: cuda-bindings is not installed.
            CudaError: there is no driver, or no such GPU.
        """
        cu = self._cu = require("cuda.bindings.driver", extra="cuda")
        self._success = cu.CUresult.CUDA_SUCCESS
        self._not_ready = cu.CUresult.CUDA_ERROR_NOT_READY
        self.binding = f"cuda-bindings {importlib.metadata.version('cuda-bindings')}"
        try:
            status = cu.cuInit(0)[0]
        except RuntimeError as error:  # how the binding says that libcuda.so.1 is not there
            raise CudaError(f"no NVIDIA driver on this machine: {error}") from error
        self._check(status, "cuInit")
        self._device = self._call(cu.cuDeviceGet, ordinal)
        raw = self._call(cu.cuDeviceGetName, 128, self._device)
        self.name = raw.split(b"\0", 1)[0].decode(errors="replace")
        attribute = cu.CUdevice_attribute
        self.is_integrated = bool(self._attribute(attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED))
        self.can_map = bool(self._attribute(attribute.CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY))
        self._context = self._call(cu.cuDevicePrimaryCtxRetain, self._device)
        self._lowest, self._highest = self._priorities()

    def _priorities(self) -> tuple[int, int]:
        with self:
            status, lowest, highest = self._cu.cuCtxGetStreamPriorityRange()
            self._check(status, "cuCtxGetStreamPriorityRange")
        return lowest, highest

    def _attribute(self, attribute: object) -> int:
        return int(self._call(self._cu.cuDeviceGetAttribute, attribute, self._device))

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        result = function(*arguments)
        if result[0] is not self._success:
            self._check(result[0], function.__name__)
        return result[1] if len(result) > 1 else None

    def _check(self, status: Any, function: str) -> None:
        if status is self._success:
            return
        name = self._cu.cuGetErrorName(status)[1] or str(status).encode()
        text = self._cu.cuGetErrorString(status)[1] or b"no description"
        raise CudaError(
            f"{function} failed: {name.decode()} ({text.decode()}){_ADVICE.get(int(status), '')}",
            code=int(status),
        )

    # What every frame does calls the binding directly: on an embedded processor a call costs.

    def __enter__(self) -> None:
        """Make the primary context current on this thread."""
        status = self._cu.cuCtxPushCurrent(self._context)[0]
        if status is not self._success:
            self._check(status, "cuCtxPushCurrent")

    def __exit__(self, *error: object) -> None:
        """Give the thread back the context it had."""
        status = self._cu.cuCtxPopCurrent()[0]
        if status is not self._success:
            self._check(status, "cuCtxPopCurrent")

    def memory(self) -> tuple[int, int]:
        """Return free and total memory in bytes."""
        status, free, total = self._cu.cuMemGetInfo()
        self._check(status, "cuMemGetInfo")
        return int(free), int(total)

    def allocate(self, size_bytes: int) -> tuple[int, Handle]:
        """Return the address and handle of device memory."""
        pointer = self._call(self._cu.cuMemAlloc, size_bytes)
        return int(pointer), pointer

    def free(self, allocation: Handle) -> None:
        """Free it."""
        self._call(self._cu.cuMemFree, allocation)

    def allocate_host(self, size_bytes: int) -> tuple[Bytes, int, Handle]:
        """Return pinned memory: host view, device address (0 if unmapped), handle."""
        cu = self._cu
        flags = cu.CU_MEMHOSTALLOC_PORTABLE
        if self.can_map:
            flags |= cu.CU_MEMHOSTALLOC_DEVICEMAP
        host = int(self._call(cu.cuMemHostAlloc, size_bytes, flags))
        address = int(self._call(cu.cuMemHostGetDevicePointer, host, 0)) if self.can_map else 0
        return host_bytes(host, size_bytes), address, host

    def free_host(self, allocation: Handle) -> None:
        """Free it; every view is void."""
        self._call(self._cu.cuMemFreeHost, allocation)

    def stream(self, priority: int) -> tuple[int, Handle]:
        """Return the number and handle of a stream that ignores the legacy default stream."""
        flags = self._cu.CUstream_flags.CU_STREAM_NON_BLOCKING
        clamped = max(self._highest, min(self._lowest, priority))
        stream = self._call(self._cu.cuStreamCreateWithPriority, int(flags), clamped)
        return int(stream), stream

    def wrap_stream(self, handle: int) -> Handle:
        """Return the handle of a stream made elsewhere."""
        return self._cu.CUstream(handle)

    def destroy_stream(self, stream: Handle) -> None:
        """Destroy it; queued work still runs."""
        self._call(self._cu.cuStreamDestroy, stream)

    def synchronize_stream(self, stream: Handle) -> None:
        """Wait, without the interpreter's lock."""
        self._call(self._cu.cuStreamSynchronize, stream)

    def copy_in(self, address: int, host: Bytes, stream: Handle) -> None:
        """Queue a copy from host memory."""
        self._call(self._cu.cuMemcpyHtoDAsync, address, host.ctypes.data, host.nbytes, stream)

    def copy_out(self, host: Bytes, address: int, stream: Handle) -> None:
        """Queue a copy to host memory."""
        self._call(self._cu.cuMemcpyDtoHAsync, host.ctypes.data, address, host.nbytes, stream)

    def copy_within(self, target: int, source: int, size_bytes: int, stream: Handle) -> None:
        """Queue a copy between addresses of the device."""
        self._call(self._cu.cuMemcpyDtoDAsync, target, source, size_bytes, stream)

    def fill(self, address: int, value: int, size_bytes: int, stream: Handle) -> None:
        """Queue setting bytes."""
        self._call(self._cu.cuMemsetD8Async, address, value, size_bytes, stream)

    def event(self, *, timing: bool, spin: bool) -> Handle:
        """Return an event."""
        flags = self._cu.CUevent_flags
        bits = 0 if spin else int(flags.CU_EVENT_BLOCKING_SYNC)
        bits |= 0 if timing else int(flags.CU_EVENT_DISABLE_TIMING)
        return self._call(self._cu.cuEventCreate, bits)

    def destroy_event(self, event: Handle) -> None:
        """Destroy it."""
        self._call(self._cu.cuEventDestroy, event)

    def record(self, event: Handle, stream: Handle, *, capturing: bool) -> None:
        """Queue the event; while capturing, as a node that each launch records again."""
        if not capturing:
            status = self._cu.cuEventRecord(event, stream)[0]
            if status is not self._success:
                self._check(status, "cuEventRecord")
            return
        external = int(self._cu.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL)
        self._call(self._cu.cuEventRecordWithFlags, event, stream, external)

    def wait(self, stream: Handle, event: Handle) -> None:
        """Hold the stream back for the event."""
        self._call(self._cu.cuStreamWaitEvent, stream, event, 0)

    def is_done(self, event: Handle) -> bool:
        """Whether the event is done."""
        status = self._cu.cuEventQuery(event)[0]
        if status is self._not_ready:
            return False
        self._check(status, "cuEventQuery")
        return True

    def synchronize_event(self, event: Handle) -> None:
        """Wait, without the interpreter's lock."""
        status = self._cu.cuEventSynchronize(event)[0]
        if status is not self._success:
            self._check(status, "cuEventSynchronize")

    def intervals_ms(self, events: Sequence[Handle]) -> list[float]:
        """Return the time from each done event to the next."""
        found_ms = []
        for begin, end in pairwise(events):
            status, interval_ms = self._cu.cuEventElapsedTime(begin, end)
            if status is not self._success:
                self._check(status, "cuEventElapsedTime")
            found_ms.append(interval_ms)
        return found_ms

    def begin_capture(self, stream: Handle) -> None:
        """Start capturing, bound to this thread so that others may go on allocating."""
        mode = self._cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call(self._cu.cuStreamBeginCapture, stream, mode)

    def end_capture(self, stream: Handle) -> Handle:
        """End capturing and return the graph, ready to launch; frees what it cannot use."""
        graph = self._call(self._cu.cuStreamEndCapture, stream)
        try:
            return self._call(self._cu.cuGraphInstantiate, graph, 0)
        finally:
            self._call(self._cu.cuGraphDestroy, graph)

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Queue the graph."""
        status = self._cu.cuGraphLaunch(graph, stream)[0]
        if status is not self._success:
            self._check(status, "cuGraphLaunch")

    def destroy_graph(self, graph: Handle) -> None:
        """Destroy it."""
        self._call(self._cu.cuGraphExecDestroy, graph)


_ADVICE = {
    2: ". Close other programs on the GPU, or use fewer slots.",
    3: ". If this process was forked from one that used the GPU: start it with "
    "multiprocessing.get_context('spawn').",
    35: ". The driver is older than the CUDA version of cuda-bindings: update it, or install an "
    "older cuda-bindings.",
    201: ". No context is current on this thread; use `with device.active():`.",
    700: ". A kernel read or wrote outside its memory; the process must be restarted.",
}

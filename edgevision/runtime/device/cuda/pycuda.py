"""The driver through pycuda."""

from __future__ import annotations

import atexit
import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from edgevision._optional import require
from edgevision.errors import CudaError
from edgevision.runtime.device.cuda.driver import Handle
from edgevision.runtime.device.memory import Bytes

_NON_BLOCKING = 1
_LEGACY_STREAM = 1


class PycudaDriver:
    """See `Driver`; on the primary context, never pycuda's autoinit, which makes one of its own.

    pycuda's objects free themselves only where their context is current, so each is freed by hand
    inside `device.active()`.
    """

    missing: Mapping[str, str] = {
        "graphs": "pycuda has no graph API; install cuda-bindings for CUDA graphs",
        "priorities": "pycuda's streams take no priority",
        "foreign_streams": "pycuda cannot wrap a stream made elsewhere",
    }

    def __init__(self, ordinal: int) -> None:
        """Retain the primary context of GPU `ordinal`.

        Raises:
            MissingDependencyError: pycuda is not installed.
            CudaError: there is no driver, or no such GPU.
        """
        try:
            cu = self._cu = require("pycuda.driver", extra="pycuda")
        except ImportError as error:
            if "libcuda" in str(error.__cause__ or error):
                raise CudaError(f"no NVIDIA driver on this machine: {error}") from error
            raise
        self.binding = f"pycuda {require('pycuda', extra='pycuda').VERSION_TEXT}"
        self._call(cu.init)
        self._device = self._call(cu.Device, ordinal)
        self.name = self._device.name()
        attributes = cu.device_attribute
        self.is_integrated = bool(self._device.get_attribute(attributes.INTEGRATED))
        self.can_map = bool(self._device.get_attribute(attributes.CAN_MAP_HOST_MEMORY))
        self._context = self._call(self._device.retain_primary_context)
        # Its destructor would end it as a context of its own, which the driver refuses.
        atexit.register(self._detach, os.getpid())

    def _detach(self, process: int) -> None:
        if os.getpid() == process:
            self._context.detach()
        else:  # a forked child's copy is the parent's: its destructor must never run
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._context))

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        try:
            return function(*arguments)
        except self._cu.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> CudaError:
        return CudaError(f"{error} (pycuda gives no error code)")

    # What every frame does calls pycuda directly: on an embedded processor a call costs.

    def __enter__(self) -> None:
        """Make the primary context current on this thread."""
        try:
            self._context.push()
        except self._cu.Error as error:
            raise self._failed(error) from error

    def __exit__(self, *error: object) -> None:
        """Give the thread back the context it had."""
        try:
            self._cu.Context.pop()
        except self._cu.Error as error:
            raise self._failed(error) from error

    def memory(self) -> tuple[int, int]:
        """Return free and total memory in bytes."""
        free, total = self._call(self._cu.mem_get_info)
        return int(free), int(total)

    def allocate(self, size_bytes: int) -> tuple[int, Handle]:
        """Return the address and handle of device memory."""
        allocation = self._call(self._cu.mem_alloc, size_bytes)
        return int(allocation), allocation

    def free(self, allocation: Handle) -> None:
        """Free it."""
        self._call(allocation.free)

    def allocate_host(self, size_bytes: int) -> tuple[Bytes, int, Handle]:
        """Return pinned memory: host view, device address (0 if unmapped), handle."""
        flags = self._cu.host_alloc_flags
        bits = flags.PORTABLE | (flags.DEVICEMAP if self.can_map else 0)
        host = self._call(self._cu.pagelocked_empty, size_bytes, np.uint8, "C", bits)
        address = int(self._call(host.base.get_device_pointer)) if self.can_map else 0
        return host, address, host.base

    def free_host(self, allocation: Handle) -> None:
        """Free it; every view is void."""
        self._call(allocation.free)

    def stream(self, priority: int) -> tuple[int, Handle]:
        """Return the number and handle of a stream that ignores the legacy default stream."""
        stream = self._call(self._cu.Stream, _NON_BLOCKING)
        return int(stream.handle), stream

    def wrap_stream(self, handle: int) -> Handle:
        """Return the legacy default stream, which pycuda calls None, and refuse others."""
        if handle != _LEGACY_STREAM:
            raise CudaError(
                f"stream {handle:#x}: {self.missing['foreign_streams']}. Synchronise it before "
                "and give the array with stream None, or install cuda-bindings."
            )
        return None

    def destroy_stream(self, stream: Handle) -> None:
        """Leave it to pycuda, which destroys it with the last reference."""

    def synchronize_stream(self, stream: Handle) -> None:
        """Wait, without the interpreter's lock."""
        # For the legacy default stream pycuda has no call but the one that waits for all streams.
        self._call(self._cu.Context.synchronize if stream is None else stream.synchronize)

    def copy_in(self, address: int, host: Bytes, stream: Handle) -> None:
        """Queue a copy from host memory."""
        try:
            self._cu.memcpy_htod_async(address, host, stream)
        except self._cu.Error as error:
            raise self._failed(error) from error

    def copy_out(self, host: Bytes, address: int, stream: Handle) -> None:
        """Queue a copy to host memory."""
        try:
            self._cu.memcpy_dtoh_async(host, address, stream)
        except self._cu.Error as error:
            raise self._failed(error) from error

    def copy_within(self, target: int, source: int, size_bytes: int, stream: Handle) -> None:
        """Queue a copy between addresses of the device."""
        self._call(self._cu.memcpy_dtod_async, target, source, size_bytes, stream)

    def fill(self, address: int, value: int, size_bytes: int, stream: Handle) -> None:
        """Queue setting bytes."""
        self._call(self._cu.memset_d8_async, address, value, size_bytes, stream)

    def event(self, *, timing: bool, spin: bool) -> Handle:
        """Return an event."""
        flags = self._cu.event_flags
        bits = 0 if spin else int(flags.BLOCKING_SYNC)
        bits |= 0 if timing else int(flags.DISABLE_TIMING)
        return self._call(self._cu.Event, bits)

    def destroy_event(self, event: Handle) -> None:
        """Leave it to pycuda, which destroys it with the last reference."""

    def record(self, event: Handle, stream: Handle, *, capturing: bool) -> None:
        """Queue the event."""
        try:
            event.record(stream)
        except self._cu.Error as error:
            raise self._failed(error) from error

    def wait(self, stream: Handle, event: Handle) -> None:
        """Hold the stream back for the event."""
        if stream is None:  # pycuda cannot make the legacy default stream wait; its caller can
            self.synchronize_event(event)
        else:
            self._call(stream.wait_for_event, event)

    def is_done(self, event: Handle) -> bool:
        """Whether the event is done."""
        return bool(self._call(event.query))

    def synchronize_event(self, event: Handle) -> None:
        """Wait, without the interpreter's lock."""
        try:
            event.synchronize()
        except self._cu.Error as error:
            raise self._failed(error) from error

    def intervals_ms(self, events: Sequence[Handle]) -> list[float]:
        """Return the time from each done event to the next."""
        return [float(self._call(end.time_since, begin)) for begin, end in pairwise(events)]

    def begin_capture(self, stream: Handle) -> None:
        """Refuse; see `missing`."""
        raise CudaError(self.missing["graphs"])

    def end_capture(self, stream: Handle) -> Handle:
        """Refuse; see `missing`."""
        raise CudaError(self.missing["graphs"])

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Refuse; see `missing`."""
        raise CudaError(self.missing["graphs"])

    def destroy_graph(self, graph: Handle) -> None:
        """Refuse; see `missing`."""
        raise CudaError(self.missing["graphs"])

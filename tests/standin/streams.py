"""Programs on host functions, default streams, threads and memory, over cuda-bindings."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

from tests.standin import control
from tests.standin.bindings import CodeError, CudaBindings
from tests.standin.mistakes import frame, rig


def host_functions(cuda: CudaBindings) -> None:
    """Not under the driver's lock, and themselves kept from the driver."""
    driver, steps = cuda.driver, []
    go_on = threading.Event()

    def other_thread() -> None:
        cuda.ok(driver.cuCtxSetCurrent(cuda.context))
        cuda.free_device(0)
        go_on.set()

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def called(data: int) -> None:
        steps.append(data)
        steps.append(driver.cuMemAlloc(1)[0].name)
        cuda_thread = threading.Thread(target=other_thread)
        cuda_thread.start()
        steps.append(go_on.wait(30))

    with rig(cuda) as at:
        function = driver.CUhostFn(ctypes.cast(called, ctypes.c_void_p).value)
        cuda.ok(driver.cuLaunchHostFunc(at.upload, function, 7))
        cuda.synchronize(at.upload)
        assert steps == [7, "CUDA_ERROR_NOT_PERMITTED", True]


def waiting_ends_with_the_stall(cuda: CudaBindings) -> None:
    with rig(cuda) as at:
        at.source[:] = frame(0)
        control.stall(True)
        cuda.upload(at.buffer, at.source, at.upload)
        cuda.download(at.target, at.buffer, at.upload)
        cuda.record(at.filled, at.upload)
        entered = control.calls("cuEventSynchronize")

        def wait() -> None:
            cuda.ok(cuda.driver.cuCtxSetCurrent(cuda.context))
            cuda.synchronize_event(at.filled)

        thread = threading.Thread(target=wait)
        thread.start()
        while control.calls("cuEventSynchronize") == entered:
            assert not cuda.is_done(at.filled)
        assert thread.is_alive()
        control.stall(False)
        thread.join()
        at.check(at.target, 0)


def threads_share_the_queues(_: CudaBindings) -> None:
    """Each with its own stream and buffers, all waiting at once."""
    failed: list[object] = []

    def work(own: int) -> None:
        try:
            mine = CudaBindings()
            with rig(mine) as at:
                for index in range(100):
                    at.source[:] = frame(own + index)
                    mine.upload(at.buffer, at.source, at.upload)
                    mine.record(at.filled, at.upload)
                    mine.wait(at.download, at.filled)
                    mine.download(at.target, at.buffer, at.download)
                    mine.synchronize(at.download)
                    at.check(at.target, own + index)
            mine.close()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(1000 * own,)) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def the_default_stream(cuda: CudaBindings) -> None:
    """Ordered with blocking streams, both ways, and not with the others."""
    driver = cuda.driver
    with rig(cuda) as at:
        blocking = cuda.ok(driver.cuStreamCreate(0))
        at.source[:] = frame(0)
        cuda.upload(at.buffer, at.source, blocking)
        for handle in (0, 1):
            cuda.download(at.target, at.buffer, handle)
            cuda.synchronize(handle)
            at.check(at.target, 0)
            at.target[:] = 0
        cuda.ok(driver.cuMemsetD8Async(at.buffer, 5, at.source.nbytes, 0))
        cuda.download(at.target, at.buffer, blocking)
        cuda.synchronize(blocking)
        assert (at.target == 5).all()
        cuda.upload(at.buffer, at.source, 2)
        cuda.synchronize(2)
        cuda.ok(driver.cuStreamDestroy(blocking))
        with pytest.raises(CodeError, match="INVALID_HANDLE"):
            cuda.synchronize(blocking)


def what_the_device_says(cuda: CudaBindings) -> None:
    driver = cuda.driver
    attribute = driver.CUdevice_attribute
    asked = (
        attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        attribute.CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY,
        attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED,
    )
    print([cuda.ok(driver.cuDeviceGetAttribute(each, 0)) for each in asked])
    assert cuda.ok(driver.cuDriverGetVersion()) == 13000
    assert cuda.ok(driver.cuDeviceGetName(16, 0)).partition(b"\0")[0] == b"stand-in"
    assert cuda.ok(driver.cuCtxGetStreamPriorityRange()) == [0, -5]
    stream = cuda.ok(driver.cuStreamCreateWithPriority(1, -9))
    assert cuda.ok(driver.cuStreamGetPriority(stream)) == -5
    assert cuda.ok(driver.cuStreamGetFlags(stream)) == 1
    cuda.ok(driver.cuStreamDestroy(stream))
    with pytest.raises(CodeError, match="NOT_SUPPORTED"):
        cuda.ok(driver.cuModuleLoad(b"no files of kernels here"))
    with pytest.raises(CodeError, match="NOT_FOUND"):
        cuda.ok(driver.cuGetProcAddress(b"cuNothing", 13000, 0))


def memory(cuda: CudaBindings) -> None:
    driver = cuda.driver
    free, total = cuda.ok(driver.cuMemGetInfo())
    assert (free, total) == (1 << 30, 1 << 30)
    pinned = cuda.pinned(100)
    address = int(cuda.ok(driver.cuMemHostGetDevicePointer(pinned.ctypes.data, 0)))
    buffer = cuda.device(1000)
    print(total - cuda.ok(driver.cuMemGetInfo())[0])
    asked = driver.CUpointer_attribute
    for name, pointer, expected in (
        ("MEMORY_TYPE", pinned.ctypes.data, 1),
        ("MEMORY_TYPE", address, 1),
        ("MEMORY_TYPE", buffer, 2),
        ("DEVICE_POINTER", pinned.ctypes.data + 3, address + 3),
        ("HOST_POINTER", address + 3, pinned.ctypes.data + 3),
        ("DEVICE_POINTER", buffer, buffer),
    ):
        which = getattr(asked, f"CU_POINTER_ATTRIBUTE_{name}")
        assert int(cuda.ok(driver.cuPointerGetAttribute(which, pointer))) == expected, name
    with pytest.raises(CodeError, match="INVALID_VALUE"):
        which = asked.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
        cuda.ok(driver.cuPointerGetAttribute(which, np.zeros(4).ctypes.data))
    # Zero-copy: the device writes through its address, the host reads its own.
    cuda.ok(driver.cuMemsetD8(address, 9, 100))
    cuda.ok(driver.cuCtxSynchronize())
    assert (pinned == 9).all()
    cuda.ok(driver.cuMemcpyAsync(buffer, pinned.ctypes.data, 100, 0))
    cuda.ok(driver.cuMemsetD8(address, 0, 100))
    cuda.ok(driver.cuMemcpyAsync(pinned.ctypes.data, buffer, 100, 0))
    cuda.synchronize(0)
    assert (pinned == 9).all()
    cuda.free_device(buffer)
    cuda.free_pinned(pinned)


def contexts(cuda: CudaBindings) -> None:
    driver = cuda.driver
    assert cuda.ok(driver.cuDevicePrimaryCtxGetState(0)) == [0, 1]
    second = cuda.ok(driver.cuDevicePrimaryCtxRetain(0))
    assert int(second) == int(cuda.context)
    cuda.ok(driver.cuCtxPushCurrent(second))
    assert int(cuda.ok(driver.cuCtxPopCurrent())) == int(second)
    cuda.ok(driver.cuDevicePrimaryCtxRelease(0))
    cuda.free_device(cuda.device(1))
    stream = cuda.ok(driver.cuStreamCreate(0))
    cuda.ok(driver.cuStreamDestroy(stream))
    cuda.ok(driver.cuDevicePrimaryCtxRelease(0))
    with pytest.raises(CodeError, match="CONTEXT_IS_DESTROYED"):
        cuda.device(1)
    cuda.ok(driver.cuDevicePrimaryCtxRetain(0))
    cuda.free_device(cuda.device(1))

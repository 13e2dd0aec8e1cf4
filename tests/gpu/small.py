"""A short program over the whole CUDA path, for compute-sanitizer: python -m tests.gpu.small."""

from __future__ import annotations

import numpy as np

from edgevision.machine.gpu import compute_capability
from edgevision.runtime.device.cuda.device import cuda_device
from edgevision.runtime.options import RunOptions
from edgevision.runtime.session import Session
from tests.gpu.kernel import KernelProgram, answer


def main() -> None:
    capability = compute_capability()
    assert capability is not None, "no GPU"
    device = cuda_device(binding="cuda-bindings")
    program = KernelProgram(device, capability, size_in=5000, size_out=7001, work_us=10.0)
    sent = np.arange(5000, dtype=np.uint8)
    with Session(program, {}, RunOptions(slots=2)) as session:
        session.warm_up()
        for _ in range(10):
            assert np.array_equal(session.run({"frame": sent})["echo"], answer(sent, 7001))


if __name__ == "__main__":
    main()

"""A process that is forked from one that used CUDA: it is told, and the parent goes on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.standin.build import BINDINGS, Unavailable, environment

FORKS = """
import os, sys
from edgevision.errors import CudaError
from edgevision.runtime.device.cuda.device import cuda_device

device = cuda_device(binding=sys.argv[1])
child = os.fork()
if not child:
    for binding in ("auto", sys.argv[1]):
        try:
            cuda_device(binding=binding)
            print("the parent's device", flush=True)
        except CudaError as error:
            print(error.code, error, flush=True)
    sys.exit(5)
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status))
with device.active():
    device.stream().close()
print(cuda_device() is device)
"""


@pytest.mark.timeout(900)  # the first build of pycuda
@pytest.mark.parametrize("binding", BINDINGS)
def test_cuda_is_not_used_again_in_a_forked_child(binding: str) -> None:
    try:
        variables = environment(binding=binding)
    except Unavailable as reason:
        pytest.skip(str(reason))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, binding],
        env=variables, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    first, second, child, again = done.stdout.splitlines()
    assert first == second
    assert first.startswith("3 this process was forked from one that used the GPU")
    assert "get_context('spawn')" in first
    assert (child, again, done.returncode, done.stderr) == ("child 5", "True", 0, "")

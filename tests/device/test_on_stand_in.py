"""The same suite over NVIDIA's cuda-bindings and over pycuda, on a stand-in for the driver.

Each run is a child process: the driver is found when a process starts, and pycuda ends its process
by abort() where it finds a context left behind.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.standin.build import Unavailable, environment

HERE = Path(__file__).parent
SUITES = ["test_contract.py", "test_runtime.py", "test_steady.py"]
# What needs no binding is tried once, not in each of these processes.
ELSEWHERE = "not works_in_place and not what_the_engine_reads and not copied_to_the_device"
# The driver makes the order, whoever calls it: each random one is tried with one of the bindings.
ORDERS = {
    "cuda-bindings": ("eager", "lazy", "lazy integrated", "seed:1", "seed:3"),
    "pycuda": ("eager", "lazy", "lazy integrated", "seed:2"),
}


@pytest.mark.timeout(900)  # the first build of pycuda
@pytest.mark.parametrize(("binding", "kind"), [(b, kind) for b in ORDERS for kind in ORDERS[b]])
def test_the_suite_passes(binding: str, kind: str) -> None:
    order, _, integrated = kind.partition(" ")
    try:
        variables = environment(binding=binding, order=order, integrated=bool(integrated))
    except Unavailable as reason:
        pytest.skip(str(reason))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", ELSEWHERE, *SUITES],
        cwd=HERE, env={**variables, "EDGEVISION_TEST_BINDINGS": binding, "PYTEST_ADDOPTS": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert not done.stderr, done.stderr
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) >= 40

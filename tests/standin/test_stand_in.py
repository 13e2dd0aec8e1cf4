"""The stand-in driver under the real bindings: data, order, errors, leaks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.standin.build import ROOT, Unavailable, environment

ORDERS = ("eager", "lazy", *(f"seed:{seed}" for seed in range(5)))


def run(
    program: str, binding: str, order: str = "eager", *, integrated: bool = False
) -> subprocess.CompletedProcess[str]:
    if binding == "cuda-bindings":
        pytest.importorskip("cuda.bindings")
    try:
        variables = environment(binding=binding, order=order, integrated=integrated)
    except Unavailable as error:
        pytest.skip(str(error))
    command = [sys.executable, "-m", "tests.standin.programs", program, binding]
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False
    )


def passes(program: str, binding: str, order: str = "eager") -> None:
    done = run(program, binding, order)
    assert done.returncode == 0, done.stderr


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def binding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("order", ORDERS)
def test_bytes_come_back_in_every_order(binding: str, order: str) -> None:
    passes("round_trip", binding, order)

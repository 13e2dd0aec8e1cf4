"""Starts a program of this folder on the stand-in driver, in a child process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.standin.build import ROOT, Unavailable, environment


def run(
    program: str, binding: str = "cuda-bindings", order: str = "eager", *, integrated: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a program of this folder in a child process; skips where it cannot be built."""
    if binding == "cuda-bindings":
        pytest.importorskip("cuda.bindings")
    try:
        variables = environment(binding=binding, order=order, integrated=integrated)
    except Unavailable as error:
        pytest.skip(str(error))
    command = [sys.executable, "-m", "tests.standin.child", f"tests.standin.{program}", binding]
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False
    )

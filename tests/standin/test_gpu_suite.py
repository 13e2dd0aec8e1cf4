"""The tests for a real GPU run on the stand-in driver too, so that none of them rots unseen."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.standin.build import ROOT, Unavailable, environment


def test_the_gpu_suite_passes() -> None:
    pytest.importorskip("cuda.bindings")
    try:
        variables = environment(binding="cuda-bindings", order="lazy")
    except Unavailable as reason:
        pytest.skip(str(reason))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests/gpu",
         "-k", "not thousand"],
        env={**variables, "PYTEST_ADDOPTS": ""},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) >= 15

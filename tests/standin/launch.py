"""Starts a program of this folder on the stand-in driver, in a process of its own."""

from __future__ import annotations

import atexit
import functools
import json
import subprocess
import sys

import pytest

from tests.standin.build import ROOT, Unavailable, environment


def run(
    program: str, binding: str = "cuda-bindings", order: str = "eager", *, integrated: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a program of this folder in a process of its own; skips where it cannot be built."""
    if binding == "cuda-bindings":
        pytest.importorskip("cuda.bindings")
    try:
        variables = environment(binding=binding, order=order, integrated=integrated)
    except Unavailable as error:
        pytest.skip(str(error))
    server = _server(binding)
    assert server.stdin is not None
    assert server.stdout is not None
    asked = {name: text for name, text in variables.items() if name.startswith("STANDIN_")}
    request = {"program": f"tests.standin.{program}", "environment": asked}
    print(json.dumps(request), file=server.stdin, flush=True)
    return subprocess.CompletedProcess([program], **json.loads(server.stdout.readline()))


@functools.cache
def _server(binding: str) -> subprocess.Popen[str]:
    """Return what forks the programs, which ends with this process; see `child`."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.standin.child", binding],
        cwd=ROOT, env=environment(binding=binding), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    atexit.register(server.communicate)
    return server

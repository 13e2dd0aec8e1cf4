"""SIGKILL at random moments of builds, cache writes, records and publishes; the next run succeeds.

EDGEVISION_TEST_KILLS=20 kills as often as the project promises; CI does fewer.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edgevision
from edgevision.bundle.directory import Bundle
from edgevision.bundle.state import engines_place
from edgevision.bundle.targets import get_target
from edgevision.engines.cache import EngineCache
from edgevision.engines.registry import unavailable
from edgevision.errors import UnverifiedError
from tests.parts.tiny_bundles import semantic_bundle

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("EDGEVISION_TEST_KILLS", "4"))


@pytest.mark.parametrize("target", ["local-cpu", "rtx"])
def test_killed_at_any_moment_the_next_run_finishes(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`local-cpu` is finished outside the bundle, `rtx` is published with it."""
    if reason := unavailable(get_target(target)):
        pytest.skip(reason)
    monkeypatch.setenv("EDGEVISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEVISION_STATE", str(tmp_path / "state"))
    bundle = semantic_bundle(tmp_path / "road.ev").root
    command = [
        sys.executable, "-m", "edgevision", "build", str(bundle), "--target", target,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.monotonic()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    whole_s = time.monotonic() - start
    rng = random.Random(0)
    killed = tries = 0
    while killed < KILLS:
        tries += 1
        assert tries <= 10 * KILLS, "it is never caught at work"
        if rng.random() < 0.7:
            shutil.rmtree(engines_place(bundle), ignore_errors=True)
        if rng.random() < 0.5:
            EngineCache().prune(0)
        child = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        # Its first third is Python that starts.
        time.sleep(rng.uniform(whole_s / 3, whole_s))
        if child.poll() is None:
            killed += 1
            os.killpg(child.pid, signal.SIGKILL)
        else:
            whole_s *= 0.8  # this machine was busier when it was taken
        child.wait()
        with contextlib.suppress(UnverifiedError):  # whatever loads, loads whole
            edgevision.load(bundle).close()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    edgevision.load(bundle).close()
    built = {a.target for a in Bundle.open(bundle).manifest.stages[0].artifacts}
    assert built == {"host-cpu", target} - {"local-cpu"}
    EngineCache().prune(1 << 30)
    engines = [".lock", "main.onnx", "record.json"] if target == "local-cpu" else []
    left = [path.name for path in tmp_path.rglob("*") if path.name[0] == "."]
    assert sorted(left) == engines[:1]
    finished = engines_place(bundle) / target
    assert sorted(path.name for path in finished.glob("*")) == engines

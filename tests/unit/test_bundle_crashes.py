"""Whatever happens to a writer, the bundle at its path is whole and nothing is left."""

from __future__ import annotations

import errno
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgevision.bundle import staging as _staging
from edgevision.bundle.directory import Bundle, BundleWriter
from tests.parts.two_stages import FILES, MANIFEST_VALUE, contents, golden_arrays, write_bundle

ROOT = Path(__file__).parents[2]
# Each file is written through to the disk, which may have others to serve.
pytestmark = pytest.mark.timeout(300)


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stopped_everywhere(mode: str, path: Path) -> dict[str, int]:
    with start("-m", "tests.unit.crash_writer", mode, path) as walk:
        out, err = walk.communicate(timeout=280)
    assert walk.returncode == 0, err
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def test_killed_at_every_point(tmp_path: Path) -> None:
    found = stopped_everywhere("kill", tmp_path / "net.ev")
    assert found["killed"] > 50
    assert 0 < found["replaced"] < found["killed"]
    assert found["left something"] > 0
    assert found["gone until opened"] == 0


def test_killed_at_every_point_where_names_cannot_be_exchanged(tmp_path: Path) -> None:
    found = stopped_everywhere("kill-without-exchange", tmp_path / "net.ev")
    assert found["killed"] > 50
    assert found["gone until opened"] == 1


def test_interrupted_at_every_point(tmp_path: Path) -> None:
    found = stopped_everywhere("interrupt", tmp_path / "net.ev")
    assert found["gave up"] > 50
    assert found["left something"] == 0


def test_disk_full_at_every_point(tmp_path: Path) -> None:
    found = stopped_everywhere("full", tmp_path / "net.ev")
    assert found["gave up"] > 10
    assert found["left something"] == 0


REPUBLISH = """
import itertools, sys
from pathlib import Path
from tests.parts.two_stages import write_bundle
first, count = int(sys.argv[2]), int(sys.argv[3])
for i in range(count):
    write_bundle(Path(sys.argv[1]), seed=first + i)
    print(i, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_stopped_by_a_real_signal(root: Path, tmp_path: Path, number: signal.Signals) -> None:
    moments = random.Random(number)
    for _ in range(3):
        with start("-c", REPUBLISH, root, 1, 10_000) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "0\n"
            time.sleep(moments.uniform(0, 0.05))
            writer.send_signal(number)
            writer.communicate(timeout=30)
        assert writer.returncode != 0
        assert Bundle.open(root).golden("decoder")
    write_bundle(root)
    assert [path.name for path in tmp_path.iterdir()] == [root.name]


def test_two_writers_and_a_reader(root: Path, tmp_path: Path) -> None:
    writers = [start("-c", REPUBLISH, root, first, 25) for first in (100, 200)]
    opened = 0
    while any(writer.poll() is None for writer in writers):
        Bundle.open(root)
        opened += 1
    for writer in writers:
        _, err = writer.communicate(timeout=30)
        assert writer.returncode == 0, err
    assert opened > 0
    last = [write_bundle(tmp_path / f"{seed}.ev", seed=seed).root for seed in (124, 224)]
    assert contents(root) in [contents(path) for path in last]
    beside = {path.name for path in tmp_path.iterdir()}
    assert beside == {root.name, "124.ev", "224.ev"}


def test_a_living_writer_is_not_cleared_away(root: Path, tmp_path: Path) -> None:
    with BundleWriter(root) as slow:
        slow.add("reports/slow", b"")
        write_bundle(root, seed=1)
        for name, data in FILES.items():
            slow.add(name, data)
        for stage, (inputs, outputs) in golden_arrays().items():
            slow.add_golden(stage, inputs, outputs)
        slow.publish(MANIFEST_VALUE)
    assert "reports/slow" in contents(root)
    assert [path.name for path in tmp_path.iterdir()] == [root.name]


def test_a_lost_race_is_run_again_where_names_cannot_be_exchanged(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(a: Path, b: Path) -> None:
        raise OSError(errno.EINVAL, f"{a}, {b}")

    monkeypatch.setattr(_staging, "_exchange", cannot)
    staging = _staging.Staging(root)
    (staging.folder / "new").touch()
    # What the first try moved aside before another writer's bundle took the place.
    (staging.folder.parent / "old" / "moved").mkdir(parents=True)
    staging.put_in_place()
    staging.close()
    assert contents(tmp_path) == {f"{root.name}/new": b""}


def test_an_error_in_the_with_block_leaves_nothing(root: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    with pytest.raises(ZeroDivisionError), BundleWriter(root) as writer:
        writer.add("reports/a", b"")
        1 / 0  # noqa: B018
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [root.name]

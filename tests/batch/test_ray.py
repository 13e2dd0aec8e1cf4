"""The same digits on a Ray cluster that the test starts on loopback, and ends."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgevision.batch.score import ScoreOptions, score_data
from edgevision.bundle.directory import Bundle
from tests.batch.conftest import FRAMES, SHARD

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="pip install 'edgevision[ray]'"
    ),
    # Ray's own: of its version, of its sockets.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def ray() -> Iterator[Any]:
    ray = importlib.import_module("ray")
    ray.init(
        address="local", num_cpus=2, object_store_memory=100 << 20, include_dashboard=False,
        _node_ip_address="127.0.0.1", log_to_driver=False, logging_level=logging.ERROR,
    )  # fmt: skip
    yield ray
    ray.shutdown()


def test_ray_gives_the_digits_of_one_pass(
    ray: Any, bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    options = ScoreOptions(frames_a_shard=SHARD)
    here = score_data(bundle.root, data, None, options).report
    there = score_data(
        bundle.root, data, tmp_path / "run", replace(options, ray="local", workers=2)
    ).report
    assert there.scores == here.scores
    assert there.frames == FRAMES
    memory = importlib.import_module("ray._private.internal_api").memory_summary(stats_only=True)
    assert "Plasma memory usage 0 MiB" in memory, memory

"""TensorRT's own settings on the one real builder that needs no GPU: RTX has the same names.

RTX times nothing, so its timings are empty; what is held here is their way to the file and back.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevision.bundle.targets import get_target
from edgevision.bundle.user_cache import read_cache
from edgevision.engines.registry import unavailable
from edgevision.engines.request import BuildRequest
from edgevision.engines.tensorrt_network import build_plan
from edgevision.engines.trt import configure, keep_timings
from edgevision.progress import silent
from tests.engines.test_builders import conv

RTX = get_target("rtx-ampere")
pytestmark = [
    pytest.mark.skipif(unavailable(RTX) is not None, reason="TensorRT-RTX is not installed"),
    pytest.mark.filterwarnings("ignore:.*no-ops in TensorRT-RTX:DeprecationWarning"),
]


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., bytes]:
    """Builds a convolution as `TrtBuilder` does, keeping timings in `timings` if it is told to."""
    import tensorrt_rtx as trt

    def built(*, lean: bool = False, timings: Path | None = None) -> bytes:
        graph, plan = tmp_path / "x.onnx", tmp_path / "x.plan"
        graph.write_bytes(conv())
        request = BuildRequest(graph, RTX, plan, version_compatible=lean, timing_cache=timings)
        configs: list[Any] = []

        def configured(config: Any) -> None:
            config.num_compute_capabilities = 1
            assert config.set_compute_capability(trt.ComputeCapability.SM86, 0)
            configure(trt, config, request)
            configs.append(config)

        build_plan(trt, request, silent, configured)
        if timings is not None:
            keep_timings(configs[0], timings)
        assert configs[0].get_flag(trt.BuilderFlag.VERSION_COMPATIBLE) == lean
        assert configs[0].get_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME) == lean
        return plan.read_bytes()

    return built


def test_a_plan_for_the_lean_runtime_is_built(build: Callable[..., bytes]) -> None:
    plain, lean = build(), build(lean=True)
    assert len(lean) == len(plain), "without the lean runtime inside it costs no byte"


def test_timings_are_kept_and_taken_again(build: Callable[..., bytes], tmp_path: Path) -> None:
    timings = tmp_path / "timings"
    build(timings=timings)
    kept = read_cache(timings)
    assert kept
    build(timings=timings)
    assert read_cache(timings)


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(1000)])
def test_damaged_timings_count_as_none(
    content: bytes, build: Callable[..., bytes], tmp_path: Path
) -> None:
    timings = tmp_path / "timings"
    timings.write_bytes(content)
    build(timings=timings)
    assert read_cache(timings), "what is valid took its place"

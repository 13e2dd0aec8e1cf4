"""What `build` and `finish` may be told beyond what to build: it arrives, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgevision
from edgevision.bundle.targets import get_target
from edgevision.engines.cache import EngineCache
from edgevision.engines.registry import unavailable
from edgevision.errors import BuildError, ExportError
from edgevision.export.build import _names_in
from tests.engines.small_graphs import model
from tests.parts.tiny_bundles import semantic_bundle

needs_rtx = pytest.mark.skipif(
    unavailable(get_target("rtx")) is not None, reason="TensorRT-RTX is not installed"
)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution and a ReLU as an ONNX file, with data to calibrate it beside it."""
    path = tmp_path_factory.mktemp("net") / "conv.onnx"
    path.write_bytes(model("conv").SerializeToString())
    (path.parent / "data").mkdir()
    rng = np.random.default_rng(0)
    for i in range(16):
        x = rng.normal(size=(1, 8, 32, 32)).astype(np.float32)
        np.savez(path.parent / "data" / f"{i}.npz", x=x)
    return path


def test_what_shall_stay_in_fp32_stays(net: Path, tmp_path: Path) -> None:
    summary = edgevision.build(net, tmp_path / "a.ev", precision="fp16", keep_fp32=["Conv"])
    kept = json.loads(summary.bundle.read("reports/layers.json"))["kept_wide"]
    assert len(kept) == 1
    plain = edgevision.build(net, tmp_path / "b.ev", precision="fp16")
    assert not json.loads(plain.bundle.read("reports/layers.json"))["kept_wide"]
    with pytest.raises(ExportError, match="keep_fp32: no node or op type is called Covn"):
        edgevision.build(net, tmp_path / "c.ev", precision="fp16", keep_fp32=["Covn"])


@pytest.mark.parametrize("method", ["minmax", None])
def test_int8_is_calibrated_by_the_method(net: Path, tmp_path: Path, method: str | None) -> None:
    summary = edgevision.build(
        net, tmp_path / "a.ev", precision="int8", calibration=net.parent / "data", method=method
    )
    told = summary.bundle.manifest.provenance
    assert told["calibration_method"] == (method or "auto")
    assert told["calibration_count"] == "16"


@needs_rtx
def test_the_builder_gets_its_knobs(net: Path, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    with pytest.raises(BuildError, match="Raise workspace_bytes"):
        edgevision.build(net, tmp_path / "a.ev", targets="rtx", workspace_bytes=1)
    quick: Any = {"optimization_level": 0, "cache": cache}
    edgevision.build(net, tmp_path / "a.ev", targets=["host-cpu", "rtx"], **quick)
    with pytest.raises(BuildError, match="Raise workspace_bytes"):
        edgevision.finish(tmp_path / "a.ev", "rtx", workspace_bytes=1)
    again = edgevision.finish(tmp_path / "a.ev", "rtx", **quick)
    assert again.cached == {"rtx"}, "the same level is the same engine"
    other = edgevision.finish(tmp_path / "a.ev", "rtx", **{**quick, "optimization_level": 1})
    assert not other.cached


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"keep_fp32": ["Conv"]}, "keep_fp32: in an FP32 graph everything is float32"),
        ({"keep_fp32": "Conv", "precision": "fp16"}, r"got 'Conv', expected a list such as"),
        ({"method": "minmax"}, "method: how INT8 is calibrated, and precision is fp32"),
        ({"method": "max", "precision": "int8"}, "got 'max', expected one of auto, percentile"),
        ({"recover": ["round"]}, "recover: what INT8 lost, and precision is fp32"),
        ({"recover": ["magic"], "precision": "int8"}, "got 'magic', expected some of equalise"),
        ({"recover": "round", "precision": "int8"}, r"got 'round', expected a list such as"),
        ({"optimization_level": 2}, "only TensorRT's builder has it, and the targets are host-cpu"),
        (
            {"optimization_level": 6, "targets": "rtx"},
            "optimization_level: got 6, expected a whole",
        ),
        ({"optimization_level": True, "targets": "rtx"}, "optimization_level: got True"),
        ({"workspace_bytes": 0, "targets": "rtx"}, "workspace_bytes: got 0, expected a whole"),
        ({"workspace_bytes": 1e9, "targets": "rtx"}, r"workspace_bytes: got 1000000000\.0"),
        ({"targets": []}, "targets: none given"),
    ],
)
def test_a_knob_that_does_nothing_is_refused(
    net: Path, tmp_path: Path, knobs: Any, message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        edgevision.build(net, tmp_path / "a.ev", **knobs)
    assert not (tmp_path / "a.ev").exists()


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        ("host-cpu", {"workspace_bytes": 1 << 30}, "workspace_bytes: only TensorRT's builder"),
        ("local-cpu", {"optimization_level": 1}, "optimization_level: only TensorRT's builder"),
        ("host-cpu", {"lean": True}, "lean: only for engines that are bound to their machine"),
        (["host-cpu"], {"evaluate": "val", "engines": "e"}, "evaluate, engines: only for engines"),
        ([], {}, "targets: none given"),
    ],
)
def test_finish_refuses_what_would_do_nothing(
    tmp_path: Path, targets: Any, options: Any, message: str
) -> None:
    bundle = semantic_bundle(tmp_path / "road.ev")
    before = bundle.manifest_sha256
    with pytest.raises(ValueError, match=message):
        edgevision.finish(bundle, targets, **options)
    assert edgevision.Bundle.open(bundle.root).manifest_sha256 == before


def test_names_are_of_a_stage_or_of_each() -> None:
    names = ["Softmax", "step/MatMul", "/layer/Conv"]
    assert _names_in("main", names, ["main"]) == names
    assert _names_in("encode", names, ["encode", "step"]) == ["Softmax", "/layer/Conv"]
    assert _names_in("step", names, ["encode", "step"]) == ["Softmax", "MatMul", "/layer/Conv"]

"""TensorRT-RTX: kernels compiled once and kept for this user, and its own graph capture."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from edgevision.bundle import user_cache as kept_file
from edgevision.bundle.user_cache import read_cache, write_cache
from edgevision.engines.cache import EngineCache
from edgevision.errors import EngineLoadError
from edgevision.runtime.backends.trt_rtx import TensorRTRTXProgram, cache_file
from edgevision.runtime.session import Session
from edgevision.testing import SimulatedDevice
from tests.parts.echo import frame
from tests.runtime.fake_tensorrt import CudaGraphStrategy, FakeTensorRT, plan_of

PLAN = plan_of(1, 8, 12, 3)
KERNELS = b"compiled kernels"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("EDGEVISION_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "edgevision" / "rtx-kernels"


def run_once(*refuses: str, graph: bool = True, plan: bytes = PLAN) -> FakeTensorRT:
    """Load, run and close as a user would; return what TensorRT-RTX was asked."""
    trt = FakeTensorRT(SimulatedDevice(), *refuses)
    program = TensorRTRTXProgram(trt, plan, trt.device, graph=graph)  # type: ignore[arg-type]
    with Session(program, {}) as session:
        session.warm_up()
        np.testing.assert_array_equal(session.run({"frame": frame(1)})["echo"], frame(1))
        assert "no graph: " in session.explain()
    return trt


def found(trt: FakeTensorRT) -> bytes:
    (made,) = trt.runtime_caches
    return made.found


def test_kernels_are_compiled_once(cache: Path) -> None:
    assert found(run_once()) == b""
    assert found(run_once()) == KERNELS
    (kept,) = cache.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_kernels_lie_where_everything_else_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEVISION_CACHE", str(tmp_path / "chosen"))
    run_once()
    assert list((tmp_path / "chosen" / "rtx-kernels").iterdir())
    assert not (tmp_path / "edgevision").exists()
    assert EngineCache().root == tmp_path / "chosen"


def test_another_plan_version_or_gpu_has_kernels_of_its_own() -> None:
    files = {
        cache_file(plan, version, gpu)
        for plan in (b"a", b"b")
        for version in ("1.5", "1.6")
        for gpu in ("RTX 4090", "RTX 5090")
    }
    assert len(files) == 8


def test_it_captures_its_own_graph_unless_told_not_to() -> None:
    assert run_once().graph_strategy is CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    assert run_once(graph=False).graph_strategy is None


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 40, None])
def test_damaged_kernels_are_compiled_again(cache: Path, damage: bytes | None) -> None:
    run_once()
    (kept,) = cache.iterdir()
    good = kept.read_bytes()
    kept.write_bytes(good[:-1] + b"!" if damage is None else damage)
    assert found(run_once()) == b""
    assert kept.read_bytes() == good
    assert found(run_once()) == KERNELS


def test_kernels_that_do_not_fit_any_more_are_replaced() -> None:
    run_once()
    assert found(run_once("cache")) == b""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_kernels_of_another_user_are_never_taken(cache: Path) -> None:
    run_once()
    (kept,) = cache.iterdir()
    os.chown(kept, 12345, 12345)
    assert found(run_once()) == b""


def test_too_large_a_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cache(tmp_path / "k", b"x" * 100)
    assert read_cache(tmp_path / "k") == b"x" * 100
    monkeypatch.setattr(kept_file, "_MAX_CACHE_BYTES", 100)
    assert read_cache(tmp_path / "k") is None


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "edgevision").write_text("a file where the folder should be")
    assert found(run_once()) == b""
    assert found(run_once()) == b""


def test_an_interrupted_write_leaves_the_old_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "k"
    write_cache(target, b"old")

    def interrupted(source: object, target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_cache(target, b"new")
    assert read_cache(target) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_no_runtime_config_is_an_error_in_its_own_words() -> None:
    with pytest.raises(EngineLoadError, match="makes no runtime config"):
        run_once("config")


def explained(*refuses: str) -> str:
    trt = FakeTensorRT(SimulatedDevice(), *refuses)
    program = TensorRTRTXProgram(trt, PLAN, trt.device, graph=True)  # type: ignore[arg-type]
    with Session(program, {}) as session:
        session.warm_up()
        return session.explain()


def test_a_graph_that_it_refuses_to_capture_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert "TensorRT-RTX captures its own graph" in explained()
    assert not caplog.records
    assert "TensorRT-RTX refuses to capture its own graph" in explained("strategy")
    assert "refuses to capture its own graph" in caplog.text


def test_a_cache_of_kernels_that_it_refuses_is_told(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_once("runtime cache")
    assert "compiles them at each load" in caplog.text
    assert not cache.exists()


@pytest.mark.parametrize(
    ("refused", "why"),
    [("serialize", "no room for the cache"), ("serialize, raising", "a native error")],
)
def test_the_engine_is_freed_whatever_becomes_of_its_kernels(
    refused: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    trt = FakeTensorRT(SimulatedDevice(), refused)
    program = TensorRTRTXProgram(trt, PLAN, trt.device, graph=True)  # type: ignore[arg-type]
    with Session(program, {}) as session:
        session.run({"frame": frame(1)})
    assert program.engine is None
    assert f"compiled kernels are not kept: {why}" in caplog.text


def test_who_has_no_home_has_no_cache_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(uid: int) -> object:
        raise KeyError(f"uid not found: {uid}")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    trt = FakeTensorRT(SimulatedDevice())
    program = TensorRTRTXProgram(trt, PLAN, trt.device, graph=True)  # type: ignore[arg-type]
    program.close()
    assert "Set EDGEVISION_CACHE" in caplog.text
    assert not trt.runtime_caches

"""Depth on the run side: colours and their scale, scores of a folder, hostile bundles."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgevision.bundle.manifest import Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.errors import BundleFormatError, FileReadError, FrameError
from edgevision.metrics.depth import DepthMetric, read_depth
from edgevision.metrics.metric import score_folder
from edgevision.metrics.tally import Tally
from edgevision.tasks.depth import TASK, DepthResult
from edgevision.tasks.frames import read_counts
from edgevision.tasks.outputs import png
from edgevision.tasks.timings import Timings

SIZE = (30, 200)
TIMES = Timings(0.1, 2.0, 0.3)
FRAME = TensorSpec("frame", DType.UINT8, (1, *SIZE, 3))
DEPTH = TensorSpec("depth", DType.FLOAT32, (1, *SIZE))
SETTINGS: dict[str, Any] = {"channel_order": "rgb"}
RAMP = np.broadcast_to(np.linspace(1, 9, SIZE[1], dtype=np.float32), SIZE).copy()
RAMPS = {"torch": lambda frame: DepthResult(RAMP, TIMES)}


def stage(depth: TensorSpec = DEPTH) -> Stage:
    return Stage("main", "model.onnx", (FRAME,), (depth,), {depth.name: Tolerance()})


def read(path: str) -> bytes:
    raise KeyError(path)


def test_near_is_bright_and_far_is_dark() -> None:
    colors = DepthResult(RAMP, TIMES).colored().astype(int)
    light = colors[0] @ [0.299, 0.587, 0.114]
    assert np.all(np.diff(light) <= 0.51)  # a step of rounding up at most
    assert light[0] > 230
    assert light[-1] < 5


def test_a_range_that_is_given_holds_for_all_pictures() -> None:
    one, other = DepthResult(RAMP, TIMES), DepthResult(RAMP / 2, TIMES)
    same = one.colored(1, 9)[0, 0], other.colored(1, 9)[0, -1]
    assert not np.array_equal(*same)
    flat = DepthResult(np.full(SIZE, 3.0, np.float32), TIMES).colored()
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1


def test_the_scale_stands_beneath() -> None:
    result = DepthResult(RAMP, TIMES)
    (picture,) = result.pictures(np.zeros((*SIZE, 3), np.uint8)).values()
    assert picture.shape[0] > SIZE[0]
    assert picture.shape[1] == 2 * SIZE[1]
    bar = picture[SIZE[0] : SIZE[0] + 9, SIZE[1] :]
    assert np.array_equal(bar[0, 0], result.colored()[0, 0])
    assert np.any(picture[SIZE[0] + 12 :, SIZE[1] :] < 128), "no figures beneath the bar"
    with pytest.raises(FrameError, match="expected the frame that was run"):
        result.pictures(np.zeros((4, 4, 3), np.uint8))


def test_the_depth_in_words() -> None:
    summary = DepthResult(RAMP, TIMES).summary()
    assert summary.text == "1.16 to 8.84 m, median 5.00 m"
    assert summary.fields["median_m"] == pytest.approx(5.0)


def test_a_png_holds_millimetres(tmp_path: Path) -> None:
    (tmp_path / "far.png").write_bytes(png(TASK.masks(DepthResult(RAMP * 10, TIMES))["depth_mm"]))
    np.testing.assert_array_equal(
        read_counts(tmp_path / "far.png"), np.rint(RAMP * 1e4).clip(0, 65535)
    )


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT16])
def test_the_decoder_takes_what_the_engine_gives(dtype: DType) -> None:
    decoder = TASK.decoder(SETTINGS, (stage(TensorSpec("depth", dtype, (1, *SIZE))),), read)
    found = decoder.decode({"depth": RAMP[None].astype(dtype.numpy)}, TIMES)
    assert found.depth.dtype == np.float32
    np.testing.assert_allclose(found.depth, RAMP, rtol=1e-3)


@pytest.mark.parametrize("wild", [-1.0, np.nan, np.inf])
def test_depths_that_cannot_be_are_refused(wild: float) -> None:
    decoder = TASK.decoder(SETTINGS, (stage(),), read)
    depth = RAMP[None].copy()
    depth[0, 3, 4] = wild
    with pytest.raises(FrameError, match="edgevision verify"):
        decoder.decode({"depth": depth}, TIMES)


@pytest.mark.parametrize(
    "depth",
    [
        TensorSpec("mask", DType.FLOAT32, (1, *SIZE)),
        TensorSpec("depth", DType.UINT8, (1, *SIZE)),
        TensorSpec("depth", DType.FLOAT32, (1, 4, 4)),
    ],
)
def test_a_bundle_that_is_not_one(depth: TensorSpec) -> None:
    with pytest.raises(BundleFormatError, match="task depth: expected"):
        TASK.decoder(SETTINGS, (stage(depth),), read)


def test_the_difference_of_two_answers() -> None:
    after = RAMP.copy()
    after[:, :50] *= 1.1
    frame = np.full((*SIZE, 3), 100, np.uint8)
    share, picture = TASK.difference(frame, DepthResult(RAMP, TIMES), DepthResult(after, TIMES))
    assert share == 0.25
    assert picture.shape == (SIZE[0], 3 * SIZE[1], 3)


@given(st.integers(0, 2**32 - 1))
def test_errors_are_those_of_the_paper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 80, (3, 5)).astype(np.float32)
    truth[0, :2] = 0
    found = (truth * rng.uniform(0.5, 2, truth.shape) + 0.01).astype(np.float32)
    tallies = [Tally(), Tally()]
    for tally, rows in zip(tallies, (slice(1), slice(1, None)), strict=True):
        DepthMetric().add(tally, 0, truth[rows], DepthResult(found[rows], TIMES), None)
    tallies[1].merge(tallies[0])
    errors = DepthMetric().score("net", tallies[1])
    wanted = [
        (t, f) for t, f in zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True) if t > 0
    ]
    count = len(wanted)
    assert errors.abs_rel == pytest.approx(sum(abs(t - f) / t for t, f in wanted) / count)
    assert errors.rmse_m == pytest.approx((sum((t - f) ** 2 for t, f in wanted) / count) ** 0.5)
    assert errors.delta == sum(max(t / f, f / t) < 1.25 for t, f in wanted) / count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    counts = Image.fromarray((RAMP * 256).round().astype(np.uint16))
    counts.save(tmp_path / "labels" / "a.png")
    half = RAMP[::2, ::2].copy()
    half[:3] = 0
    np.save(tmp_path / "labels" / "b.npy", half)
    (tmp_path / "labels.json").write_text(json.dumps({"metres_per_count": 1 / 256}))
    return tmp_path


def test_scores_of_a_folder(folder: Path) -> None:
    forms = {
        "torch": lambda frame: DepthResult(RAMP, TIMES),
        "int8": lambda frame: DepthResult(RAMP * np.float32(1.1), TIMES),
    }
    torch, int8 = score_folder(DepthMetric(), forms, folder, SIZE)
    assert torch.abs_rel == pytest.approx(0, abs=1e-3)
    assert int8.abs_rel == pytest.approx(0.1, abs=1e-3)
    assert (torch.delta, int8.delta, torch.agreement, int8.agreement) == (1, 1, 1, 0)
    assert TASK.headline is not None
    assert TASK.headline.loss(torch.abs_rel or 0, int8.abs_rel or 0) > 0.09
    assert TASK.headline.name in torch.figures()


def test_a_folder_of_pictures_gives_agreement(folder: Path) -> None:
    (score,) = score_folder(DepthMetric(), RAMPS, folder / "images", SIZE)
    assert (score.abs_rel, score.agreement) == (None, 1.0)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"metres_per_count": 0}'])
def test_counts_need_their_unit(folder: Path, text: str | None) -> None:
    (folder / "labels.json").unlink()
    if text is not None:
        (folder / "labels.json").write_text(text)
    with pytest.raises(FileReadError, match="16-bit labels need their unit"):
        score_folder(DepthMetric(), RAMPS, folder, SIZE)


def test_a_pipe_for_labels_does_not_hang(folder: Path) -> None:
    (folder / "labels.json").unlink()
    os.mkfifo(folder / "labels.json")
    with pytest.raises(FileReadError, match="not a regular file"):
        score_folder(DepthMetric(), RAMPS, folder, SIZE)
    os.mkfifo(folder / "c.npy")
    with pytest.raises(FileReadError, match="not a regular file"):
        read_depth(folder / "c.npy", 1.0)


def test_an_array_that_claims_more_than_it_has_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    with file.open("wb") as written:
        header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 22, 1 << 20)}
        np.lib.format.write_array_header_1_0(written, header)
    with pytest.raises(FileReadError, match=r"has 0 bytes, its header says 35184372088832"):
        read_depth(file, 1.0)


def test_labels_that_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4), np.float32))
    (tmp_path / "b.npy").write_bytes(b"no array")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "c.png")
    for name, message in (
        ("a.npy", r"expected float\[H, W\]"),
        ("b.npy", "cannot be read"),
        ("c.png", "16-bit"),
    ):
        with pytest.raises(FileReadError, match=message):
            read_depth(tmp_path / name, 1.0)

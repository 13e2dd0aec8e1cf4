"""Several cameras in one call: each is answered as it is alone, in every task and in pipelines.

EDGEVISION_TEST_CAMERA=all tries every task, with a fixed and an open number of cameras.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import edgevision
from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Manifest
from edgevision.cli import main
from edgevision.errors import (
    BundleFormatError,
    ClosedError,
    ExportError,
    FrameError,
    WrongTaskError,
)
from edgevision.export import Camera, Depth, MultiTask, SemanticHead, SemanticSegmentation
from edgevision.export.graph.capture import serialized
from edgevision.runtime.files.batch import run_files
from edgevision.runtime.session import Session
from edgevision.tasks.decoders import bundle_decoder
from edgevision.tasks.frames import read_image, resize
from edgevision.tasks.pixel_photos import frame_from_photo
from tests.export import test_camera_builds, test_multitask
from tests.export.test_depth import SmallDepth
from tests.parts.nets import NAMES, PHOTOS

SIZE, FRAME = (24, 32), (36, 48)
NV12 = Camera(size=FRAME, pixel_format="nv12", row_bytes=64, fit="letterbox")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))


def segmenter(**given: Any) -> SemanticSegmentation:
    return SemanticSegmentation(net(), size=SIZE, classes=["a", "b"], camera=NV12, **given)


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("val")
    rng = np.random.default_rng(0)
    for kind, high in (("images", 256), ("labels", 2)):
        (folder / kind).mkdir()
        for i in range(4):
            shape = (*FRAME, 3) if kind == "images" else FRAME
            pixels = rng.integers(0, high, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, val: Path) -> Any:
    """Three bundles of one net: of one frame, of six cameras, and of one to six."""
    folder = tmp_path_factory.mktemp("bundles")
    built = {
        name: edgevision.build(segmenter(cameras=cameras), folder / f"{name}.ev", evaluate=val)
        for name, cameras in (("one", None), ("six", 6), ("any", (1, 6)))
    }
    loaded = {name: edgevision.load(summary.bundle) for name, summary in built.items()}
    yield built, loaded
    for model in loaded.values():
        model.close()


def frames(count: int) -> list[np.ndarray]:
    """Return a frame of each camera, in buffers of their own."""
    layout = segmenter()._camera.layout
    paths = sorted(PHOTOS.glob("*.jpg"))[:count]
    return [frame_from_photo(resize(read_image(path), FRAME), layout) for path in paths]


def test_six_cameras_are_answered_as_six_calls_are(models: Any) -> None:
    _, loaded = models
    given = frames(6)
    alone = [loaded["one"](frame).mask for frame in given]
    six, some = loaded["six"], loaded["any"]
    flat = [frame.reshape(-1) for frame in given]
    for model, taken in (
        (six, given),
        (six, tuple(flat)),
        (six, np.stack(given)),
        (six, torch.from_numpy(np.stack(given))),
        (six, [*map(torch.from_numpy, given)]),
        (some, given),
    ):
        answers = model(taken)
        assert len(answers) == 6
        for answer, mask in zip(answers, alone, strict=True):
            np.testing.assert_array_equal(answer.mask, mask)
    for count in (1, 2, 5):
        for answer, mask in zip(some(given[:count]), alone[:count], strict=True):
            np.testing.assert_array_equal(answer.mask, mask)
    assert answers.timings.total_ms > 0
    assert len(answers.summary().fields["cameras"]) == 6
    shown = np.zeros((6, *FRAME, 3), np.uint8)
    assert {".0.overlay.jpg", ".5.classes.png"} <= set(answers.pictures(shown))


def test_a_list_is_copied_once_into_the_slot(models: Any) -> None:
    _, loaded = models
    feeds = loaded["six"].decoder.feeds(given := frames(6))
    (parts,) = feeds.values()
    assert all(np.shares_memory(part, one) for part, one in zip(parts.parts, given, strict=True))


def test_what_is_not_a_set_is_refused(models: Any) -> None:
    _, loaded = models
    six, some, given = loaded["six"], loaded["any"], frames(6)
    for model, wrong, message in (
        (six, [*given, given[0]], "got frames of 7 cameras, and the model takes 6"),
        (six, given[:5], "got frames of 5 cameras"),
        (some, [], "got frames of 0 cameras, and the model takes 1 to 6"),
        (some, [*given, given[0]], "got frames of 7 cameras, and the model takes 1 to 6"),
        (six, np.stack([*given, given[0]]), "got frames of 7"),
        (six, given[0], "takes 6 cameras' frames in one call"),
        (six, [*given[:3], given[3][:-2], *given[4:]], r"camera 3: frame: got uint8\[52, 64\]"),
        (six, [*given[:5], given[5].astype(np.float32)], "camera 5: frame: got float32"),
        (six, {"frame": given}, "got dict, expected a list of 6 frames"),
        (six, "frames", "got str, expected a list of 6 frames"),
    ):
        with pytest.raises(FrameError, match=message):
            model(wrong)
    with pytest.raises(WrongTaskError, match=r"takes one frame, not those of 6 cameras"):
        loaded["one"].stream(cameras=6)


def test_files_and_scores_are_those_of_one_camera(models: Any, val: Path) -> None:
    built, loaded = models
    assert built["six"].scores[-1] == built["one"].scores[-1] == built["any"].scores[-1]
    texts = [
        [frame.text for frame in run_files(loaded[name], val / "images").frames]
        for name in ("one", "six", "any")
    ]
    assert texts[0] == texts[1] == texts[2]
    assert built["six"].bundle.golden("main")[0]["frame"].shape[1] == 6


def test_the_chain_is_drawn(models: Any, capsys: pytest.CaptureFixture[str]) -> None:
    built, _ = models
    assert main(["inspect", str(built["any"].bundle.root)]) == 0
    shown = capsys.readouterr().out
    for line in (
        "sensor   nv12 36x48",
        "cameras  1 to 6 in one call",
        "fit      letterbox",
        "net      RGB of [24, 32]",
        "answer   classes: uint8[1, 36, 48] of each camera",
    ):
        assert line in shown


def test_settings_of_strangers_are_refused(models: Any) -> None:
    built, _ = models
    manifest: Manifest = built["any"].bundle.manifest
    for wrong in (6, [1, 7], [2, 6], [6, 1], "6", 0, [1, True], [1, 2, 3], 1):
        broken = replace(manifest, settings={**manifest.settings, "cameras": wrong})
        with pytest.raises(BundleFormatError, match="camera"):
            bundle_decoder(broken, bytes)


ADAPTERS: dict[str, Callable[..., Any]] = {
    **test_camera_builds.ADAPTERS,
    "multitask": lambda camera, cameras=None: MultiTask(
        test_multitask.Heads(), size=test_multitask.SIZE, heads=test_multitask.HEADS,
        camera=camera, cameras=cameras,
    ),
}  # fmt: skip


_FEW = [("depth", (1, 3)), ("classification", 3), ("multitask", (1, 3))]
_EVERY = [(task, cameras) for task in sorted(ADAPTERS) for cameras in (3, (1, 3))]


@pytest.mark.parametrize(("task", "cameras"), _EVERY if test_camera_builds._ALL else _FEW)
def test_every_task_takes_several_cameras(task: str, cameras: Any) -> None:
    camera = Camera(size=(60, 80), pixel_format="nv12")
    if task == "caption" and cameras != 3:
        with pytest.raises(ValueError, match="a search follows a fixed number of captions"):
            ADAPTERS[task](camera, cameras)
        return
    one, several = ADAPTERS[task](camera), ADAPTERS[task](camera, cameras)
    layout = one._camera.layout
    photos = [resize(read_image(path), (60, 80)) for path in sorted(PHOTOS.glob("*.jpg"))[:3]]
    feeds = [frame_from_photo(photo, layout)[None] for photo in photos]
    graph = serialized(several.to_onnx())
    with Session.open(graph, flavour=ORT, profiles=several.profiles) as session:
        found = session.run({"frame": np.concatenate(feeds)})
    for number, feed in enumerate(feeds):
        for name, values in one.reference({"frame": feed}).items():
            np.testing.assert_allclose(
                found[name][number : number + 1].astype(np.float64), values, rtol=1e-3, atol=2e-3
            )


def test_what_the_number_was_called_before_is_taken_for_one_more_release() -> None:
    with pytest.warns(DeprecationWarning, match="batch= is now cameras="):
        assert segmenter(batch=6).inputs[0].shape[0] == 6


def test_a_module_that_mixes_its_batch_is_refused() -> None:
    class Mixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return SmallDepth()(x).mean(0, keepdim=True)

    with pytest.raises(ExportError, match=r"gives \[1, .*\] of 3 frame\(s\)"):
        Depth(Mixed(), size=SIZE, cameras=3)
    with pytest.raises(ExportError, match=r"of 2 frame\(s\)"):
        MultiTask(_Halved(), size=SIZE, heads={"road": SemanticHead(["a", "b"])}, cameras=2)


class _Halved(nn.Module):
    """A head whose output has another batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"road": self.net(x)[:1]}


LONG = {"sync_ms": 100, "wait_ms": 60_000, "dead_ms": 60_000, "policy": "block"}
SECOND_NS = 10**9


def test_cameras_bring_their_frames_one_by_one(models: Any) -> None:
    _, loaded = models
    given = frames(6)
    expected = [loaded["one"](frame).mask for frame in given]
    begin_ns = time.perf_counter_ns()
    with loaded["six"].stream(cameras=6, **LONG) as pipeline:

        def bring(camera: int) -> None:
            buffer = np.empty_like(given[0])
            for turn in range(8):
                buffer[:] = given[(camera + turn) % 6]
                pipeline.submit_camera(
                    camera, buffer, stamp_ns=begin_ns + turn * SECOND_NS, meta=(camera, turn)
                )
                buffer[:] = 255  # the driver uses it again

        threads = [threading.Thread(target=bring, args=(camera,)) for camera in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        states = pipeline.cameras()
    assert [state.submitted for state in states] == [8] * 6
    counted = [state.used + state.unused + state.late for state in states]
    assert counted == [8] * 6  # a thread that was far ahead has closed sets of others
    last = pipeline.latest()
    assert last.meta.metas == tuple((camera, 7) for camera in range(6))
    assert (last.meta.stale, last.meta.missing) == (frozenset(), frozenset())
    for camera, result in last.meta.by_camera(last.result()).items():
        np.testing.assert_array_equal(result.mask, expected[(camera + 7) % 6])


@pytest.mark.parametrize("missing", ["drop", "without", "stale"])
def test_a_set_without_a_camera_is_dealt_with_as_asked(models: Any, missing: str) -> None:
    _, loaded = models
    given = frames(6)
    expected = [loaded["one"](frame).mask for frame in given]
    tickets: list[Any] = []
    begin_ns = time.perf_counter_ns()
    with loaded["any"].stream(
        cameras=3, missing=missing, on_result=tickets.append, **LONG
    ) as pipeline:
        for turn in range(3):
            for camera in (0, 2, 1):
                if (camera, turn) != (1, 1):
                    pipeline.submit_camera(
                        camera, given[camera + turn], stamp_ns=begin_ns + turn * SECOND_NS
                    )
        state = pipeline.cameras()[1]
        assert (state.state, state.submitted, state.missed) == ("live", 2, 1)
        dropped = pipeline.dropped_sets
    assert dropped == (missing == "drop")
    assert len(tickets) == 3 - dropped
    if missing == "drop":
        return
    meta, results = tickets[1].meta, tickets[1].meta.by_camera(tickets[1].result())
    assert meta.missing == ({1} if missing == "without" else set())
    assert meta.stale == ({1} if missing == "stale" else set())
    for camera, result in results.items():
        shown = camera + (0 if camera in meta.stale else 1)
        np.testing.assert_array_equal(result.mask, expected[shown])


def test_what_waits_in_vain_goes_in_by_itself(
    models: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _, loaded = models
    given = frames(3)
    with loaded["any"].stream(
        cameras=2, sync_ms=5, dead_ms=1, missing="without", policy="block"
    ) as pipeline:
        pipeline.submit_camera(0, given[0])
        while (ticket := pipeline.latest()) is None:  # the pipeline's own thread sends it in
            threading.Event().wait(0.002)
        assert (ticket.meta.cameras, ticket.meta.missing) == ((0,), {1})
        assert pipeline.cameras()[1].state == "dead"
        while "camera 1 is dead" not in caplog.text:
            threading.Event().wait(0.002)


def test_cameras_that_a_pipeline_cannot_have(models: Any) -> None:
    _, loaded = models
    given = frames(2)
    with pytest.raises(ValueError, match="takes no fewer than 6 cameras"):
        loaded["six"].stream(cameras=6, missing="without")
    with pytest.raises(ValueError, match="cameras: got 7, and the model takes 1 to 6"):
        loaded["any"].stream(cameras=7)
    with loaded["any"].stream(cameras=2) as pipeline:
        with pytest.raises(ValueError, match="camera: got 2, and the pipeline was opened for 2"):
            pipeline.submit_camera(2, given[0])
        with pytest.raises(FrameError, match=r"camera 1: frame: got uint8\[52, 64\]"):
            pipeline.submit_camera(1, given[1][:-2])
        with pytest.raises(ValueError, match="stamp_ns"):
            pipeline.submit_camera(1, given[1], stamp_ns=5)
    with pytest.raises(ClosedError):
        pipeline.submit_camera(1, given[1])


def test_the_command_line_takes_a_number_of_cameras(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["build", "tests.export.test_camera_builds:coloured", "--size", "32x32"]
    (tmp_path / "names").write_text("\n".join(NAMES))
    given = [*source, "--classes", str(tmp_path / "names"), "--set", "task=semantic"]
    for wrong in ("0", "1:2:3", "a", "1:"):
        with pytest.raises(SystemExit):
            main([*given, "--cameras", wrong, "--out", str(tmp_path / "m.ev")])
    assert "got '1:', expected a number of cameras such as 6" in capsys.readouterr().err
    assert main([*given, "--cameras", "2:3", "--out", str(tmp_path / "m.ev")]) == 0
    assert main(["run", str(tmp_path / "m.ev"), str(PHOTOS), "--json"]) == 0
    assert main(["verify", str(tmp_path / "m.ev")]) == 0

"""Sessions: right answers, refused inputs, threads, and the end of their life."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevision.bundle.flavours import TRT, Flavour, flavours
from edgevision.bundle.tensors import ShapeProfile
from edgevision.errors import ClosedError, EngineLoadError, FrameError
from edgevision.runtime.session import Session
from tests.parts.tiny_bundles import CLASSES, FRAME, doubled, strongest_channel

PROFILE = {"x": ShapeProfile((1, 3), (2, 3), (4, 3))}


@pytest.fixture(params=[known for known in flavours() if not known.on_gpu], ids=str)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Return each runtime of the host in turn."""
    known: Flavour = request.param
    if importlib.util.find_spec(known.modules[0]) is None:
        pytest.skip(f"{known.title} is not installed")
    return known


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, FRAME.shape, np.uint8)


def test_runs_and_describes_its_tensors(flavour: Flavour) -> None:
    with Session.open(strongest_channel(), flavour=flavour) as session:
        assert (session.inputs, session.outputs) == ((FRAME,), (CLASSES,))
        answer = session.run({"frame": frame(0)})["classes"]
    np.testing.assert_array_equal(answer, frame(0).argmax(-1))


def test_answers_belong_to_the_caller(flavour: Flavour) -> None:
    with Session.open(strongest_channel(), flavour=flavour) as session:
        first = session.run({"frame": frame(0)})["classes"]
        kept = first.copy()
        session.run({"frame": frame(1)})
    np.testing.assert_array_equal(first, kept)


def test_a_closed_session_keeps_no_weights(flavour: Flavour) -> None:
    session = Session.open(strongest_channel(), flavour=flavour)
    program: Any = session.program
    graph = weakref.ref(vars(program).get("session") or program.compiled)
    with session.run_view({"frame": frame(0)}) as view:
        pass
    session.close()
    gc.collect()
    assert graph() is None, "the session, the program and an old view are still there"
    assert view is not None
    with pytest.raises(ClosedError, match="the engine is closed"):
        program.execution(None)


def test_the_telemetry_of_onnx_runtime_writes_nothing(tmp_path: Path) -> None:
    script = "from edgevision._optional import require; require('onnxruntime', extra='ort')"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_input_arrays_are_not_kept(flavour: Flavour) -> None:
    with Session.open(strongest_channel(), flavour=flavour) as session:
        fed = frame(0)
        session.run({"frame": fed})
        fed[:] = 0
        np.testing.assert_array_equal(
            session.run({"frame": frame(0)})["classes"], frame(0).argmax(-1)
        )
        assert not fed.any(), "the session wrote into the caller's frame"


def test_dynamic_batch_follows_each_feed(flavour: Flavour) -> None:
    with Session.open(doubled(), flavour=flavour, profiles=PROFILE) as session:
        for batch in (2, 4, 1, 4, 2):
            x = np.arange(batch * 3, dtype=np.float32).reshape(batch, 3)
            np.testing.assert_array_equal(session.run({"x": x})["y"], x * 2)


def test_dynamic_answers_belong_to_the_caller_too(flavour: Flavour) -> None:
    with Session.open(doubled(), flavour=flavour, profiles=PROFILE) as session:
        first = session.run({"x": np.ones((2, 3), np.float32)})["y"]
        session.run({"x": np.zeros((2, 3), np.float32)})
    np.testing.assert_array_equal(first, np.full((2, 3), 2, np.float32))


def test_shape_outside_the_profile_is_refused(flavour: Flavour) -> None:
    with (
        Session.open(doubled(), flavour=flavour, profiles=PROFILE) as session,
        pytest.raises(FrameError, match=r"\[5, 3\] lies outside the profile \[1, 3\] to \[4, 3\]"),
    ):
        session.run({"x": np.zeros((5, 3), np.float32)})


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"frame": frame(0).astype(np.float32)}, r"got float32.*expected frame: uint8"),
        ({"frame": frame(0)[:, :-1]}, r"got uint8\[1, 5, 10, 3\].*expected frame"),
        ({"frame": frame(0)[0]}, r"got uint8\[6, 10, 3\]"),
        ({"frame": frame(0).tolist()}, "got list, expected a numpy array"),
        ({"image": frame(0)}, r"got \['image'\], this model takes \['frame'\]"),
        ({}, r"got \[\], this model takes \['frame'\]"),
        ({"frame": frame(0), "more": frame(0)}, "this model takes"),
    ],
)
def test_wrong_feeds_say_what_would_be_right(
    flavour: Flavour, feeds: dict[str, np.ndarray], message: str
) -> None:
    with (
        Session.open(strongest_channel(), flavour=flavour) as session,
        pytest.raises(FrameError, match=message),
    ):
        session.run(feeds)


def test_garbage_is_refused(flavour: Flavour) -> None:
    with pytest.raises(EngineLoadError, match="cannot load the graph"):
        Session.open(b"not an onnx file", flavour=flavour)


def test_a_plan_is_not_run_by_the_wrong_runtime() -> None:
    with pytest.raises(EngineLoadError, match="'trt' engines run on a GPU"):
        Session.open(b"", flavour=TRT)


def test_closed_session_says_where_it_was_opened(flavour: Flavour) -> None:
    session = Session.open(strongest_channel(), flavour=flavour)
    session.close()
    session.close()
    with pytest.raises(ClosedError, match=r"opened at .*test_session\.py:\d+"):
        session.run({"frame": frame(0)})


def test_forgotten_session_warns_with_the_line_that_opened_it(flavour: Flavour) -> None:
    session = Session.open(strongest_channel(), flavour=flavour)
    with pytest.warns(ResourceWarning, match=r"test_session\.py:\d+, was never closed"):
        del session
        gc.collect()


def test_threads_share_one_session(flavour: Flavour) -> None:
    wrong: list[int] = []
    with Session.open(strongest_channel(), flavour=flavour) as session:

        def hammer(seed: int) -> None:
            for i in range(50):
                fed = frame(seed * 100 + i)
                if not np.array_equal(session.run({"frame": fed})["classes"], fed.argmax(-1)):
                    wrong.append(seed)

        threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_closing_while_others_run_ends_in_answers_or_closed_errors(flavour: Flavour) -> None:
    session = Session.open(strongest_channel(), flavour=flavour)
    outcomes: list[str] = []
    started = threading.Barrier(5)

    def run() -> None:
        started.wait()
        try:
            while True:
                session.run({"frame": frame(0)})
        except ClosedError:
            outcomes.append("closed")

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    session.close()
    for thread in threads:
        thread.join(timeout=20)
    assert outcomes == ["closed"] * 4

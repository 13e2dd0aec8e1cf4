"""The same digits however frames are shared out, and what happens when something goes wrong."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevision.batch import Runner
from edgevision.batch.backends.backend import open_backend
from edgevision.batch.review import write_review
from edgevision.batch.score import ScoredRun, ScoreOptions, report_fields, score_data
from edgevision.batch.scorer import Scorer
from edgevision.batch.shards import RunFolder, divide, identify
from edgevision.bundle.directory import Bundle
from edgevision.bundle.trust import Trust
from edgevision.cli import main
from edgevision.errors import (
    BundleIntegrityError,
    FileReadError,
    FileWriteError,
    MissingDependencyError,
    RunError,
    SignatureError,
)
from edgevision.metrics.metric import score_task
from edgevision.progress import silent
from edgevision.tasks.frames import read_image
from edgevision.tasks.places import list_frames
from edgevision.tasks.task import get_task
from tests.batch.conftest import FRAMES, SHARD
from tests.batch.dying import DyingScorer
from tests.parts.tiny_bundles import semantic_bundle
from tests.parts.two_stages import read_manifest, write_manifest

OPTIONS = ScoreOptions(frames_a_shard=SHARD)


def digits(run: ScoredRun) -> dict[str, object]:
    """Return what of a report does not say how long something took."""
    fields = report_fields(run.report)
    shards: Any = fields.pop("shards")
    fields.pop("latency_ms")
    return {**fields, "shards": [(s["number"], s["frames"], s["bad"]) for s in shards]}


@pytest.fixture(scope="module")
def whole(bundle: Bundle, other: Bundle, data: Path) -> dict[str, object]:
    """Return what one pass in this process gives."""
    return digits(score_data(bundle.root, data, None, replace(OPTIONS, against=other.root)))


def test_one_pass_is_what_every_gate_computes(
    bundle: Bundle, data: Path, whole: dict[str, Any]
) -> None:
    runner = Runner(bundle.root)
    decoder, task = runner.model.decoder, get_task(bundle.manifest.task)
    (score,) = score_task(task, decoder, {"tiny.ev": runner.predict}, data, silent)
    figures, per_class = score.figures(), list(score.per_class())
    runner.close()
    assert whole["scores"][0]["figures"] | {"agrees with reference": 1.0} == figures
    assert whole["scores"][0]["per_class"] == per_class
    assert whole["frames"] == FRAMES
    assert whole["scores"][1]["figures"]["agrees with reference"] == 1.0


def test_processes_and_a_run_in_pieces_give_the_digits_of_one_pass(
    bundle: Bundle, other: Bundle, data: Path, whole: dict[str, object], tmp_path: Path
) -> None:
    options = replace(OPTIONS, against=other.root, workers=2)
    told: list[tuple[str, int, int]] = []
    run = score_data(
        bundle.root, data, tmp_path / "run", options, progress=lambda *args: told.append(args)
    )
    assert digits(run) == whole
    assert told[-1][1:] == (FRAMES, FRAMES)
    assert told[-1][0] == "scoring, 2 workers, 0:00 h left"
    for number in (1, 3):  # as if the run had been killed before
        (tmp_path / "run" / "shards" / f"{number:08d}.npz").unlink()
    (tmp_path / "run" / "shards" / "00000002.npz").write_bytes(b"half a file")
    with pytest.raises(FileWriteError, match="holds a run: go on with it by --resume"):
        score_data(bundle.root, data, tmp_path / "run", options)
    told.clear()
    again = replace(options, workers=1, resume=True)
    run = score_data(
        bundle.root, data, tmp_path / "run", again, progress=lambda *args: told.append(args)
    )
    assert digits(run) == whole
    assert told[0][1] == FRAMES - 3 * SHARD


def test_a_killed_command_goes_on(
    bundle: Bundle, other: Bundle, data: Path, whole: dict[str, object], tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "edgevision", "score", str(bundle.root), str(data), "--against",
        str(other.root), "--shard", str(SHARD), "--out", str(tmp_path / "run"), "--workers", "2",
    ]  # fmt: skip
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shards = tmp_path / "run" / "shards"
    while first.poll() is None and len(list(shards.glob("*.npz"))) < 4:
        pass
    first.kill()
    first.wait()
    done = subprocess.run(
        [*command, "--resume", "--json"], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {key: report[key] for key in ("scores", "frames", "against", "most_apart")} == {
        key: json.loads(json.dumps(whole[key]))
        for key in ("scores", "frames", "against", "most_apart")
    }
    page = (tmp_path / "run" / "review.html").read_text("utf-8")
    assert page.count("<figure>") == FRAMES
    assert "tiny.ev against bgr.ev" in page


def copied(data: Path, to: Path) -> Path:
    return shutil.copytree(data, to, copy_function=shutil.copy2)


def test_a_frame_that_is_corrupt_is_named_and_may_be_passed_over(
    bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    broken = copied(data, tmp_path / "frames")
    (broken / "images" / "000010.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    out = tmp_path / "run"
    with pytest.raises(RunError, match=r"more than 0 frames .*000010\.png: .*--max-bad"):
        score_data(bundle.root, broken, out, OPTIONS)
    passed = replace(OPTIONS, max_bad=1, resume=True)
    report = score_data(bundle.root, broken, out, passed).report
    assert (report.frames, len(report.bad)) == (FRAMES - 1, 1)
    assert report.bad[0].startswith("000010.png: ")
    with pytest.raises(RunError, match="more than 0 frames cannot be read: 1 are"):
        score_data(bundle.root, broken, out, replace(OPTIONS, resume=True))
    for kind in ("images", "labels"):
        (broken / kind / "000010.png").unlink()
    rest = score_data(bundle.root, broken, None, OPTIONS).report
    assert rest.scores == report.scores


def test_another_bundle_or_other_data_are_refused(
    bundle: Bundle, other: Bundle, data: Path, tmp_path: Path
) -> None:
    own = copied(data, tmp_path / "frames")
    score_data(bundle.root, own, tmp_path / "run", OPTIONS)
    resumed = replace(OPTIONS, resume=True)
    with pytest.raises(RunError, match=r"is a run of something else.*bundle was .*, is "):
        score_data(other.root, own, tmp_path / "run", resumed)
    os.utime(own / "labels" / "000003.png", ns=(1, 1))
    with pytest.raises(RunError, match="frames or labels were changed or touched"):
        score_data(bundle.root, own, tmp_path / "run", resumed)
    (own / "images" / "000003.png").unlink()
    (own / "labels" / "000003.png").unlink()
    with pytest.raises(RunError, match="frames was 60, is 59"):
        score_data(bundle.root, own, tmp_path / "run", resumed)
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("all of it")
    with pytest.raises(FileWriteError, match="holds other files"):
        score_data(bundle.root, own, foreign, resumed)


def test_a_full_disk_keeps_what_is_done(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    command = [
        "score",
        str(bundle.root),
        str(data),
        "--shard",
        str(SHARD),
        "--out",
        str(tmp_path / "r"),
    ]
    full = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900)); "
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "from edgevision.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", full, *command], capture_output=True, text=True, check=False,
        timeout=100,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "00000000.npz' cannot be written: File too large. What is done is kept" in done.stderr
    assert not list((tmp_path / "r" / "shards").glob("*.npz"))
    report = score_data(bundle.root, data, tmp_path / "r", replace(OPTIONS, resume=True)).report
    assert report.frames == FRAMES


@pytest.mark.parametrize("deaths", [1, 9])
def test_a_worker_that_dies_is_replaced(
    bundle: Bundle, data: Path, tmp_path: Path, deaths: int
) -> None:
    places = list_frames(data, {p.name: p for p in sorted((data / "images").iterdir())})[
        : 3 * SHARD
    ]
    shards = divide(places, SHARD)
    folder = RunFolder(tmp_path / "run", identify(["x"], places))
    (tmp_path / "run" / "shards").mkdir(parents=True)
    (tmp_path / "marks").mkdir()
    scorer = DyingScorer(
        Runner(bundle.root), folder, 0, "token", None, str(data), marks=str(tmp_path / "marks"),
        at=1, deaths=deaths,
    )  # fmt: skip
    outcomes = sorted(
        open_backend("processes", 2, None).run(scorer, shards), key=lambda o: o.number
    )
    assert [outcome.number for outcome in outcomes] == [0, 1, 2]
    if deaths == 1:
        assert [outcome.error for outcome in outcomes] == [None] * 3
        assert folder.merged(shards).counts("matrix").sum() > 0
        assert not list((tmp_path / "run" / "shards").glob("*.begun"))
    else:
        assert isinstance(outcomes[1].error, RunError)
        assert "shard 1 ended 3 workers" in str(outcomes[1].error)


def test_without_ray_the_pip_line_is_told(
    bundle: Bundle, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgevision\[ray\]'"):
        score_data(bundle.root, data, tmp_path / "run", replace(OPTIONS, ray="local"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 0}, "workers: got 0"),
        ({"max_bad": -1}, "max_bad: got -1"),
        ({"use_labels": False}, "give --against BUNDLE"),
    ],
)
def test_misuse_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(OPTIONS, **change)


def test_a_runner_pickles_and_answers_batches(bundle: Bundle, data: Path) -> None:
    runner = Runner(str(bundle.root))
    frame = read_image(data / "images" / "000000.png")
    first = runner({"frame": [frame, frame], "key": ["a", "b"]})
    again = pickle.loads(pickle.dumps(runner))
    found = again({"frame": np.stack([frame, frame]), "key": np.array(["a", "b"])})
    runner.close()
    again.close()
    assert found["key"].tolist() == ["a", "b"]
    assert found["answer"].tolist() == first["answer"].tolist()
    assert set(json.loads(found["answer"][0])) == set(json.loads(first["answer"][1]))
    assert (found["total_ms"] > 0).all()


def packed(folder: Path, pictures: list[Path]) -> Iterator[Path]:
    """Give the pictures as a list, as two tar files, and as Parquet of paths and of bytes."""
    listed = folder / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in pictures))
    yield listed
    (folder / "tars").mkdir()
    for name, part in (("a", pictures[:7]), ("b", pictures[7:])):
        with tarfile.open(folder / "tars" / f"{name}.tar", "w") as archive:
            for path in part:
                archive.add(path, path.name)
    yield folder / "tars"
    if importlib.util.find_spec("pyarrow") is None:
        return
    arrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    parquet.write_table(arrow.table({"path": list(map(str, pictures))}), folder / "paths.parquet")
    yield folder / "paths.parquet"
    images = [path.read_bytes() for path in pictures]
    parquet.write_table(arrow.table({"image": images}), folder / "i.parquet", row_group_size=11)
    yield folder / "i.parquet"


def test_a_list_a_tar_and_parquet_hold_the_same_frames(
    bundle: Bundle, other: Bundle, data: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    pictures = sorted((data / "images").iterdir())
    options = replace(OPTIONS, against=other.root, use_labels=False)
    for source in packed(tmp_path, pictures):
        report = score_data(bundle.root, source, None, options).report
        assert (report.frames, report.apart) == (FRAMES, whole["apart"])
        assert report.scores[0].figures()["mIoU"] is None
    near = data / "list.txt"
    near.write_text("".join(f"images/{path.name}\n" for path in pictures))
    labelled = score_data(bundle.root, near, None, replace(options, labels=data, use_labels=True))
    assert digits(labelled)["scores"] == whole["scores"]


def test_data_that_cannot_be_read_are_named(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, labels=data)
    (tmp_path / "a.txt").write_text("\n")
    (tmp_path / "b.txt").write_text("x.png\nx.png\n")
    (tmp_path / "c.tar").write_bytes(b"no tar")
    (tmp_path / "d.mp4").write_bytes(b"")
    for name, message in (
        ("a.txt", "holds no frame"),
        ("b.txt", "1 names stand for several frames: 'x.png'"),
        ("c.tar", "cannot be read as an uncompressed tar"),
        ("d.mp4", "expected a folder of pictures, or .parquet, .tar, .txt"),
    ):
        with pytest.raises(FileReadError, match=message):
            score_data(bundle.root, tmp_path / name, None, options)
    with pytest.raises(ValueError, match="has no labels beside it: give --labels"):
        score_data(bundle.root, tmp_path / "a.txt", None, OPTIONS)


def test_bundles_of_two_tasks_are_not_compared(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    depth = shutil.copytree(bundle.root, tmp_path / "depth.ev")
    write_manifest(depth, read_manifest(depth) | {"task": "depth"})
    with pytest.raises(RunError, match="give two bundles of one task"):
        score_data(bundle.root, data, None, replace(OPTIONS, against=depth))


def test_two_releases_of_one_name_are_told_apart(
    bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    twin = semantic_bundle(tmp_path / "tiny.ev")
    report = score_data(bundle.root, data, None, replace(OPTIONS, against=twin.root)).report
    assert [score.form for score in report.scores] == ["candidate", "reference"]
    assert (report.apart, report.frames_apart) == (0.0, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bundle_exchanged_during_a_run_is_refused(
    bundle: Bundle, other: Bundle, data: Path, tmp_path: Path, workers: int
) -> None:
    copy = shutil.copytree(bundle.root, tmp_path / "tiny.ev")
    options, places = replace(OPTIONS, workers=workers), list_frames(data)
    runner = options.runner(Bundle.open(copy))
    folder = RunFolder(tmp_path / "run", identify(["x"], places))
    shutil.rmtree(copy)
    shutil.copytree(other.root, copy)
    worker = Scorer(runner, folder, 0, "token", None, None)
    with folder.begun({}, resume=False):
        outcome, *_ = options.backend().run(worker, divide(places, FRAMES))
    assert isinstance(outcome.error, BundleIntegrityError)
    assert "is another bundle than when the run began" in str(outcome.error)
    assert not list((tmp_path / "run" / "shards").glob("*.npz"))


def test_two_commands_do_not_share_a_folder(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path / "run", "x").begun({}, resume=False),
        pytest.raises(RunError, match="another command is at work in"),
    ):
        score_data(bundle.root, data, tmp_path / "run", replace(OPTIONS, resume=True))


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without)
    with (
        pytest.warns(UserWarning, match="see that no other command writes there"),
        RunFolder(tmp_path / "run", "x").begun({}, resume=False),
    ):
        assert (tmp_path / "run" / "run.json").exists()


def test_a_command_killed_before_there_was_a_run_may_be_given_again(
    bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    for name in ("run.lock", ".partial-run-0123"):
        (tmp_path / name).touch()
    assert score_data(bundle.root, data, tmp_path, OPTIONS).report.frames == FRAMES


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_folder_that_cannot_be_made_is_named(
    bundle: Bundle, data: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileWriteError, match="cannot be written: "):
        score_data(bundle.root, data, tmp_path / name, OPTIONS)


def test_a_listed_file_that_is_missing_or_oddly_named_is_a_bad_frame(
    bundle: Bundle, other: Bundle, data: Path, tmp_path: Path
) -> None:
    odd = os.fsdecode(b"odd\xff\x1b[2J.png")
    pictures = sorted((data / "images").iterdir())[:2]
    (tmp_path / "frames").mkdir()
    for name, picture in zip(("a.png", odd), pictures, strict=True):
        shutil.copy(picture, tmp_path / "frames" / name)
    options = replace(OPTIONS, against=other.root, use_labels=False, max_bad=1)
    run = score_data(bundle.root, tmp_path / "frames", tmp_path / "run", options)
    assert "odd\\udcff\\x1b[2J.png" in write_review(options, run, tmp_path / "run").read_text(
        "utf-8"
    )
    (tmp_path / "list.txt").write_text("frames/a.png\nmissing.png\n")
    report = score_data(bundle.root, tmp_path / "list.txt", None, options).report
    assert (report.frames, len(report.bad)) == (1, 1)
    assert report.bad[0].startswith("missing.png: ")


def test_every_process_asks_whose_bundle_it_is(
    bundle: Bundle, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = pytest.importorskip("edgevision.bundle.signature")
    pytest.importorskip("cryptography")
    monkeypatch.setenv("EDGEVISION_STATE", str(tmp_path / "state"))
    (_, public), (other_private, other_public) = (
        signature.keygen(tmp_path / name) for name in ("ours", "theirs")
    )
    copy = tmp_path / "theirs.ev"
    shutil.copytree(bundle.root, copy)
    signature.sign(copy, other_private, version=3)
    theirs, ours = Trust((other_public,), 3, bundle.manifest.name), Trust((public,))
    run = score_data(copy, data, None, replace(OPTIONS, workers=2, trust=theirs))
    assert run.report.frames == FRAMES
    for bad in (ours, Trust((other_public,), 4), Trust(name="sky")):
        with pytest.raises(SignatureError):
            score_data(copy, data, None, replace(OPTIONS, trust=bad))
        with pytest.raises(SignatureError):
            _ = Runner(copy, trust=bad).model
    with pytest.raises(SignatureError, match="is not signed"):
        score_data(copy, data, None, replace(OPTIONS, against=bundle.root, trust=theirs))
    words = ["score", str(copy), str(data), "--key", str(public)]
    assert main(words) == 1
    assert main(["run", *words[1:], "--workers", "1", "--out", str(tmp_path / "run")]) == 1
    assert main([*words[:-1], str(other_public), "--minimum-version", "3"]) == 0

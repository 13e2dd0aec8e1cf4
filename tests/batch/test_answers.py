"""Answers to very many frames, in Parquet; needs pyarrow, but for what is said without it."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgevision.batch.answerer import _runs
from edgevision.batch.answers import AnswerOptions, answer_data
from edgevision.bundle.directory import Bundle
from edgevision.cli import main
from edgevision.errors import MissingDependencyError
from edgevision.metrics.coco import _from_runs
from edgevision.tasks.frames import read_image
from tests.batch.conftest import FRAMES, SHARD, SIZE


def rows(run: Path) -> list[dict[str, Any]]:
    """Return the rows of all files, in order."""
    parquet = importlib.import_module("pyarrow.parquet")
    files = sorted((run / "answers").iterdir())
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def test_answers_are_those_of_one_pass_however_they_were_shared_out(
    bundle: Bundle, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "list.txt").write_text(
        "".join(f"{path}\n" for path in sorted((data / "images").iterdir()))
    )
    line = ["run", str(bundle.root), str(tmp_path / "list.txt"), "--shard", str(SHARD), "--out"]
    assert main([*line, str(tmp_path / "two"), "--workers", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["frames"], len(said["shards"])) == (FRAMES, -(-FRAMES // SHARD))
    assert main([*line, str(tmp_path / "one"), "--overlays"]) == 0
    assert f"{FRAMES} frames in 8 shards" in capsys.readouterr().out
    (tmp_path / "one" / "shards" / "00000002.npz").unlink()
    (tmp_path / "one" / "answers" / "00000002.parquet").write_bytes(b"half a file")
    assert main([*line, str(tmp_path / "one"), "--overlays", "--resume"]) == 0
    two, one = rows(tmp_path / "two"), rows(tmp_path / "one")
    assert len(one) == FRAMES
    for row, other in zip(two, one, strict=True):
        assert Image.open(io.BytesIO(other.pop("overlay"))).format == "JPEG"
        del row["total_ms"], other["total_ms"]
        assert row == other
    classes = np.asarray(Image.open(io.BytesIO(one[0]["classes"])))
    frame = read_image(Path(one[0]["key"]))
    assert frame.shape[:2] == SIZE
    assert classes.max() < 3
    assert json.loads(one[0]["answer"])["shares"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "2"], "give both where they lie and --out DIR"),
        (["--out", "x", "--resume"], "--resume: only with --workers N"),
        (["--out", "x", "--max-bad", "0"], "--max-bad: only with --workers N"),
        (["--out", "x", "--workers", "2", "--force"], "--force: not for frames that are shared"),
        (["--out", "x", "--workers", "0"], "workers: got 0"),
    ],
)
def test_flags_of_the_other_way_are_refused(
    bundle: Bundle, data: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str],
    message: str,
) -> None:  # fmt: skip
    assert main(["run", str(bundle.root), str(data), *words]) == 2
    assert message in capsys.readouterr().err


def test_without_pyarrow_the_pip_line_is_told(
    bundle: Bundle, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgevision\[parquet\]'"):
        answer_data(bundle.root, data, tmp_path / "run", AnswerOptions())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("filled", [0.0, 0.3, 1.0])
def test_runs_are_those_that_coco_reads(filled: float) -> None:
    mask = np.random.default_rng(1).random((5, 7)) < filled
    told: Any = _runs(mask)
    assert (_from_runs(told["counts"], (5, 7)) == mask).all()

"""The script that scores classical segmentation, on a made-up folder in CamVid layout."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "training" / "score_baselines.py"
COLOURS = np.array([(80, 120, 200), (90, 90, 90), (0, 0, 0)], np.uint8)
VOID = 2


def write_part(folder: Path, heights: tuple[int, ...]) -> None:
    """Sky above a road, the horizon at each of `heights`, a corner void."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for height in heights:
        labels = np.zeros((64, 64), np.uint8)
        labels[height:] = 1
        labels[-8:, -8:] = VOID
        Image.fromarray(COLOURS[labels]).save(
            folder / "images" / f"{height}.jpg", quality=100, subsampling=0
        )
        Image.fromarray(labels).save(folder / "labels" / f"{height}.png")


def run(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [SCRIPT.name, "--data", str(data), "--classes", "2"])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_clear_pictures_score_high_by_every_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_part(tmp_path / "train", (16, 24, 40))
    write_part(tmp_path / "val", (24, 32))
    run(tmp_path, monkeypatch)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["single pixels", "growing", "split-and-merge", "edges"]
    for row in rows:
        miou, accuracy, outlines = (float(score) for score in row[1:])
        assert 0.9 < miou <= accuracy <= 1, row
        assert outlines > 0.9, row


def test_a_folder_without_photos_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"found no \.jpg"):
        run(tmp_path, monkeypatch)

"""What `run` writes: names of its own, and nothing over a file that edgevision did not make."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevision
from edgevision.bundle.directory import Bundle
from edgevision.cli import main
from edgevision.errors import FileReadError
from edgevision.runtime.files.batch import run_files
from edgevision.tasks.outputs import MARK, refuse_foreign
from tests.runtime.test_frames import write_video

Capture = pytest.CaptureFixture[str]


def save(path: Path, level: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 12), (level, 10, 10)).save(path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(bundle: Bundle, *arguments: object) -> int:
    return main(["run", str(bundle.root), *map(str, arguments)])


def test_a_photo_beside_its_overlay_stays(bundle: Bundle, tmp_path: Path) -> None:
    photo = save(tmp_path / "drive" / "photo.jpg")
    before = photo.read_bytes()
    assert run(bundle, photo, "--out", photo.parent) == 0
    assert photo.read_bytes() == before
    assert names(photo.parent) == ["photo.classes.png", "photo.jpg", "photo.overlay.jpg"]


def test_pictures_of_an_earlier_run_are_replaced(bundle: Bundle, tmp_path: Path) -> None:
    photo = save(tmp_path / "in" / "a.png")
    assert run(bundle, photo.parent, "--out", tmp_path / "out") == 0
    before = (tmp_path / "out" / "a.overlay.jpg").read_bytes()
    save(photo, level=250)
    assert run(bundle, photo.parent, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "a.overlay.jpg").read_bytes() != before


@pytest.mark.parametrize("name", ["a.overlay.jpg", "b.classes.png"])
def test_a_file_of_the_user_s_is_told_before_the_first_write(
    bundle: Bundle, tmp_path: Path, name: str, capsys: Capture
) -> None:
    for frame in ("a.png", "b.png"):
        save(tmp_path / "in" / frame)
    theirs = save(tmp_path / "out" / name)
    before = theirs.read_bytes()
    assert run(bundle, tmp_path / "in", "--out", theirs.parent) == 2
    told = capsys.readouterr().err
    assert f"{name}' is there already and not known to be made by edgevision" in told
    assert "--force" in told
    assert names(theirs.parent) == [name]
    assert theirs.read_bytes() == before
    assert run(bundle, tmp_path / "in", "--out", theirs.parent, "--force") == 0
    assert theirs.read_bytes() != before


def test_a_file_of_the_user_s_among_a_video_s_frames(bundle: Bundle, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 3)
    theirs = save(tmp_path / "out" / "clip-000002.overlay.jpg")
    save(tmp_path / "out" / "clip-2.overlay.jpg")
    with edgevision.load(bundle) as model:
        with pytest.raises(FileReadError, match=r"clip-000002\.overlay\.jpg' is there already"):
            run_files(model, tmp_path / "clip.mp4", tmp_path / "out")
        assert len(names(tmp_path / "out")) == 2
        theirs.unlink()
        run_files(model, tmp_path / "clip.mp4", tmp_path / "out")
    assert len(names(tmp_path / "out")) == 7


@pytest.mark.parametrize(
    ("files", "frames"),
    [
        (["a.png", "a.jpg", "b.png"], ["a.jpg", "a.png", "b"]),
        (["a.png", "A.bmp"], ["A.bmp", "a.png"]),
        (["a.png", "a.jpg", "a.png.jpg"], ["a.jpg", "a.png", "a.png.jpg"]),
    ],
)
def test_each_frame_has_a_name(
    bundle: Bundle, tmp_path: Path, files: list[str], frames: list[str]
) -> None:
    for name in files:
        save(tmp_path / "in" / name)
    with edgevision.load(bundle) as model:
        done = run_files(model, tmp_path / "in", tmp_path / "out")
    assert [frame.name for frame in done.frames] == frames
    made = [f"{name}.{kind}" for name in frames for kind in ("classes.png", "overlay.jpg")]
    assert names(tmp_path / "out") == sorted(made)


def test_a_folder_that_cannot_take_pictures_is_refused(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    photo = save(tmp_path / "in" / "a.png")
    assert run(bundle, photo.parent, "--out", photo.parent) == 2
    assert "is the folder of the frames" in capsys.readouterr().err
    assert run(bundle, photo.parent, "--out", photo) == 2
    assert "is a file, expected a folder" in capsys.readouterr().err
    assert names(photo.parent) == ["a.png"]


def test_class_indices_of_a_marked_picture_are_whole(bundle: Bundle, tmp_path: Path) -> None:
    photo = save(tmp_path / "a.png")
    assert run(bundle, photo, "--out", tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / "a.classes.png") as picture:
        assert picture.mode == "L"
        assert not np.asarray(picture).any()


def test_what_is_replaceable(tmp_path: Path) -> None:
    ours, empty, link = (tmp_path / name for name in ("ours.html", "empty", "link"))
    ours.write_text("x" * 99_999 + MARK)
    empty.touch()
    os.mkfifo(tmp_path / "pipe")
    refuse_foreign([tmp_path / "new", ours, empty, tmp_path / "pipe", Path("/dev/null")])
    link.symlink_to(tmp_path / "nowhere")
    theirs = tmp_path / "theirs"
    theirs.write_text("x" * 99_999 + MARK + "x" * 99_999)
    for path in (link, theirs):
        with pytest.raises(FileReadError, match=f"'{path}' is there already"):
            refuse_foreign([ours, path])
        refuse_foreign([path], force=True)
    with pytest.raises(FileReadError, match="link' and 1 more are there already"):
        refuse_foreign([link, theirs])
    with pytest.raises(FileReadError, match="is a folder"):
        refuse_foreign([tmp_path], force=True)
    with pytest.raises(FileReadError, match="would be written twice"):
        refuse_foreign([ours, ours])

"""Reading images, folders, videos and label maps, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from edgevision.errors import FileReadError
from edgevision.metrics.semantic import evaluate_semantic
from edgevision.tasks.frames import (
    count_frames,
    iterate_frames,
    labelled_images,
    list_images,
    read_image,
    read_labels,
    resize,
)

PIXELS = np.random.default_rng(3).integers(0, 256, (12, 16, 3), np.uint8)


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_image_comes_as_rgb(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", PIXELS)), PIXELS)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    Image.new(mode, (16, 12)).save(path)
    assert read_image(path).shape == (12, 16, 3)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", PIXELS, exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(PIXELS, -1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image that Pillow can read"),
        (b"hello, I am a text file", "not an image that Pillow can read"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "cannot be read as an image|not an image"),
    ],
)
def test_corrupt_images_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(FileReadError, match=rf"bad\.png.*({message})"):
        read_image(path)


def test_truncated_image_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "half.png", np.repeat(PIXELS, 20, axis=0))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FileReadError, match=r"half\.png: cannot be read as an image"):
        read_image(path)


def test_missing_image(tmp_path: Path) -> None:
    with pytest.raises(FileReadError, match="no such file"):
        read_image(tmp_path / "nowhere.png")


def test_decompression_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (16_000, 16_000)).save(path)
    with pytest.raises(FileReadError, match="pixels"):
        read_image(path)


def test_labels_keep_their_indices(tmp_path: Path) -> None:
    labels = PIXELS[..., 0] % 12
    np.testing.assert_array_equal(read_labels(save(tmp_path / "l.png", labels)), labels)
    with pytest.raises(FileReadError, match="mode RGB, expected one byte a pixel"):
        read_labels(save(tmp_path / "rgb.png", PIXELS))


def test_folder_is_sorted_and_ignores_other_files(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "c.png"):
        save(tmp_path / name, PIXELS)
    (tmp_path / "notes.txt").write_text("x")
    assert [frame.name for frame in iterate_frames(tmp_path)] == ["a", "b", "c"]
    assert count_frames(tmp_path) == 3


@pytest.mark.parametrize("make", [False, True])
def test_empty_or_missing_folder(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "frames"
    if make:
        folder.mkdir()
    with pytest.raises(FileReadError, match=r"frames: (no image|No such file)"):
        list_images(folder)


def test_resize_keeps_what_fits() -> None:
    assert resize(PIXELS, (12, 16)) is PIXELS
    assert resize(PIXELS, (24, 8)).shape == (24, 8, 3)


def write_video(path: Path, frames: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(frames):
            pixels = np.full((48, 64, 3), i * 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def test_video_gives_every_frame_in_order(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, 7)
    frames = list(iterate_frames(path))
    assert [frame.name for frame in frames] == [f"clip-{i:06d}" for i in range(7)]
    assert frames[0].pixels.shape == (48, 64, 3)
    brightness = [frame.pixels.mean() for frame in frames]
    assert brightness == sorted(brightness)
    assert count_frames(path) == 7


def test_damaged_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"not a video at all" * 10)
    with pytest.raises(FileReadError, match="cannot be read as a video"):
        list(iterate_frames(path))


def make_labelled(folder: Path, count: int) -> None:
    for i in range(count):
        save(folder / "images" / f"{i}.png", np.full((4, 4, 3), i * 40, np.uint8))
        label = np.full((8, 8), i % 2, np.uint8)
        label[0] = 11
        save(folder / "labels" / f"{i}.png", label)


def test_evaluation_scores_each_form(tmp_path: Path) -> None:
    make_labelled(tmp_path, 4)
    answers = {
        "right": lambda frame: np.full((4, 4), frame[0, 0, 0] // 40 % 2, np.uint8),
        "zero": lambda frame: np.zeros((4, 4), np.uint8),
    }
    right, zero = evaluate_semantic(answers, tmp_path, class_count=2, frame_size=(4, 4))
    assert (right.miou, right.pixel_accuracy, right.agreement) == (1.0, 1.0, 1.0)
    assert (zero.miou, zero.pixel_accuracy, zero.agreement) == (0.25, 0.5, 0.5)


def test_evaluation_without_labels_gives_agreement_alone(tmp_path: Path) -> None:
    save(tmp_path / "a.png", PIXELS)
    (score,) = evaluate_semantic(
        {"only": lambda frame: np.zeros((4, 4), np.uint8)},
        tmp_path,
        class_count=2,
        frame_size=(4, 4),
    )
    assert (score.miou, score.iou, score.agreement) == (None, (), 1.0)


def test_an_image_without_its_label_is_named(tmp_path: Path) -> None:
    make_labelled(tmp_path, 3)
    (tmp_path / "labels" / "1.png").unlink()
    with pytest.raises(FileReadError, match=r"1 of 3 images have no label, the first '1\.png'"):
        labelled_images(tmp_path)

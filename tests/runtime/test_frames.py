"""Reading images, folders, videos and label maps, and what is said of bad ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from edgevision.errors import FileReadError
from edgevision.runtime.evaluate import evaluate_semantic, labelled_images
from edgevision.runtime.frames import (
    VIDEO_SUFFIXES,
    count_frames,
    iterate_frames,
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


@pytest.mark.parametrize(("read", "name"), [(read_image, "a.png"), (count_frames, "a.mp4")])
def test_pipes_are_refused(read: Callable[[Path], object], name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(FileReadError, match="it is not a regular file"):
        read(tmp_path / name)


def test_a_file_is_opened_as_what_its_name_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/MARK\nexit 1\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(FileReadError, match="not an image that Pillow can read"):
        read_image(tmp_path / "a.png")
    assert not (tmp_path / "MARK").exists()
    write_video(tmp_path / "sibling.mkv", 1)
    (tmp_path / "drive.mp4").write_text("ffconcat version 1.0\nfile 'sibling.mkv'\n")
    with pytest.raises(FileReadError, match="a video of the kind that its name says"):
        list(iterate_frames(tmp_path / "drive.mp4"))


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_every_kind_of_video_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    codec = {".mjpeg": "mjpeg", ".webm": "libvpx"}.get(suffix, "mpeg4")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for packet in [*stream.encode(av.VideoFrame(64, 48, stream.pix_fmt)), *stream.encode()]:
            container.mux(packet)
    assert [frame.pixels.shape for frame in iterate_frames(path)] == [(48, 64, 3)]


def test_a_video_of_too_many_pixels_is_refused_unread(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "big.avi"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 9000, 9000, "gray"
        frame = av.VideoFrame(64, 48, "gray")
        with contextlib.suppress(av.FFmpegError, ValueError):
            container.mux(stream.encode(frame))
        container.start_encoding()
    with pytest.raises(FileReadError, match="9000x9000 pixels, at most 64000000 are read"):
        list(iterate_frames(tmp_path / "big.avi"))


def test_an_unknown_codec_is_named(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        for packet in [*stream.encode(av.VideoFrame(32, 32, "yuvj420p")), *stream.encode()]:
            container.mux(packet)
    content = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(content.replace(b"MJPG", b"XXXX"))
    with pytest.raises(FileReadError, match=r"a\.avi: "):
        list(iterate_frames(tmp_path / "a.avi"))


def test_damaged_exif_is_named(tmp_path: Path) -> None:
    entries = b"\x01\x12\0\3\0\0\0\1\0\6\0\0" + b"\x01\x1a\0\2\0\0\0\1\0\0\0\x26"
    block = b"MM\0*\0\0\0\x08\0\2" + entries + bytes(12)  # the resolution is text
    path = save(tmp_path / "a.png", PIXELS, exif=b"Exif\0\0" + block)
    with pytest.raises(FileReadError, match=r"a\.png: its EXIF data cannot be read"):
        read_image(path)


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

"""Reading images, folders, videos and label maps, and what is said of bad ones."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from edgevision.errors import FileReadError
from edgevision.metrics.metric import score_folder
from edgevision.metrics.semantic import SemanticMetric
from edgevision.tasks.frames import (
    VIDEO_SUFFIXES,
    count_frames,
    iterate_frames,
    list_images,
    read_image,
    read_labels,
    resize,
)
from edgevision.tasks.labelled import labelled_images, pictures_in

PIXELS = np.random.default_rng(3).integers(0, 256, (12, 16, 3), np.uint8)


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_image_comes_as_rgb(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", PIXELS)), PIXELS)


@pytest.mark.parametrize(
    ("mode", "color", "rgb"),
    [
        ("L", 77, (77, 77, 77)),
        ("RGBA", (9, 8, 7, 255), (9, 8, 7)),
        ("LA", (77, 255), (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("CMYK", (255, 0, 0, 51), (0, 204, 204)),
        ("I;16", 257 * 90, (90, 90, 90)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, color: object, rgb: object) -> None:
    path = tmp_path / "a.tif"
    Image.new(mode, (16, 12), color).save(path)
    read = read_image(path)
    assert read.shape == (12, 16, 3)
    assert tuple(read[5, 5].tolist()) == rgb


def test_a_palette_is_followed(tmp_path: Path) -> None:
    colors = Image.fromarray(PIXELS // 128 * 255).quantize(8)
    colors.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), np.asarray(colors.convert("RGB")))


RAMP = np.arange(65536, dtype=np.uint32).reshape(256, 256)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "big.tif", "a.pgm", "white-is-0.tif"])
def test_16_bits_of_grey_become_8(tmp_path: Path, name: str) -> None:
    wide = RAMP.astype(np.uint16)
    if name == "a.pgm":
        (tmp_path / name).write_bytes(b"P5 256 256 65535\n" + wide.astype(">u2").tobytes())
    elif name == "big.tif":
        picture = Image.frombytes("I;16B", (256, 256), wide.astype(">u2").tobytes())
        picture.save(tmp_path / name)
    elif name == "white-is-0.tif":
        Image.fromarray(65535 - wide).save(tmp_path / name, tiffinfo={262: 0})
    else:
        save(tmp_path / name, wide)
    read = read_image(tmp_path / name)
    np.testing.assert_array_equal(read[..., 0], np.rint(RAMP / 257))
    np.testing.assert_array_equal(read[..., 1], read[..., 2])


def test_16_bits_of_grey_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = (PIXELS[..., 0].astype(np.uint16)) * 257
    read = read_image(save(tmp_path / "a.png", wide, exif=exif))
    np.testing.assert_array_equal(read[..., 0], np.rot90(PIXELS[..., 0], -1))


def test_16_bits_that_hold_fewer_are_warned_of(tmp_path: Path) -> None:
    path = save(tmp_path / "thermal.png", (RAMP % 4096).astype(np.uint16))
    with pytest.warns(UserWarning, match="of 10, 12 or 14 bits, scale them to 16 first"):
        assert read_image(path).max() == 16
    colors = np.arange(4 * 6 * 3).reshape(4, 6, 3) * 50
    with pytest.warns(UserWarning, match="of 10, 12 or 14 bits"):
        assert read_image(small_png(tmp_path / "c.png", colors, 16, 2)).max() == 13


@pytest.mark.parametrize(
    ("name", "values"), [("f.tif", np.linspace(0, 1, 12)), ("i.tif", np.arange(12) - 6)]
)
def test_values_without_a_known_white_are_refused(
    tmp_path: Path, name: str, values: np.ndarray
) -> None:
    dtype = np.float32 if name == "f.tif" else np.int32
    path = save(tmp_path / name, values.reshape(3, 4).astype(dtype))
    with pytest.raises(FileReadError, match=r"which of them is white is not said. Scale it"):
        read_image(path)


def test_pixels_that_are_seen_through_are_refused(tmp_path: Path) -> None:
    clear = np.full((12, 16, 4), 255, np.uint8)
    clear[3, 4, 3] = 254
    palette = Image.fromarray(PIXELS).quantize(8)
    palette.save(tmp_path / "palette.png", transparency=0)
    for path in (save(tmp_path / "clear.png", clear), tmp_path / "palette.png"):
        with pytest.raises(FileReadError, match=r"are transparent.*Flatten it"):
            read_image(path)
    picture = Image.fromarray(clear)
    advised = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    advised.save(tmp_path / "flat.png")
    assert read_image(tmp_path / "flat.png").min() == 255


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.png"])
def test_a_file_of_several_pictures_is_refused(tmp_path: Path, name: str) -> None:
    first, second = (Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    with pytest.raises(FileReadError, match=r"holds 2 pictures .* Save each as a file of its own"):
        read_image(tmp_path / name)


def test_a_photo_with_its_preview_is_the_photo(tmp_path: Path) -> None:
    preview = Image.new("RGB", (4, 3))
    Image.new("RGB", (16, 12), "white").save(
        tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview]
    )
    assert read_image(tmp_path / "a.jpg").shape == (12, 16, 3)
    assert read_image(tmp_path / "a.jpg").min() > 250


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
    Image.fromarray(labels).save(tmp_path / "jpeg.png", format="JPEG")
    with pytest.raises(FileReadError, match="is a JPEG file, expected a PNG"):
        read_labels(tmp_path / "jpeg.png")
    wide = labels.astype(np.uint16)
    np.testing.assert_array_equal(read_labels(save(tmp_path / "16.png", wide)), labels)
    with pytest.raises(FileReadError, match=r"mode I;?1?6?, expected one byte a pixel"):
        read_labels(save(tmp_path / "instances.png", wide + 1000))


def small_png(path: Path, values: np.ndarray, bits: int, kind: int = 0) -> Path:
    """Write a PNG of a kind, grey by default, of any bits a pixel and channel."""

    def chunk(title: bytes, data: bytes) -> bytes:
        told = title + data
        return struct.pack(">I", len(data)) + told + struct.pack(">I", zlib.crc32(told))

    height, width = values.shape[:2]
    spread = (values[..., np.newaxis] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(spread.reshape(height, -1).astype(np.uint8), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_labels_of_few_bits_keep_their_indices(tmp_path: Path, bits: int) -> None:
    labels = PIXELS[..., 0] % 2**bits
    np.testing.assert_array_equal(read_labels(small_png(tmp_path / "l.png", labels, bits)), labels)
    palette = Image.fromarray(labels)
    palette.putpalette(range(3 * 2**bits))
    palette.save(tmp_path / "p.png", bits=bits)
    np.testing.assert_array_equal(read_labels(tmp_path / "p.png"), labels)


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


QUARTERS = [[40, 90], [150, 220]]
"""Grey of a frame's quarters as they are coded."""


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), QUARTERS),
        ((0, 1, -1, 0), [[150, 40], [220, 90]]),  # a quarter clockwise
        ((-1, 0, 0, -1), [[220, 150], [90, 40]]),
        ((0, -1, 1, 0), [[90, 220], [40, 150]]),
        ((-1, 0, 0, 1), [[90, 40], [220, 150]]),  # mirrored
        ((1, 0, 0, -1), [[150, 220], [40, 90]]),
        ((0, 1, 1, 0), [[40, 150], [90, 220]]),
    ],
)
def test_video_frames_are_as_a_player_shows_them(
    tmp_path: Path, matrix: tuple[float, ...], shown: list[list[int]]
) -> None:
    path = turned_video(tmp_path / "clip.mp4", matrix)
    frames = [frame.pixels for frame in iterate_frames(path)]
    assert len(frames) == 3
    for pixels in frames:
        assert pixels.flags.c_contiguous
        height, width = pixels.shape[:2]
        assert (height, width) == ((48, 64) if matrix[0] else (64, 48))
        rows, columns = (height // 4, -height // 4), (width // 4, -width // 4)
        found = [[int(pixels[y, x, 0]) for x in columns] for y in rows]
        assert np.abs(np.array(found) - shown).max() < 12


def test_a_video_turned_by_another_angle_is_refused(tmp_path: Path) -> None:
    path = turned_video(tmp_path / "clip.mp4", (0.7, 0.7, -0.7, 0.7))
    with pytest.raises(
        FileReadError, match=r"not a multiple of 90 degrees\. Turn it for good first"
    ):
        list(iterate_frames(path))


def turned_video(path: Path, matrix: tuple[float, ...]) -> Path:
    """Write a video whose container asks players to apply `matrix` (a, b, c, d)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pixels = np.kron(np.array(QUARTERS, np.uint8), np.ones((24, 32), np.uint8))
        grey = np.repeat(pixels[..., np.newaxis], 3, axis=2)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    a, b, c, d = (int(value * 65536) for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("alpha", [255, 100])
def test_a_video_that_is_seen_through_is_refused(tmp_path: Path, alpha: int) -> None:
    path = tmp_path / "clip.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("qtrle", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "argb"
        pixels = np.full((48, 64, 4), alpha, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="argb")))
        container.mux(stream.encode())
    if alpha == 255:
        assert [frame.pixels.min() for frame in iterate_frames(path)] == [255]
        return
    with pytest.raises(FileReadError, match=r"transparent, .* without an alpha channel"):
        list(iterate_frames(path))


def test_a_video_whose_pixels_are_not_square_says_so(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.sample_aspect_ratio = Fraction(16, 11)
        grey = np.full((48, 64, 3), 90, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    with pytest.warns(UserWarning, match="pixels of 16:11 are taken as they are coded"):
        assert len(list(iterate_frames(path))) == 1


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


def make_labelled(folder: Path, count: int, *, of: tuple[int, int] = (0, 1)) -> None:
    """Write pictures with labels of `of`, their first row void."""
    for i in range(count):
        save(folder / "images" / f"{i}.png", np.full((4, 4, 3), i * 40, np.uint8))
        label = np.full((8, 8), of[i % 2], np.uint8)
        label[0] = 11
        save(folder / "labels" / f"{i}.png", label)


def says(mask: np.ndarray) -> SimpleNamespace:
    """Return what a net's result has for its metric."""
    return SimpleNamespace(mask=mask)


def background(frame: np.ndarray) -> SimpleNamespace:
    """Be a net that finds nothing."""
    return says(np.zeros((4, 4), np.uint8))


def test_evaluation_scores_each_form(tmp_path: Path) -> None:
    make_labelled(tmp_path, 4)
    answers = {
        "right": lambda frame: says(np.full((4, 4), frame[0, 0, 0] // 40 % 2, np.uint8)),
        "zero": background,
    }
    right, zero = score_folder(SemanticMetric(2), answers, tmp_path, (4, 4))
    assert (right.miou, right.pixel_accuracy, right.agreement) == (1.0, 1.0, 1.0)
    assert (zero.miou, zero.pixel_accuracy, zero.agreement) == (0.25, 0.5, 0.5)


def test_evaluation_without_labels_gives_agreement_alone(tmp_path: Path) -> None:
    save(tmp_path / "a.png", PIXELS)
    (score,) = score_folder(SemanticMetric(2), {"only": background}, tmp_path, (4, 4))
    assert (score.miou, score.iou, score.agreement) == (None, (), 1.0)


def test_an_image_without_its_label_is_named(tmp_path: Path) -> None:
    make_labelled(tmp_path, 3)
    (tmp_path / "labels" / "1.png").unlink()
    with pytest.warns(UserWarning, match=r"1 of 3 images have no label, the first '1\.png'; they"):
        assert [image.stem for image, _ in labelled_images(tmp_path)] == ["0", "2"]
    shutil.rmtree(tmp_path / "labels")
    with pytest.raises(FileReadError, match="3 of 3 images have no label"):
        labelled_images(tmp_path)


def test_what_cannot_be_read_is_counted_and_the_rest_is_scored(tmp_path: Path) -> None:
    make_labelled(tmp_path, 4)
    (tmp_path / "images" / "1.png").write_bytes(b"no picture")
    (tmp_path / "labels" / "2.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"left out 2 of 4, the first: .*1\.png: not an image"):
        (score,) = score_folder(SemanticMetric(2), {"net": background}, tmp_path, (4, 4))
    assert score.pixel_accuracy == 0.5


LAYOUTS = {
    "cityscapes": ("leftImg8bit/val/aachen/a_leftImg8bit.png",
                   "gtFine/val/aachen/a_gtFine_labelTrainIds.png"),
    "cityscapes ids": ("leftImg8bit/a_leftImg8bit.png", "gtFine/a_gtFine_labelIds.png"),
    "voc": ("JPEGImages/a.jpg", "SegmentationClass/a.png"),
    "ade20k": ("images/validation/a.jpg", "annotations/validation/a.png"),
    "mmsegmentation": ("img_dir/val/deep/a.png", "ann_dir/val/deep/a.png"),
    "camvid": ("701_StillsRaw_full/a.png", "LabeledApproved_full/a_L.png"),
    "nested": ("images/x/y/a.png", "labels/x/y/a.png"),
    "masks": ("images/a.png", "masks/a_mask.png"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_data_set_is_found_as_it_is_laid_out(name: str, tmp_path: Path) -> None:
    image, label = (tmp_path / place for place in LAYOUTS[name])
    save(image, PIXELS)
    save(label, PIXELS[..., 0])
    if "val" in image.parts:  # what nets were taught on is not what they are scored on
        save(Path(str(image).replace("/val", "/train")), PIXELS)
        save(Path(str(label).replace("/val", "/train")), PIXELS[..., 0])
    assert labelled_images(tmp_path) == [(image, label)]
    assert pictures_in(tmp_path) == [image]


def test_camvid_s_other_layout_has_its_labels_beside_the_pictures(tmp_path: Path) -> None:
    image, label = save(tmp_path / "val" / "a.png", PIXELS), tmp_path / "valannot" / "a.png"
    save(label, PIXELS[..., 0])
    assert labelled_images(tmp_path / "val") == [(image, label)]


def test_labels_in_colours_and_other_numbers_are_read_as_classes(tmp_path: Path) -> None:
    truth = np.zeros((4, 4), np.uint8)
    truth[:2] = 1
    save(tmp_path / "images" / "a.png", PIXELS[:4, :4])
    save(tmp_path / "labels" / "a.png", np.array([[128, 0, 0], [0, 64, 9]], np.uint8)[truth])
    found = {"net": lambda _: says(truth)}
    colors = {(128, 0, 0): 0, (0, 64, 9): 1}
    (score,) = score_folder(SemanticMetric(2, colors), found, tmp_path, (4, 4))
    assert score.miou == 1.0
    save(tmp_path / "labels" / "a.png", np.array([7, 11], np.uint8)[truth])
    (tmp_path / "labels.json").write_text('{"classes": {"7": 0, "11": 1}}')
    (score,) = score_folder(SemanticMetric(2), found, tmp_path, (4, 4))
    assert score.miou == 1.0
    (tmp_path / "labels.json").write_text('{"classes": {"7": 2}}')
    with pytest.raises(FileReadError, match=r"labels\.json: .*classes 0 to 1; expected the class"):
        score_folder(SemanticMetric(2), found, tmp_path, (4, 4))
    (tmp_path / "labels.json").unlink()
    os.mkfifo(tmp_path / "labels.json")
    with pytest.raises(FileReadError, match="it is not a regular file"):
        score_folder(SemanticMetric(2), found, tmp_path, (4, 4))


LABELS = {
    "numbers": (np.array([7, 255], np.uint8), {"7": 0, "255": 1}),
    "colours": (np.array([[9, 9, 9], [128, 0, 0]], np.uint8), {"#090909": 0, "#800000": 1}),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_labels_are_read_as_the_net_is_told(name: str, suffix: str, tmp_path: Path) -> None:
    held, table = LABELS[name]
    truth = np.zeros((4, 4), np.uint8)
    truth[:2] = 1
    save(tmp_path / "images" / "a.png", PIXELS[:4, :4])
    save(tmp_path / "labels" / f"a.{suffix}", held[truth])
    metric = SemanticMetric(2, {(1, 2, 3): 0}, table)
    (score,) = score_folder(metric, {"net": lambda _: says(truth)}, tmp_path, (4, 4))
    assert score.pixel_accuracy == 1.0


def test_a_number_is_void_where_the_net_is_told_so(tmp_path: Path) -> None:
    truth = np.array([[0, 1], [2, 2]], np.uint8)
    save(tmp_path / "images" / "a.png", PIXELS[:2, :2])
    save(tmp_path / "labels" / "a.png", truth)
    found = {"net": lambda _: says(np.minimum(truth, 1))}
    (score,) = score_folder(SemanticMetric(3), found, tmp_path, (2, 2))
    assert score.pixel_accuracy == 0.5
    with pytest.warns(UserWarning, match="of 3 classes 2 never occur"):
        (score,) = score_folder(SemanticMetric(3, ignore_index=2), found, tmp_path, (2, 2))
    assert score.pixel_accuracy == 1.0


def test_colours_that_are_no_class_s_are_named(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", PIXELS[:4, :4])
    save(tmp_path / "labels" / "a.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(
        FileReadError, match=r"a\.png has #000000 \(100.00%\)\. Build with --label-map"
    ):
        score_folder(SemanticMetric(2, {(1, 2, 3): 0}), {}, tmp_path, (4, 4))


def test_labels_that_hide_the_object_are_refused_before_a_net_runs(tmp_path: Path) -> None:
    make_labelled(tmp_path, 4, of=(0, 255))

    def never(frame: np.ndarray) -> np.ndarray:
        raise AssertionError("a net ran")

    with pytest.raises(FileReadError, match=r"labels: .* only 0 occurs, .* 255 \(43\.75%\)"):
        score_folder(SemanticMetric(2), {"net": never}, tmp_path, (4, 4))


def test_labels_without_an_object_are_warned_of(tmp_path: Path) -> None:
    make_labelled(tmp_path, 4, of=(0, 0))
    for i in range(4):
        save(tmp_path / "labels" / f"{i}.png", np.zeros((8, 8), np.uint8))
    with pytest.warns(UserWarning, match=r"labels may .* of 3 classes 1, 2 never occur"):
        (score,) = score_folder(SemanticMetric(3), {"net": background}, tmp_path, (4, 4))
    assert score.miou == 1.0


def test_a_label_that_is_turned_beside_its_picture_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    labels = (PIXELS[..., 0] > 99).astype(np.uint8)
    save(tmp_path / "images" / "a.png", PIXELS, exif=exif)
    save(tmp_path / "labels" / "a.png", labels)
    forms = {"net": background}
    with pytest.raises(
        FileReadError, match=r"a\.png: \[12, 16\] pixels, and its picture \[16, 12\]"
    ):
        score_folder(SemanticMetric(2), forms, tmp_path, (4, 4))
    save(tmp_path / "labels" / "a.png", np.rot90(labels, -1))
    score_folder(SemanticMetric(2), forms, tmp_path, (4, 4))


def test_pictures_that_share_a_label_are_named(tmp_path: Path) -> None:
    make_labelled(tmp_path, 2)
    save(tmp_path / "images" / "1.jpg", PIXELS)
    with pytest.raises(FileReadError, match="1 names stand for several pictures, the first '1'"):
        labelled_images(tmp_path)

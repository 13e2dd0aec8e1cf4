"""What cameras record: dumps, pictures of 16 bits, photos in the bundle's own format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevision.errors import FileReadError
from edgevision.tasks.camera import CameraFrame
from edgevision.tasks.camera_files import camera_records, count_records, read_camera_frame
from edgevision.tasks.frames import frames_named
from edgevision.tasks.pixel_formats import PixelLayout
from edgevision.tasks.pixel_photos import frame_from_photo
from edgevision.tasks.places import Place

SIZE = (6, 8)
NV12 = CameraFrame("frame", PixelLayout.check("nv12", SIZE))
GRAY12 = CameraFrame("frame", PixelLayout.check("gray16", SIZE, row_bytes=20, bits=12))


def test_a_dump_is_frames_one_behind_the_other(tmp_path: Path) -> None:
    photos = [np.full((*SIZE, 3), level, np.uint8) for level in (10, 200)]
    path = tmp_path / "drive.nv12"
    path.write_bytes(b"".join(frame_from_photo(p, NV12.layout).tobytes() for p in photos))
    found = list(camera_records(path, NV12))
    assert count_records(path, NV12) == 2
    assert [record.name for record in found] == ["drive-000000", "drive-000001"]
    assert all(frames_named(path)(record.name) for record in found)
    for record, photo in zip(found, photos, strict=True):
        assert record.fed.shape == NV12.layout.shape
        assert np.abs(record.photo.astype(int) - photo).max() <= 1
    path.write_bytes(path.read_bytes() + b"abc")
    with pytest.raises(FileReadError, match=r"ends 3 bytes into frame 2; .* 72 bytes, 6 rows"):
        list(camera_records(path, NV12))
    with pytest.raises(FileReadError, match="expected raw frames"):
        list(camera_records(tmp_path / "none.yuv", NV12))


def test_a_picture_of_sixteen_bits_is_what_the_camera_gave(tmp_path: Path) -> None:
    numbers = np.arange(48, dtype=np.uint16).reshape(SIZE) * 85
    Image.fromarray(numbers).save(tmp_path / "a.png")
    fed = read_camera_frame(Place("a", str(tmp_path / "a.png")), GRAY12)
    np.testing.assert_array_equal(fed[:, :16].copy().view("<u2"), numbers)
    assert not fed[:, 16:].any()
    for wrong in (numbers + 4000, numbers[:5]):
        Image.fromarray(wrong.astype(np.uint16)).save(tmp_path / "b.png")
        with pytest.raises(FileReadError, match="and the model takes gray16 6x8"):
            read_camera_frame(Place("b", str(tmp_path / "b.png")), GRAY12)


@pytest.mark.parametrize("camera", [NV12, GRAY12])
def test_photos_become_what_the_camera_would_have_given(
    camera: CameraFrame, tmp_path: Path
) -> None:
    Image.fromarray(np.full((12, 16, 3), 128, np.uint8)).save(tmp_path / "a.png")
    (record,) = camera_records(tmp_path, camera)
    assert record.fed.shape == camera.layout.shape
    assert record.photo.shape == (12, 16, 3)
    assert count_records(tmp_path, camera) is None

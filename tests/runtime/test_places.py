"""Where frames lie, as strangers' lists, tar files and Parquet say it; the last need pyarrow."""

from __future__ import annotations

import importlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgevision.errors import FileReadError
from edgevision.tasks.places import Place, list_frames, read_frame

PIXELS = io.BytesIO()
Image.new("RGB", (4, 3), "red").save(PIXELS, "PNG")


def write_tar(path: Path, *members: tarfile.TarInfo) -> Path:
    """Write a tar file; what has a size is a picture."""
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(PIXELS.getvalue()) if member.size else None)
    return path


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    """Return a member with a picture in it, unless it is told otherwise."""
    info = tarfile.TarInfo(name)
    for field, value in ({"size": len(PIXELS.getvalue())} | fields).items():
        setattr(info, field, value)
    return info


def test_a_list_is_read_as_people_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd = "caf\u00e9 \u2028\x85.png"
    (tmp_path / "list.txt").write_bytes(f"\ufeffa.png\r\n\r\n../b.png\n/c.png\n{odd}\n".encode())
    places = list_frames("list.txt")
    assert [place.name for place in places] == ["a.png", "../b.png", "/c.png", odd]
    files = [place.file for place in places]
    assert files == [str(tmp_path / "a.png"), f"{tmp_path}/../b.png", "/c.png", f"{tmp_path}/{odd}"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00.png\n", b"a\0b.png\n", b"\n \n"])
def test_a_list_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(FileReadError, match=r"list\.txt: "):
        list_frames(tmp_path / "list.txt")


def test_a_tar_gives_its_pictures_of_every_kind_that_is_read(tmp_path: Path) -> None:
    names = ["a.PNG", "deep/b.tiff", "./c.ppm", "d\udcff.jpeg"]
    others = [member("e.json"), member("dir.png", size=0, type=tarfile.DIRTYPE),
              member("null.png", size=0, type=tarfile.CHRTYPE), member("pipe.png", size=0,
              type=tarfile.FIFOTYPE)]  # fmt: skip
    path = write_tar(tmp_path / "x.tar", *others, *map(member, names))
    places = list_frames(path)
    assert [place.name for place in places] == [f"x/{name}" for name in names]
    assert [read_frame(place).shape for place in places] == [(3, 4, 3)] * 4


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (member("../a.png"), "leads out of the archive"),
        (member("/etc/a.png"), "leads out of the archive"),
        (member("b.png", size=0, type=tarfile.SYMTYPE, linkname="a.png"), "hard-dereference"),
        (member("b.png", size=0, type=tarfile.LNKTYPE, linkname="a.png"), "hard-dereference"),
    ],
)
def test_a_member_that_is_no_picture_of_its_own_is_refused(
    tmp_path: Path, bad: tarfile.TarInfo, reason: str
) -> None:
    path = write_tar(tmp_path / "x.tar", member("a.png"), bad)
    with pytest.raises(FileReadError, match=reason):
        list_frames(path)


def below_zero(content: bytearray) -> None:
    """Say of the second member that it has fewer than no bytes, as GNU writes large numbers."""
    start = 1024
    content[start + 124 : start + 136] = b"\xff" * 10 + (-1024 % (1 << 16)).to_bytes(2, "big")
    content[start + 148 : start + 156] = b" " * 8
    content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])


def overwritten(content: bytearray) -> None:
    """Damage the second member's header."""
    content[1024:1100] = b"\x07" * 76


def cut(content: bytearray) -> None:
    """End the file within the second member."""
    del content[1600:]


@pytest.mark.parametrize("damage", [below_zero, overwritten, cut])
def test_a_damaged_tar_is_refused_whole(
    tmp_path: Path, damage: Callable[[bytearray], None]
) -> None:
    path = write_tar(tmp_path / "x.tar", *map(member, ("a.png", "b.png", "c.png")))
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    with pytest.raises(FileReadError, match=r"x\.tar: "):
        list_frames(path)


def test_a_tar_that_claims_a_vast_picture_costs_no_memory(tmp_path: Path) -> None:
    place = Place("a.png", str(tmp_path / "a.tar"), "tar", 0, 1 << 50)
    with pytest.raises(FileReadError, match="expected a picture of at most"):
        read_frame(place)


@pytest.mark.parametrize("name", ["list.txt", "frames.tar", "frames.parquet", "folder/a.tar"])
def test_pipes_for_data_do_not_hang(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    source = path if path.parent == tmp_path else path.parent
    with pytest.raises(FileReadError, match="not a regular file"):
        list_frames(source)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"picture": [b""]}, "has the columns"),
        ({"path": [7]}, "7 is not a file's path"),
        ({"path": ["a.png", None]}, "None is not a file's path"),
        ({"path": [[1]]}, "is not a file's path"),
    ],
)
def test_parquet_of_something_else_is_refused(
    tmp_path: Path, columns: dict[str, Any], reason: str
) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), tmp_path / "x.parquet")
    with pytest.raises(FileReadError, match=reason):
        list_frames(tmp_path / "x.parquet")


def test_rows_without_a_picture_are_bad_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    for number, images in enumerate(([3], [None], [b"no picture"])):
        path = tmp_path / f"{number}.parquet"
        parquet.write_table(arrow.table({"image": images}), path)
        with pytest.raises(FileReadError):
            read_frame(list_frames(path)[0])
    good = tmp_path / "good.parquet"
    parquet.write_table(arrow.table({"image": [{"bytes": PIXELS.getvalue()}]}), good)
    assert read_frame(list_frames(good)[0]).shape == (3, 4, 3)
    monkeypatch.setattr("edgevision.tasks.places._MAX_GROUP_BYTES", 10)
    parquet.write_table(arrow.table({"image": [PIXELS.getvalue()]}), tmp_path / "large.parquet")
    with pytest.raises(FileReadError, match="write it in smaller row groups"):
        read_frame(list_frames(tmp_path / "large.parquet")[0])

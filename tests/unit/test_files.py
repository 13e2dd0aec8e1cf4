"""What is opened as a plain file, and what is refused; what is written is whole or not there."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from edgevision.bundle.files import open_plain, read_plain, staged, write_new, write_whole


def refused(path: Path | str, message: str, **options: bool) -> None:
    with pytest.raises(OSError, match=message) as caught:
        read_plain(path, max_bytes=10, **options)
    assert caught.value.strerror
    assert caught.value.filename == os.fspath(path)


def test_a_plain_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "a"
    for content in (b"", b"0123456789"):
        file.write_bytes(content)
        assert read_plain(file, max_bytes=10) == content
    file.write_bytes(b"0123456789x")
    refused(file, "it is larger than 10 bytes")


@pytest.mark.parametrize("follow", [False, True])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, follow: bool) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for path in (tmp_path / "fifo", tmp_path / "socket", tmp_path, Path("/dev/zero")):
        refused(path, "it is not a regular file", follow_links=follow)
    (tmp_path / "link").symlink_to("fifo")
    refused(
        tmp_path / "link",
        "it is not a regular file" if follow else "it is a link",
        follow_links=follow,
    )


def test_a_link_is_followed_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to("a")
    refused(tmp_path / "link", "it is a link")
    assert read_plain(tmp_path / "link", max_bytes=1, follow_links=True) == b"a"


def test_what_others_can_write_is_not_ours(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a")
    assert read_plain(file, max_bytes=1, is_ours=True) == b"a"
    file.chmod(0o646)
    refused(file, "everybody may write it", is_ours=True)
    assert read_plain(file, max_bytes=1) == b"a"


def test_another_user_s_file_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a")
    os.chown(file, os.geteuid() or 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    refused(file, "it is another user's", is_ours=True)


def test_a_file_is_found_in_an_open_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        tmp_path.rename(tmp_path.with_name("moved"))
        with open_plain("a", max_bytes=1, folder=folder) as file:
            assert file.read() == b"a"
    finally:
        os.close(folder)


def test_a_file_that_is_there_is_never_written_as_new(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("a", "link"):
        with pytest.raises(FileExistsError):
            write_new(tmp_path / name, b"b")
    assert (tmp_path / "a").read_bytes() == b"a"
    assert not (tmp_path / "nowhere").exists()


def test_a_whole_write_replaces_and_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "a").symlink_to("victim")
    write_whole(tmp_path / "a", b"b", mode=0o600)
    assert stat.S_IMODE((tmp_path / "a").lstat().st_mode) == 0o600
    assert (tmp_path / "a").read_bytes() == b"b"
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "victim"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_bytes(b"a")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", b"b")
    with pytest.raises(OSError, match="No space"):
        write_new(tmp_path / "b", b"b")
    with pytest.raises(OSError, match="No space"), staged(tmp_path / "a") as partial:
        partial.write_bytes(b"b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"a"


def test_a_staged_file_is_put_in_place_if_nothing_fails(tmp_path: Path) -> None:
    with staged(tmp_path / "a.txt") as partial:
        partial.write_bytes(b"a")
        assert not (tmp_path / "a.txt").exists()
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "a.txt") as partial:
        partial.write_bytes(b"b")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"a"

"""Hostile bundles, one named case each: refused with one error that says what was found."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevision.bundle.directory import GOLDEN, MANIFEST, Bundle
from edgevision.bundle.manifest import MAX_BYTES, MAX_FILE_BYTES
from edgevision.errors import BundleError, BundleFormatError, BundleIntegrityError
from tests.parts.two_stages import read_manifest, relist, replace_golden, write_manifest

GRAPH = "stages/encoder/model.onnx"
ENGINE = "stages/encoder/host-cpu.onnx"


def flipped_byte(root: Path) -> None:
    data = bytearray((root / ENGINE).read_bytes())
    data[7] ^= 1
    (root / ENGINE).write_bytes(data)


def file_longer_than_listed(root: Path) -> None:
    with (root / ENGINE).open("ab") as file:
        file.truncate(1 << 40)  # Sparse: hashing it would take an hour.


def file_shorter_than_listed(root: Path) -> None:
    os.truncate(root / ENGINE, 3)


def missing_file(root: Path) -> None:
    (root / GRAPH).unlink()


def missing_golden(root: Path) -> None:
    (root / GOLDEN).unlink()


def missing_folder(root: Path) -> None:
    shutil.rmtree(root / "stages")


def extra_file(root: Path) -> None:
    (root / "stages/encoder/libpayload.so").write_bytes(b"\x7fELF")


def extra_hidden_file(root: Path) -> None:
    (root / ".profile").write_bytes(b"")


def extra_name_that_is_no_text(root: Path) -> None:
    (root / os.fsdecode(b"\xff\x1b[2J")).write_bytes(b"")


def extra_empty_folder(root: Path) -> None:
    (root / "stages/main").mkdir()


def folder_instead_of_file(root: Path) -> None:
    (root / GRAPH).unlink()
    (root / GRAPH).mkdir()


def link_to_file(root: Path) -> None:
    outside = root.parent / "outside.onnx"
    shutil.move(root / GRAPH, outside)
    (root / GRAPH).symlink_to(outside)


def link_to_file_within(root: Path) -> None:
    (root / GRAPH).rename(root / "stages/real.onnx")
    (root / GRAPH).symlink_to("../real.onnx")


def link_to_folder(root: Path) -> None:
    outside = root.parent / "outside"
    shutil.move(root / "stages/encoder", outside)
    (root / "stages/encoder").symlink_to(outside)


def link_to_itself(root: Path) -> None:
    (root / GRAPH).unlink()
    (root / GRAPH).symlink_to("model.onnx")


def link_as_manifest(root: Path) -> None:
    shutil.move(root / MANIFEST, root.parent / MANIFEST)
    (root / MANIFEST).symlink_to(root.parent / MANIFEST)


def pipe_instead_of_file(root: Path) -> None:
    (root / GRAPH).unlink()
    os.mkfifo(root / GRAPH)


def pipe_as_manifest(root: Path) -> None:
    (root / MANIFEST).unlink()
    os.mkfifo(root / MANIFEST)


def socket_instead_of_file(root: Path) -> None:
    (root / GRAPH).unlink()
    here = os.getcwd()
    os.chdir((root / GRAPH).parent)  # The path of a socket holds 107 bytes.
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("model.onnx")
    finally:
        os.chdir(here)


def manifest_missing(root: Path) -> None:
    (root / MANIFEST).unlink()


def manifest_empty(root: Path) -> None:
    (root / MANIFEST).write_bytes(b"")


def manifest_truncated(root: Path) -> None:
    data = (root / MANIFEST).read_bytes()
    (root / MANIFEST).write_bytes(data[: len(data) // 2])


def manifest_twice(root: Path) -> None:
    data = (root / MANIFEST).read_bytes()
    (root / MANIFEST).write_bytes(data + data)


def manifest_huge(root: Path) -> None:
    with (root / MANIFEST).open("ab") as file:
        file.write(b" " * MAX_BYTES)


def manifest_endless(root: Path) -> None:
    os.truncate(root / MANIFEST, 1 << 40)


def manifest_not_utf8(root: Path) -> None:
    data = (root / MANIFEST).read_bytes()
    (root / MANIFEST).write_bytes(data.replace(b'"tiny"', b'"t\xff"'))


def manifest_utf16(root: Path) -> None:
    (root / MANIFEST).write_bytes((root / MANIFEST).read_text().encode("utf-16"))


def manifest_nested_deeply(root: Path) -> None:
    (root / MANIFEST).write_text("[" * 500_000 + "]" * 500_000)


def settings_nested_deeply(root: Path) -> None:
    _in_text(root, '"rgb"', "[" * 40 + "]" * 40)


def manifest_is_a_list(root: Path) -> None:
    (root / MANIFEST).write_text("[]")


def _in_text(root: Path, old: str, new: str) -> None:
    text = (root / MANIFEST).read_text()
    assert old in text
    (root / MANIFEST).write_text(text.replace(old, new))


def setting_nan(root: Path) -> None:
    _in_text(root, '"rgb"', "NaN")


def setting_infinite(root: Path) -> None:
    _in_text(root, '"rgb"', "-Infinity")


def setting_overflows_to_infinity(root: Path) -> None:
    _in_text(root, '"rgb"', "1e999")


def setting_of_a_million_digits(root: Path) -> None:
    _in_text(root, '"rgb"', "9" * 1_000_000)


def setting_of_100_digits(root: Path) -> None:
    _in_text(root, '"rgb"', "9" * 100)


def setting_with_terminal_codes(root: Path) -> None:
    _in_text(root, '"rgb"', '"\\u001b[2J"')


def setting_of(text: str) -> Callable[[Path], None]:
    return lambda root: _in_text(root, '"rgb"', json.dumps(text))


def setting_with_half_a_character(root: Path) -> None:
    _in_text(root, '"rgb"', '"\\ud800"')


def tolerance_nan(root: Path) -> None:
    _in_text(root, '"max_abs": 0.5', '"max_abs": NaN')


def tolerance_above_one(root: Path) -> None:
    _in_text(root, '"max_mismatch_share": 0.125', '"max_mismatch_share": 1.5')


def tolerance_overflows(root: Path) -> None:
    _in_text(root, '"max_abs": 0.5', f'"max_abs": {10**18}')
    _in_text(root, f'"max_abs": {10**18}', f'"max_abs": 1{"0" * 400}')


def key_twice(root: Path) -> None:
    _in_text(root, '"task": "semantic"', '"task": "semantic", "task": "tensors"')


def _changed(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def attack(root: Path) -> None:
        fields = read_manifest(root)
        change(fields)
        write_manifest(root, fields)

    return attack


def _file_path(path: object) -> Callable[[Path], None]:
    return _changed(lambda m: m["files"][0].update(path=path))


def _graph_path(path: str) -> Callable[[Path], None]:
    def change(fields: Any) -> None:
        fields["stages"][0]["graph"] = path
        fields["files"].append({"path": path, "size_bytes": 0, "sha256": "0" * 64})

    return _changed(change)


def _spec(**values: object) -> Callable[[Path], None]:
    return _changed(lambda m: m["stages"][0]["inputs"][0].update(values))


def _golden(make: Callable[[dict[str, bytes]], bytes]) -> Callable[[Path], None]:
    def attack(root: Path) -> None:
        with zipfile.ZipFile(root / GOLDEN) as file:
            members = {name: file.read(name) for name in file.namelist()}
        replace_golden(root, make(members))

    return attack


FRAME = "encoder/input/frame.npy"


def _zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return packed.getvalue()


def _npy(array: np.ndarray[Any, Any], *, allow_pickle: bool = False) -> bytes:
    data = io.BytesIO()
    np.save(data, array, allow_pickle=allow_pickle)
    return data.getvalue()


def _frame_is(array: np.ndarray[Any, Any]) -> Callable[[Path], None]:
    return _golden(lambda members: _zipped(members | {FRAME: _npy(array)}))


def _frame_header(old: bytes, new: bytes) -> Callable[[Path], None]:
    def make(members: dict[str, bytes]) -> bytes:
        assert old in members[FRAME]
        return _zipped(members | {FRAME: members[FRAME].replace(old, new)})

    return _golden(make)


class Payload:
    """Unpickling it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("owned-by-a-pickle",)


def _pickled(members: dict[str, bytes]) -> bytes:
    array = np.array([Payload()], dtype=object)
    return _zipped(members | {FRAME: _npy(array, allow_pickle=True)})


def _bomb(members: dict[str, bytes]) -> bytes:
    frames = np.zeros((1 << 20, 1, 4, 6, 3), np.uint8)  # 75 MB in 75 kB
    return _zipped(members | {FRAME: _npy(frames)}, zipfile.ZIP_DEFLATED)


def _central_sizes(size_bytes: int) -> Callable[[dict[str, bytes]], bytes]:
    """Let the directory of the zip file claim another size for every member."""

    def make(members: dict[str, bytes]) -> bytes:
        data = bytearray(_zipped(members))
        place = data.find(b"PK\x01\x02")
        while place >= 0:
            data[place + 20 : place + 28] = size_bytes.to_bytes(4, "little") * 2
            place = data.find(b"PK\x01\x02", place + 4)
        return bytes(data)

    return make


def _headers_beyond_the_end(members: dict[str, bytes]) -> bytes:
    data = bytearray(_zipped(members))
    place = data.find(b"PK\x01\x02")
    while place >= 0:
        data[place + 42 : place + 46] = (len(data) - 5).to_bytes(4, "little")
        place = data.find(b"PK\x01\x02", place + 4)
    return bytes(data)


def _duplicated(members: dict[str, bytes]) -> bytes:
    data = _zipped(members | {"encoder/input/frameX.npy": members[FRAME]})
    return data.replace(b"frameX.npy", b"frame.npy\0")


def _encrypted(members: dict[str, bytes]) -> bytes:
    data = bytearray(_zipped(members))
    place = data.find(b"PK\x01\x02")
    while place >= 0:
        data[place + 8] |= 1
        place = data.find(b"PK\x01\x02", place + 4)
    return bytes(data)


FORMAT, INTEGRITY = BundleFormatError, BundleIntegrityError

ATTACKS: dict[str, tuple[Callable[[Path], None], type[BundleError], str]] = {
    "flipped byte": (flipped_byte, INTEGRITY, r"host-cpu\.onnx' was changed: found 20 bytes"),
    "longer file": (file_longer_than_listed, INTEGRITY, r"found 1099511627776 bytes"),
    "shorter file": (file_shorter_than_listed, INTEGRITY, r"found 3 bytes.*expected 20 bytes"),
    "missing file": (missing_file, INTEGRITY, r"encoder/model\.onnx' is missing"),
    "missing golden": (missing_golden, INTEGRITY, r"golden\.npz' is missing"),
    "missing folder": (missing_folder, INTEGRITY, r"is missing"),
    "extra file": (extra_file, INTEGRITY, r"libpayload\.so' is not listed"),
    "extra hidden file": (extra_hidden_file, INTEGRITY, r"\.profile' is not listed"),
    "extra odd name": (extra_name_that_is_no_text, INTEGRITY, r"\\udcff\\x1b\[2J' is not listed"),
    "extra folder": (extra_empty_folder, INTEGRITY, r"'stages/main' is not listed"),
    "folder for file": (folder_instead_of_file, INTEGRITY, r"is not a plain file"),
    "link to file": (link_to_file, INTEGRITY, r"model\.onnx' is a link"),
    "link within": (link_to_file_within, INTEGRITY, r"is (a link|not listed)"),
    "link to folder": (link_to_folder, INTEGRITY, r"'stages/encoder' is a link"),
    "link to itself": (link_to_itself, INTEGRITY, r"is a link"),
    "link as manifest": (link_as_manifest, INTEGRITY, r"manifest\.json' is not a plain file"),
    "pipe": (pipe_instead_of_file, INTEGRITY, r"is not a plain file"),
    "pipe as manifest": (pipe_as_manifest, INTEGRITY, r"manifest\.json' is not a plain file"),
    "socket": (socket_instead_of_file, INTEGRITY, r"is not a plain file"),
    "not a manifest": (manifest_missing, FORMAT, r"not a bundle: it has no manifest\.json"),
    "empty manifest": (manifest_empty, FORMAT, r"not JSON"),
    "truncated manifest": (manifest_truncated, FORMAT, r"not JSON"),
    "manifest twice": (manifest_twice, FORMAT, r"not JSON: Extra data"),
    "huge manifest": (manifest_huge, FORMAT, r"larger than 1048576 bytes"),
    "endless manifest": (manifest_endless, FORMAT, r"larger than 1048576 bytes"),
    "manifest not UTF-8": (manifest_not_utf8, FORMAT, r"not UTF-8"),
    "manifest UTF-16": (manifest_utf16, FORMAT, r"not UTF-8"),
    "deep nesting": (manifest_nested_deeply, FORMAT, r"not JSON|nested deeper"),
    "deep settings": (settings_nested_deeply, FORMAT, r"nested deeper than 32"),
    "manifest a list": (manifest_is_a_list, FORMAT, r"expected an object, got list"),
    "NaN setting": (setting_nan, FORMAT, r"nan is not a number"),
    "infinite setting": (setting_infinite, FORMAT, r"-inf is not a number"),
    "overflowing setting": (setting_overflows_to_infinity, FORMAT, r"inf is not a number"),
    "million digits": (setting_of_a_million_digits, FORMAT, r"not JSON"),
    "hundred digits": (setting_of_100_digits, FORMAT, r"more than 64 bits"),
    "terminal codes": (setting_with_terminal_codes, FORMAT, r"unprintable characters in '\\x1b"),
    "a forged line": (setting_of("a\nb"), FORMAT, "unprintable characters"),
    "a tab": (setting_of("a\tb"), FORMAT, "unprintable characters"),
    "left to right": (setting_of("a\u200eb"), FORMAT, "unprintable characters"),
    "right to left": (setting_of("a\u200fb"), FORMAT, "unprintable characters"),
    "an Arabic mark": (setting_of("a\u061cb"), FORMAT, "unprintable characters"),
    "an invisible tag": (setting_of("a\U000e0041b"), FORMAT, "unprintable characters"),
    "lone surrogate": (setting_with_half_a_character, FORMAT, r"unprintable characters"),
    "NaN tolerance": (tolerance_nan, FORMAT, r"nan is not a number"),
    "tolerance above 1": (tolerance_above_one, FORMAT, r"got 1\.5, expected 0 to 1"),
    "tolerance overflows": (tolerance_overflows, FORMAT, r"more than 64 bits"),
    "key twice": (key_twice, FORMAT, r"same key twice"),
    "future schema": (_changed(lambda m: m.update(schema=2)), FORMAT, r"schema 2, this .* reads 1"),
    "schema true": (_changed(lambda m: m.update(schema=True)), FORMAT, r"expected int, got bool"),
    "schema a float": (
        _changed(lambda m: m.update(schema=1.0)),
        FORMAT,
        r"expected int, got float",
    ),
    "no schema": (_changed(lambda m: m.pop("schema")), FORMAT, r"expected int, got nothing"),
    "no files": (_changed(lambda m: m.update(files=[])), FORMAT, r"is used but not listed"),
    "no stages": (_changed(lambda m: m.update(stages=[])), FORMAT, r"stages are missing"),
    "no inputs": (_changed(lambda m: m["stages"][0].update(inputs=[])), FORMAT, r"bad tensors"),
    "stage twice": (
        _changed(lambda m: m["stages"].append(m["stages"][0])),
        FORMAT,
        r"share a name",
    ),
    "file twice": (_changed(lambda m: m["files"].append(m["files"][0])), FORMAT, r"listed twice"),
    "file in two cases": (_file_path("stages/encoder/Model.onnx"), FORMAT, r"listed twice"),
    "manifest listed": (_file_path("Manifest.json"), FORMAT, r"listed twice"),
    "target twice": (
        _changed(lambda m: m["stages"][0]["artifacts"].append(m["stages"][0]["artifacts"][0])),
        FORMAT,
        r"names a target twice",
    ),
    "tensor twice": (
        _changed(lambda m: m["stages"][0]["outputs"].append(m["stages"][0]["inputs"][0])),
        FORMAT,
        r"bad tensors",
    ),
    "pending without command": (
        _changed(lambda m: m["stages"][0]["artifacts"][1].update(command="")),
        FORMAT,
        r"no path, no command",
    ),
    "unknown flavour": (
        _changed(lambda m: m["stages"][0]["artifacts"][0].update(flavour="x" * 9999)),
        FORMAT,
        r"^.{1,500}$",
    ),
    "parent path": (_graph_path("../../outside.onnx"), FORMAT, r"bad graph path"),
    "parent path within": (_graph_path("stages/../../outside.onnx"), FORMAT, r"bad graph path"),
    "absolute path": (_graph_path("/etc/passwd"), FORMAT, r"bad graph path '/etc/passwd'"),
    "path with zero byte": (_graph_path("stages/a\0.onnx"), FORMAT, r"unprintable"),
    "path with backslash": (_graph_path("stages\\a"), FORMAT, r"bad graph path"),
    "path with newline": (_file_path("stages/a\n"), FORMAT, r"unprintable characters"),
    "path too long": (_file_path("a" * 10_000), FORMAT, r"bad file path"),
    "path too deep": (_file_path("a/" * 20 + "a"), FORMAT, r"bad file path"),
    "path a number": (_file_path(7), FORMAT, r"files\[0\]\.path: expected str, got int"),
    "negative size": (
        _changed(lambda m: m["files"][0].update(size_bytes=-1)),
        FORMAT,
        r"has -1 bytes",
    ),
    "size beyond all bounds": (
        _changed(lambda m: m["files"][0].update(size_bytes=MAX_FILE_BYTES + 1)),
        FORMAT,
        r"expected 0 to 4294967296",
    ),
    "short hash": (_changed(lambda m: m["files"][0].update(sha256="0")), FORMAT, r"bad sha256"),
    "negative extent": (_spec(shape=[1, -4, 6, 3]), FORMAT, r"bad shape"),
    "huge extent": (_spec(shape=[1 << 31]), FORMAT, r"bad shape \(2147483648,\)"),
    "huge rank": (_spec(shape=[1] * 1000), FORMAT, r"rank 1000"),
    "object dtype": (_spec(dtype="object"), FORMAT, r"'object' is not a valid DType"),
    "dynamic without profile": (_spec(shape=[-1, 4, 6, 3]), FORMAT, r"no fitting profile"),
    "profile of other rank": (
        _changed(lambda m: m["stages"][1]["profiles"]["features"].update(minimum=[1])),
        FORMAT,
        r"minimum <= optimum",
    ),
    "profile that does not fit": (
        _changed(lambda m: m["stages"][1]["profiles"]["features"].update(minimum=[1, 1])),
        FORMAT,
        r"no fitting profile",
    ),
    "pickle in golden": (_golden(_pickled), FORMAT, r"is not a plain array"),
    "zip bomb": (_golden(_bomb), FORMAT, r"is compressed"),
    "golden compressed": (
        _golden(lambda members: _zipped(members, zipfile.ZIP_DEFLATED)),
        FORMAT,
        r"is compressed",
    ),
    "golden headers beyond end": (_golden(_headers_beyond_the_end), FORMAT, r"cannot be read"),
    "golden no zip": (_golden(lambda _: b"PK\x03\x04"), FORMAT, r"cannot be read"),
    "golden empty": (_golden(lambda _: b""), FORMAT, r"cannot be read"),
    "golden claims 4 GB": (_golden(_central_sizes(0xFFFFFFF0)), FORMAT, r"golden\.npz"),
    "golden claims nothing": (_golden(_central_sizes(0)), FORMAT, r"golden\.npz"),
    "golden member twice": (_golden(_duplicated), FORMAT, r"golden\.npz holds"),
    "golden member extra": (
        _golden(lambda members: _zipped(members | {"../../escape.npy": b""})),
        FORMAT,
        r"holds '\.\./\.\./escape\.npy'",
    ),
    "golden member missing": (
        _golden(lambda members: _zipped({FRAME: members[FRAME]})),
        FORMAT,
        r"the stages need 'decoder/input/features'",
    ),
    "golden encrypted": (_golden(_encrypted), FORMAT, r"cannot be read.*encrypted"),
    "golden header lies up": (
        _frame_header(b"(3, 1, 4, 6, 3)", b"(999999999, 1, 4, 6, 3)"),
        FORMAT,
        r"not a plain array|in \d+ bytes",
    ),
    "golden header lies down": (
        _frame_header(b"(3, 1, 4, 6, 3)", b"(2, 1, 4, 6, 3)"),
        FORMAT,
        r"\[2, 1, 4, 6, 3\] in 216 bytes",
    ),
    "golden header is code": (
        _frame_header(b"'descr': '|u1'", b"'descr': (((("),
        FORMAT,
        r"is not a plain array",
    ),
    "golden header dtype": (_frame_header(b"'|u1'", b"'|O8'"), FORMAT, r"not a plain array"),
    "golden header order": (
        _frame_header(b"'fortran_order': False", b"'fortran_order': True "),
        FORMAT,
        r"not a plain array",
    ),
    "golden other shape": (
        _frame_is(np.zeros((3, 1, 4, 5, 3), np.uint8)),
        FORMAT,
        r"\[3, 1, 4, 5, 3\]",
    ),
    "golden no samples axis": (_frame_is(np.uint8(3)), FORMAT, r"\[\] in 1 bytes"),
    "golden big-endian": (
        _golden(
            lambda members: _zipped(
                members
                | {"encoder/output/features.npy": _npy(np.zeros((3, 5, 2), np.dtype(">f4")))}
            )
        ),
        FORMAT,
        r"not a plain array",
    ),
    "golden no .npy": (
        _golden(lambda members: _zipped(members | {FRAME: b""})),
        FORMAT,
        r"not a plain array",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attack, error, message = ATTACKS[name]
    attack(root)
    with pytest.raises(BundleError, match=message) as refused:
        for stage in Bundle.open(root).manifest.stages:
            Bundle.open(root).golden(stage.name)
    assert refused.type is error
    assert len(str(refused.value)) < 1500
    assert str(refused.value).isprintable()
    assert not (tmp_path / "owned-by-a-pickle").exists()


def test_the_pickle_would_have_run(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    ATTACKS["pickle in golden"][0](root)
    with np.load(root / GOLDEN, allow_pickle=True) as arrays:
        arrays["encoder/input/frame"]
    assert (tmp_path / "owned-by-a-pickle").is_dir()


def test_links_made_after_opening_are_not_followed(root: Path) -> None:
    bundle = Bundle.open(root)
    (root / "stages/encoder").rename(root.parent / "encoder")
    (root / "stages/encoder").symlink_to(root.parent / "encoder")
    with pytest.raises(BundleIntegrityError, match="lies behind a link"):
        bundle.read(GRAPH)


def test_the_largest_manifest_is_read_in_moderate_steps(root: Path) -> None:
    """Almost the largest manifest, all of it artifacts: the work must not be quadratic."""
    fields = read_manifest(root)
    artifact = fields["stages"][0]["artifacts"][1]
    more = [artifact | {"target": f"t{i}", "path": GRAPH} for i in range(6000)]
    fields["stages"][0]["artifacts"] += more
    text = json.dumps(fields)
    assert 0.7 * MAX_BYTES < len(text) < MAX_BYTES
    (root / MANIFEST).write_text(text)
    assert len(Bundle.open(root).manifest.stages[0].artifacts) == 6002


def test_an_attack_that_lists_itself_is_a_sound_bundle(root: Path) -> None:
    """Hashes prove that nothing changed on the way, not who made it."""
    (root / ENGINE).write_bytes(b"another engine")
    relist(root)
    assert Bundle.open(root).read(ENGINE) == b"another engine"


def test_golden_vectors_are_no_larger_than_samples_of_the_tensors(root: Path) -> None:
    """Three sparse gigabytes would be hashed for 20 s, and then read into memory."""
    manifest = read_manifest(root)
    with (root / GOLDEN).open("ab") as file:
        file.truncate(3 << 30)
    for entry in manifest["files"]:
        if entry["path"] == GOLDEN:
            entry["size_bytes"] = 3 << 30
    write_manifest(root, manifest)
    with pytest.raises(
        BundleFormatError, match=r"golden\.npz has 3221225472 bytes, and 64 samples"
    ):
        Bundle.open(root)

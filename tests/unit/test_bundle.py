"""A bundle as it should be: written, opened, read, replaced."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgevision.bundle.directory import GOLDEN, MANIFEST, Bundle, BundleWriter
from edgevision.errors import (
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    ClosedError,
)
from tests.parts.two_stages import (
    FILES,
    MANIFEST_VALUE,
    contents,
    golden_arrays,
    relist,
    write_bundle,
)


def test_what_goes_in_comes_out(good_bundle: Path) -> None:
    bundle = Bundle.open(good_bundle)
    assert {name: bundle.read(name) for name in FILES} == FILES
    assert replace(bundle.manifest, files=()) == MANIFEST_VALUE
    listed = [entry.path for entry in bundle.manifest.files]
    assert listed == sorted([*FILES, GOLDEN])
    assert bundle.path("reports/parity.json").read_bytes() == b"[]\n"
    for stage, expected in golden_arrays().items():
        for found, wanted in zip(bundle.golden(stage), expected, strict=True):
            assert list(found) == list(wanted)
            for name, array in found.items():
                assert array.dtype == wanted[name].dtype
                np.testing.assert_array_equal(array, wanted[name])


def test_golden_vectors_are_numpys_own_format(good_bundle: Path) -> None:
    with np.load(good_bundle / GOLDEN, allow_pickle=False) as arrays:
        assert sorted(arrays) == [
            "decoder/input/features",
            "decoder/output/classes",
            "encoder/input/frame",
            "encoder/output/features",
        ]
        wanted = golden_arrays()["decoder"][1]["classes"]
        np.testing.assert_array_equal(arrays["decoder/output/classes"], wanted)


def test_equal_inputs_make_equal_bytes(good_bundle: Path, tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "other.ev") as writer:
        for stage, (inputs, outputs) in reversed(golden_arrays().items()):
            writer.add_golden(stage, inputs, outputs)
        for name, data in reversed(FILES.items()):
            writer.add(name, data)
        again = writer.publish(MANIFEST_VALUE)
    assert contents(again.root) == contents(good_bundle)


def test_a_bundle_may_be_moved_and_reached_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    moved = root.rename(tmp_path / "deep" / "moved.ev")
    (tmp_path / "latest.ev").symlink_to(moved)
    assert Bundle.open(tmp_path / "latest.ev").manifest == Bundle.open(moved).manifest


def test_what_is_read_is_what_was_checked(root: Path) -> None:
    bundle = Bundle.open(root)
    (root / "stages/encoder/host-cpu.onnx").write_bytes(b"the attacker's engine")
    with pytest.raises(BundleIntegrityError, match=r"host-cpu.onnx.*expected 20 bytes"):
        bundle.read("stages/encoder/host-cpu.onnx")
    (root / GOLDEN).write_bytes(b"")
    with pytest.raises(BundleIntegrityError, match=r"golden.npz.*found 0 bytes"):
        bundle.golden("encoder")


def test_hashes_may_wait_for_the_read(root: Path) -> None:
    (root / "reports/parity.json").write_bytes(b"{}\n")
    bundle = Bundle.open(root, check_hashes=False)
    with pytest.raises(BundleIntegrityError, match=r"parity\.json"):
        bundle.read("reports/parity.json")
    (root / "reports/parity.json").write_bytes(b"longer than listed")
    with pytest.raises(BundleIntegrityError, match=r"parity\.json"):
        Bundle.open(root, check_hashes=False)


def test_unknown_names_are_misuse(good_bundle: Path) -> None:
    bundle = Bundle.open(good_bundle)
    for ask in (bundle.read, bundle.path):
        with pytest.raises(ValueError, match=r"no file 'manifest.json'"):
            ask(MANIFEST)
    with pytest.raises(ValueError, match="no stage 'main'; the bundle has: encoder, decoder"):
        bundle.golden("main")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b"ONNX"), "is a file"),
        (lambda path: path.mkdir(), "is not a bundle: it has no manifest.json"),
        (lambda path: path.symlink_to("nowhere"), "does not exist"),
    ],
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "a.ev"
    assert callable(make)
    make(path)
    with pytest.raises(BundleFormatError, match=message):
        Bundle.open(path)


def test_a_bundle_is_replaced_and_nothing_else_is_left(root: Path, tmp_path: Path) -> None:
    before = contents(root)
    write_bundle(root, seed=1)
    assert contents(root) != before
    assert [path.name for path in tmp_path.iterdir()] == [root.name]


def test_a_damaged_bundle_may_be_replaced(root: Path, good_bundle: Path) -> None:
    (root / "stages/encoder/model.onnx").write_bytes(b"broken")
    (root / "stages/decoder/model.onnx").unlink()
    write_bundle(root)
    assert contents(root) == contents(good_bundle)


def test_parents_are_made_and_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert Bundle.open(write_bundle(tmp_path / "a" / "b" / "c.ev").root)
    (tmp_path / "empty.ev").mkdir()
    assert Bundle.open(write_bundle(tmp_path / "empty.ev").root)


def _home(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("ten years of work")


def _web_project(path: Path) -> None:
    _home(path)
    (path / MANIFEST).write_text('{"name": "an app", "icons": []}')


def _bundle_with_notes(path: Path) -> None:
    write_bundle(path)
    (path / "reports" / "thesis.txt").write_text("ten years of work")


def _file(path: Path) -> None:
    path.write_text("ten years of work")


def _link_to_bundle(path: Path) -> None:
    path.symlink_to(write_bundle(path.with_name("linked.ev")).root)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_home, "it has no manifest.json"),
        (_web_project, "schema: expected int, got nothing"),
        (_bundle_with_notes, "'reports/thesis.txt' is not listed"),
        (_file, "is a file"),
        (_link_to_bundle, "it is a link"),
    ],
)
def test_nothing_but_a_bundle_is_replaced(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "a.ev"
    assert callable(make)
    make(path)
    before = contents(tmp_path)
    with pytest.raises(BundleFormatError, match=message), BundleWriter(path):
        raise AssertionError("it was opened for writing")
    assert contents(tmp_path) == before


def test_what_appears_while_a_bundle_is_written_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.ev"
    with BundleWriter(path) as writer:
        for name, data in FILES.items():
            writer.add(name, data)
        for stage, (inputs, outputs) in golden_arrays().items():
            writer.add_golden(stage, inputs, outputs)
        _home(path)
        with pytest.raises(BundleFormatError, match="is not replaced"):
            writer.publish(MANIFEST_VALUE)
    assert contents(tmp_path) == {"a.ev/thesis.txt": b"ten years of work"}


@pytest.mark.parametrize(
    "name", ["../a", "/etc/a", "a/../b", "", ".", "a//b", "a/", ".hidden", "a b", "a\\b", "ä"]
)
def test_names_that_leave_the_bundle_are_not_added(tmp_path: Path, name: str) -> None:
    with BundleWriter(tmp_path / "a.ev") as writer, pytest.raises(BundleFormatError, match="path"):
        writer.add(name, b"")
    assert not list(tmp_path.iterdir())


def test_names_are_added_once(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "a.ev") as writer:
        writer.add("reports/a", b"")
        with pytest.raises(ValueError, match="added twice"):
            writer.add("reports/a", b"")
        for own in (MANIFEST, GOLDEN):
            with pytest.raises(ValueError, match="by the bundle itself"):
                writer.add(own, b"")
        with pytest.raises(BundleError, match="could not write"):
            writer.add("reports/a/b", b"")


def test_a_writer_outside_its_with_is_refused(tmp_path: Path) -> None:
    writer = BundleWriter(tmp_path / "a.ev")
    with pytest.raises(ClosedError, match="with"):
        writer.add("a", b"")
    with writer:
        pass
    with pytest.raises(ClosedError, match="with"):
        writer.publish(MANIFEST_VALUE)


def _without_golden(stages: dict[str, object]) -> None:
    stages.clear()


def _without_a_stage(stages: dict[str, object]) -> None:
    del stages["decoder"]


def _with_another_dtype(stages: dict[str, object]) -> None:
    inputs, outputs = golden_arrays()["decoder"]
    stages["decoder"] = ({"features": inputs["features"].astype(np.float64)}, outputs)


def _with_fewer_samples(stages: dict[str, object]) -> None:
    inputs, outputs = golden_arrays()["decoder"]
    stages["decoder"] = ({"features": inputs["features"][:2]}, outputs)


def _with_no_samples(stages: dict[str, object]) -> None:
    inputs, outputs = golden_arrays()["decoder"]
    stages["decoder"] = ({"features": inputs["features"][:0]}, {"classes": outputs["classes"][:0]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_golden, "golden.npz holds nothing"),
        (_without_a_stage, "the stages need 'decoder/input/features'"),
        (_with_another_dtype, r"<f8\[3, 5, 2\].*expected samples of features: float32\[\?, 2\]"),
        (_with_fewer_samples, "'decoder' differ in samples"),
        (_with_no_samples, r"\[0, 5, 2\]"),
    ],
)
def test_a_bundle_without_its_proof_is_not_published(
    root: Path, tmp_path: Path, change: object, message: str
) -> None:
    before = contents(tmp_path)
    stages = golden_arrays()
    assert callable(change)
    change(stages)
    with BundleWriter(root) as writer, pytest.raises(BundleFormatError, match=message):
        for name, data in FILES.items():
            writer.add(name, data)
        for stage, (inputs, outputs) in stages.items():
            writer.add_golden(stage, inputs, outputs)
        writer.publish(MANIFEST_VALUE)
    assert contents(tmp_path) == before


def test_a_manifest_that_names_what_was_not_added_is_not_published(tmp_path: Path) -> None:
    used = r"'stages/encoder/model\.onnx' is used but not listed"
    with (
        BundleWriter(tmp_path / "a.ev") as writer,
        pytest.raises(BundleFormatError, match=used),
    ):
        writer.publish(MANIFEST_VALUE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"), [("file/a.ev", "File exists"), ("a" * 250, "File name too long")]
)
def test_a_path_that_cannot_be_is_one_message(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    writer = BundleWriter(tmp_path / name)
    with pytest.raises(BundleError, match=rf"could not write .*: {message}\."):
        writer.__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_file_limit_is_one_message_and_the_old_bundle_stays(root: Path) -> None:
    before = contents(root.parent)
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300));"
        "from pathlib import Path; from edgevision.errors import BundleError;"
        "from tests.parts.two_stages import write_bundle\n"
        "try: write_bundle(Path(sys.argv[1]), seed=1)\n"
        "except BundleError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, root],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert "could not write" in done.stdout
    assert "File too large. Free at least" in done.stdout
    assert contents(root.parent) == before


def test_opening_needs_no_write_access(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert Bundle.open(root).golden("encoder")
    root.chmod(0o755)
    for path in root.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)


def test_hard_links_and_odd_names_beside_it_do_not_matter(root: Path, tmp_path: Path) -> None:
    os.link(root / "reports/parity.json", tmp_path / "linked")
    (tmp_path / f".{root.name}.partial-is-not-ours").mkdir()
    (tmp_path / f".{root.name}.partial-1-00000000").symlink_to(tmp_path)
    write_bundle(root)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        f".{root.name}.partial-1-00000000",
        f".{root.name}.partial-is-not-ours",
        root.name,
        "linked",
    ]


def test_a_bundle_copied_over_another_is_refused(root: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other.ev", seed=1).root
    shutil.copy(other / GOLDEN, root / GOLDEN)
    with pytest.raises(BundleIntegrityError, match=r"golden\.npz"):
        Bundle.open(root)
    relist(root)
    assert Bundle.open(root)

"""The device half on this machine: finish, prove, record, load, and refuse what is not proven."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevision
from edgevision.bundle.directory import Bundle
from edgevision.bundle.flavours import TRT_RTX
from edgevision.bundle.manifest import Artifact
from edgevision.bundle.record import Record, finish_command
from edgevision.bundle.state import engines_place, state_root
from edgevision.bundle.targets import get_target
from edgevision.cli import main
from edgevision.engines.cache import EngineCache
from edgevision.engines.finish import _workspace_bytes
from edgevision.engines.finish import finish_target as finish_target_from
from edgevision.engines.layer_precision import (
    layers_from_inspector,
    layers_from_profile,
    precision_shortfall,
)
from edgevision.errors import (
    BundleError,
    BundleIntegrityError,
    InsufficientMemoryError,
    ParityError,
    TargetMismatchError,
    UnverifiedError,
)
from edgevision.testing import SimulatedDevice
from tests.parts.tiny_bundles import semantic_bundle

ROOT = Path(__file__).parents[2]
LOCAL = get_target("local-cpu")
# All bundles here hold the same graph: its engine is built once, and taken from here by the others.
_built = tempfile.TemporaryDirectory(prefix="edgevision-engines-")
finish_target = partial(finish_target_from, cache=EngineCache(_built.name))
FRAME = np.random.default_rng(5).integers(0, 256, (6, 10, 3), np.uint8)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("EDGEVISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEVISION_STATE", str(tmp_path / "state"))
    return semantic_bundle(tmp_path / "road.ev")


def folder_of(bundle: Bundle) -> Path:
    return engines_place(bundle.root) / "local-cpu"


def test_what_was_finished_is_what_runs(bundle: Bundle) -> None:
    before = sorted(path.name for path in bundle.root.rglob("*"))
    done = finish_target(bundle, LOCAL)
    assert done.record.passed
    assert done.record.manifest_sha256 == bundle.manifest_sha256
    assert list(done.seconds) == ["main"]
    assert sorted(os.listdir(folder_of(bundle))) == [".lock", "main.onnx", "record.json"]
    assert sorted(path.name for path in bundle.root.rglob("*")) == before
    with edgevision.load(bundle.root) as model:
        assert f"proven on this machine on {done.record.date}" in model.explain()
        assert "runs 'local-cpu'" in model.explain()
        np.testing.assert_array_equal(model(FRAME).mask, FRAME.argmax(-1))  # type: ignore[union-attr]
    assert not finish_target(bundle, LOCAL).seconds, "what is valid is not built again"


def change_engine(bundle: Bundle) -> None:
    file = folder_of(bundle) / "main.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def change_record(**fields: object) -> Callable[[Bundle], None]:
    def change(bundle: Bundle) -> None:
        file = folder_of(bundle) / "record.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


def remove_key(bundle: Bundle) -> None:
    (state_root() / "device.key").unlink()


def sealed_anew(**fields: object) -> Callable[[Bundle], None]:
    def change(bundle: Bundle) -> None:
        change_record(**fields)(bundle)
        file = folder_of(bundle) / "record.json"
        file.write_text(Record.from_json(file.read_bytes()).sealed().to_json())

    return change


def remove_record(bundle: Bundle) -> None:
    (folder_of(bundle) / "record.json").unlink()


def break_record(bundle: Bundle) -> None:
    (folder_of(bundle) / "record.json").write_bytes(b"[" * 2000)


def link_folder(bundle: Bundle) -> None:
    folder = folder_of(bundle)
    folder.rename(folder.with_name("moved"))
    folder.symlink_to("moved")


def open_to_all(bundle: Bundle) -> None:
    folder_of(bundle).chmod(0o777)


def link_engine(bundle: Bundle) -> None:
    file = folder_of(bundle) / "main.onnx"
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (remove_record, UnverifiedError, "it has no record"),
        (break_record, UnverifiedError, "its record cannot be read"),
        (change_record(passed=False, reason="7 % differ"), UnverifiedError, "it did not pass: 7 %"),
        (change_record(passed=1), UnverifiedError, "passed: expected bool"),
        (change_record(extra=1), UnverifiedError, "expected the fields"),
        (change_record(schema=1), UnverifiedError, "of another schema"),
        (change_record(stages=[]), UnverifiedError, "an engine for every stage"),
        (change_record(target="local"), UnverifiedError, "its record is of target 'local'"),
        (change_record(manifest_sha256="0"), UnverifiedError, "another version of this bundle"),
        (change_record(machine="a Cray"), UnverifiedError, "on another machine: a Cray; this is"),
        (sealed_anew(version="0.1.0"), UnverifiedError, "made by ONNX Runtime 0.1.0; here is"),
        (change_record(date="2027-01-01 00:00"), UnverifiedError, "did not write its record"),
        (change_record(proof="0" * 64), UnverifiedError, "did not write its record"),
        (remove_key, UnverifiedError, "did not write its record"),
        (change_record(date="2026\x1b[2J"), UnverifiedError, "unprintable characters in"),
        (change_record(score={"a\nb": 1.0}), UnverifiedError, "unprintable characters in"),
        (change_engine, BundleIntegrityError, "its bytes were changed"),
        (link_engine, BundleIntegrityError, "cannot be read"),
    ],
)
def test_what_is_not_proven_is_refused_and_never_passed_over(
    bundle: Bundle, change: Callable[[Bundle], None], error: type[Exception], message: str
) -> None:
    finish_target(bundle, LOCAL)
    change(bundle)
    with pytest.raises(error, match=message) as caught:
        edgevision.load(bundle.root)
    if error is UnverifiedError:
        assert f"edgevision finish {bundle.root} --target local-cpu" in str(caught.value)
    finish_target(bundle, LOCAL)
    edgevision.load(bundle.root).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (link_folder, "its record cannot be read: it is a link, or no folder"),
        (open_to_all, "its record cannot be read: everybody may write it"),
    ],
)
def test_a_folder_that_is_not_ours_is_neither_believed_nor_written(
    bundle: Bundle, change: Callable[[Bundle], None], message: str
) -> None:
    finish_target(bundle, LOCAL)
    change(bundle)
    with pytest.raises(UnverifiedError, match=message):
        edgevision.load(bundle.root)
    with pytest.raises(BundleError, match="Give another folder: --engines DIR"):
        finish_target(bundle, LOCAL)


@pytest.mark.parametrize("name", ["", "local-cpu"])
def test_a_link_in_the_place_of_engines_leads_nobody_anywhere(
    bundle: Bundle, tmp_path: Path, name: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    kept = (".profile", ".netrc", ".partial-mine", "record.json")
    for file in kept:
        (home / file).write_text("precious")
    link = engines_place(bundle.root) / name
    link.parent.mkdir(exist_ok=True, parents=True)
    link.symlink_to(home)
    with pytest.raises(BundleError, match="it is a link, or no folder"):
        finish_target(bundle, LOCAL)
    assert sorted(os.listdir(home)) == sorted(kept)
    with pytest.raises(UnverifiedError, match="it is a link, or no folder"):
        edgevision.load(bundle.root)


def test_engines_beside_a_bundle_are_neither_believed_nor_passed_over(
    bundle: Bundle, tmp_path: Path
) -> None:
    """A stranger's archive may bring them; until 0.1 they were finished there."""
    beside = tmp_path / "road.ev.engines"
    finish_target(bundle, LOCAL, engines=beside)
    with pytest.raises(UnverifiedError, match=r"holds engines beside the bundle.*--engines DIR"):
        edgevision.load(bundle.root)
    with edgevision.load(bundle.root, engines=beside) as model:
        assert "runs 'local-cpu'" in model.explain()


def test_a_strange_folder_beside_the_bundle_is_named_escaped(bundle: Bundle) -> None:
    folder_of(bundle).with_name("x\x1b[2J; touch MARK").mkdir(parents=True)
    with pytest.raises(UnverifiedError, match=r"x\\x1b\[2J; touch MARK' is not used") as caught:
        edgevision.load(bundle.root)
    assert caught.value.command == f"edgevision finish {bundle.root} --target TARGET"


def test_a_key_that_others_may_read_proves_nothing(bundle: Bundle) -> None:
    finish_target(bundle, LOCAL)
    (state_root() / "device.key").chmod(0o644)
    with pytest.raises(UnverifiedError, match="did not write its record"):
        edgevision.load(bundle.root)
    with pytest.raises(BundleError, match=r"device\.key' is open to others: remove it"):
        finish_target(bundle, LOCAL)


def test_only_what_we_made_is_cleared_up(bundle: Bundle) -> None:
    finish_target(bundle, LOCAL)
    folder = folder_of(bundle)
    kept = (".netrc", ".partial-mine", "notes")
    for name in kept:
        (folder / name).write_text("precious")
    finish_target(bundle, LOCAL)
    assert set(kept) < set(os.listdir(folder))


@pytest.mark.parametrize("there", ["a file", "a link to itself", "a link to nothing"])
def test_a_folder_that_cannot_be_listed_is_not_passed_over(bundle: Bundle, there: str) -> None:
    engines = folder_of(bundle).parent
    engines.parent.mkdir(parents=True)
    if there == "a file":
        engines.write_text("in the way")
    else:
        engines.symlink_to(engines.name if "itself" in there else "nowhere")
    with pytest.raises(UnverifiedError, match=r"road\.ev-\w+'.*cannot be listed: it is a link"):
        edgevision.load(bundle.root)
    with pytest.raises(BundleError, match="Give another folder: --engines DIR"):
        finish_target(bundle, LOCAL)


def test_a_folder_that_the_user_names_may_be_a_link(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "var").symlink_to("disk")
    finish_target(bundle, LOCAL, engines=tmp_path / "var")
    with edgevision.load(bundle.root, engines=tmp_path / "var") as model:
        assert "runs 'local-cpu'" in model.explain()


def test_an_unverified_engine_runs_only_if_the_caller_says_so(bundle: Bundle) -> None:
    finish_target(bundle, LOCAL)
    change_record(passed=False, reason="no")(bundle)
    with (
        pytest.warns(UserWarning, match="runs unverified: it did not pass: no"),
        edgevision.load(bundle.root, allow_unverified=True) as model,
    ):
        assert "UNVERIFIED" in model.explain()
    change_engine(bundle)  # whose bytes are not even those of the record
    with (
        pytest.warns(UserWarning, match="runs unverified"),
        pytest.raises(BundleIntegrityError, match="its bytes were changed"),
    ):
        edgevision.load(bundle.root, allow_unverified=True)


def test_an_engine_that_disagrees_is_recorded_as_failed(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgevision.bundle.directory import BundleWriter

    inputs, outputs = bundle.golden("main")
    wrong = {"classes": (outputs["classes"] + 1) % 3}
    with BundleWriter(tmp_path / "wrong.ev") as writer:
        for entry in bundle.manifest.files:
            if entry.path != "golden.npz":
                writer.add(entry.path, bundle.read(entry.path))
        writer.add_golden("main", inputs, wrong)
        made = writer.publish(replace(bundle.manifest, files=()))
    assert main(["finish", str(made.root), "--target", "local-cpu"]) == 1
    assert "is not fit for use" in capsys.readouterr().err
    with pytest.raises(UnverifiedError, match="it did not pass"):
        edgevision.load(made.root)
    with pytest.raises(ParityError, match="never loaded"):
        finish_target(made, LOCAL)


def picture(folder: Path) -> Path:
    Image.fromarray(FRAME).save(folder / "frame.png")
    return folder / "frame.png"


def labelled(folder: Path, label: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Path:
    for name, pixels in (("images", FRAME), ("labels", label)):
        (folder / name).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / name / "frame.png")
    return folder


def test_the_engine_is_scored_beside_the_graph_also_without_a_cpu_artifact(
    tmp_path: Path, bundle: Bundle
) -> None:
    rtx = Artifact("rtx", TRT_RTX, None, reason="later", command="edgevision build")
    bare = semantic_bundle(tmp_path / "bare.ev", artifacts=(rtx,))
    folder = labelled(tmp_path / "val", FRAME.argmax(-1).astype(np.uint8))
    done = finish_target(bare, LOCAL, evaluate=folder)
    assert done.record.score["mIoU"] == 1.0
    assert done.record.score["agrees with reference"] == 1.0


def test_a_score_without_labels_proves_nothing(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(FRAME).save(tmp_path / "photos" / "frame.png")
    with pytest.raises(ParityError, match=r"mIoU is undefined there.*Give a labelled folder"):
        finish_target(bundle, LOCAL, evaluate=tmp_path / "photos")


def test_another_folder_where_the_usual_one_cannot_be_written(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "engines").write_text("in the way")
    with pytest.raises(BundleError, match="Give another folder: --engines DIR"):
        finish_target(bundle, LOCAL)
    finish_target(bundle, LOCAL, engines=tmp_path / "var")
    with edgevision.load(bundle.root, engines=tmp_path / "var") as model:
        assert "runs 'local-cpu'" in model.explain()
    for verb in ("verify", "run"):
        source = [str(picture(tmp_path))] if verb == "run" else []
        engines = ["--engines", str(tmp_path / "var")]
        assert main([verb, str(bundle.root), *source, *engines]) == 0
        assert "local-cpu" in capsys.readouterr().out
    with edgevision.load(bundle.root, engines=tmp_path / "none") as model:
        assert "runs 'host-cpu'" in model.explain()


def test_a_folder_of_somebody_else_s_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    theirs = tmp_path / "nets" / "local-cpu" / "main.onnx"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"trained for weeks")
    with pytest.raises(BundleError, match=r"local-cpu' is not a folder of finished engines"):
        finish_target(bundle, LOCAL, engines=tmp_path / "nets")
    assert theirs.read_bytes() == b"trained for weeks"
    assert os.listdir(theirs.parent) == ["main.onnx"]


def test_hidden_files_that_no_build_made_stay(bundle: Bundle) -> None:
    folder_of(bundle).mkdir(parents=True)
    (folder_of(bundle) / ".gitignore").write_text("*.plan")
    finish_target(bundle, LOCAL)
    assert (folder_of(bundle) / ".gitignore").read_text() == "*.plan"


def test_what_cannot_be_finished_says_why(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="'rtx' is built anywhere"):
        finish_target(bundle, get_target("rtx"))
    with pytest.raises(ValueError, match="a lean runtime only of TensorRT"):
        finish_target(bundle, LOCAL, lean=True)
    with pytest.raises(TargetMismatchError, match="no NVIDIA GPU on this machine"):
        finish_target(bundle, get_target("jetson-orin-jp6"))
    assert main(["finish", str(bundle.root), "--target", "jetson-orin-jp6"]) == 3


def test_the_public_function_takes_a_path_or_an_open_bundle(bundle: Bundle) -> None:
    first = edgevision.finish(bundle.root, "local-cpu")
    assert first.finished["local-cpu"].record.passed
    again = edgevision.finish(bundle, ["local-cpu"])
    assert not again.finished["local-cpu"].seconds, "it was finished before"


def test_a_command_can_be_pasted(bundle: Bundle) -> None:
    assert finish_command("road.ev", "local") == "edgevision finish road.ev --target local"
    odd = finish_command("my road.ev", "a; rm", Path("$HOME"))
    assert shlex.split(odd)[2:] == ["my road.ev", "--target", "TARGET", "--engines", "$HOME"]
    file = finish_command("road.ev", "boards/our own.toml")
    assert shlex.split(file)[4:] == ["boards/our own.toml"]


def test_temporaries_of_a_killed_child_go_with_the_next_run(bundle: Bundle) -> None:
    folder = folder_of(bundle)
    folder.mkdir(parents=True)
    for name in (".partial-main-12345678", "..partial-main-12345678.partial-0123456789ab"):
        (folder / name).touch()
    finish_target(bundle, LOCAL)
    assert sorted(os.listdir(folder)) == [".lock", "main.onnx", "record.json"]


def test_free_memory_that_moves_a_little_leaves_the_key_as_it_is() -> None:
    class Device(SimulatedDevice):
        free = 0

        def memory(self) -> tuple[int, int]:
            return self.free, 16 << 30

    device, found = Device(), set()
    for device.free in range(5_000_000_000, 6_000_000_000, 7_654_321):
        limit = _workspace_bytes(device)
        assert limit is not None
        assert device.free / 4 <= limit <= device.free / 2
        found.add(limit)
    assert len(found) == 1
    device.free = 400 << 20
    with pytest.raises(InsufficientMemoryError, match=r"419 of 17180 MB are free.*wants 537 MB"):
        _workspace_bytes(device)
    assert _workspace_bytes(None) is None


def test_a_record_survives_its_own_json(bundle: Bundle) -> None:
    record = finish_target(bundle, LOCAL).record
    assert Record.from_json(record.to_json().encode()) == replace(record, score=dict(record.score))


# As trtexec --exportLayerInfo writes it with detailed verbosity.
INSPECTOR = json.dumps(
    {
        "Layers": [
            {"Name": "r", "LayerType": "Reformat", "Inputs": [{"Format/Datatype": "FP32"}]},
            {"Name": "a", "LayerType": "CaskConvolution", "Inputs": [
                {"Name": "x", "Format/Datatype":
                    "Thirty-two wide channel vectorized row major Int8 format"}]},
            {"Name": "b", "LayerType": "CaskConvolution", "Inputs": [
                {"Name": "x", "Format/Datatype":
                    "Channel major FP16 format where channel % 8 == 0"}]},
            {"Name": "c", "LayerType": "PointWiseV2", "Inputs": [
                {"Name": "x", "Format/Datatype": "Row major linear FP32"}]},
            {"Name": "d", "LayerType": "gemm", "Inputs": [],
             "Outputs": [{"Format/Datatype": "Half"}]},
        ]
    }
)  # fmt: skip


def test_delivered_types_are_read_from_the_inspector() -> None:
    assert layers_from_inspector(INSPECTOR) == {"int8": 1, "fp16": 2, "fp32": 1}
    for odd in ("", "{}", "[]", '{"Layers": ["a", "b"]}', '{"Layers": 3}', "[" * 5000):
        assert layers_from_inspector(odd) is None
        assert layers_from_profile(odd) is None


@pytest.mark.parametrize(
    ("precision", "layers", "message"),
    [
        ("int8", {"int8": 5, "fp16": 3}, ""), ("int8", {"fp16": 8}, "no layer runs in INT8"),
        ("fp16", {"fp16": 6, "fp32": 4}, ""), ("fp16", {"fp16": 1, "fp32": 9}, "1 of 10 layers"),
        ("fp32", {"fp32": 4}, ""), ("int8", None, ""),
    ],
)  # fmt: skip
def test_a_precision_that_was_not_met_is_named(
    precision: str, layers: dict[str, int] | None, message: str
) -> None:
    found = precision_shortfall(precision, layers)
    assert message in found
    assert bool(found) is bool(message)

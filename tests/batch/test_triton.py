"""A Triton repository is read back by the protobuf that Triton's own client ships."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgevision.bundle.directory import Bundle
from edgevision.bundle.flavours import OPENVINO, ORT, TRT
from edgevision.bundle.manifest import Artifact
from edgevision.bundle.tensors import DYNAMIC
from edgevision.bundle.triton import config_text, served_models, write_models
from edgevision.cli import main
from edgevision.errors import FileWriteError, TargetMismatchError
from tests.parts.tiny_bundles import semantic_bundle
from tests.parts.two_stages import write_bundle


def parsed(text: str) -> Any:
    """Return a config as the client's message; its package needs gRPC, that file does not."""
    client = importlib.util.find_spec("tritonclient")
    if client is None or not client.submodule_search_locations:
        pytest.skip("pip install --no-deps tritonclient")
    path = Path(client.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text_format = pytest.importorskip("google.protobuf.text_format")
    return text_format.Parse(text, module.ModelConfig())


def test_the_client_reads_what_the_verb_writes(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["triton", str(bundle.root), "--out", str(tmp_path), "--instances", "2", "--json"]
    assert main(command) == main(command) == 0  # its own is replaced
    assert json.loads(capsys.readouterr().out.split("\n}\n")[0] + "}")["served"] is False
    home = tmp_path / "tiny"
    assert (home / "1/model.onnx").read_bytes() == bundle.read("stages/main/host-cpu.onnx")
    assert (home / "edgevision/golden.npz").read_bytes() == bundle.read("golden.npz")
    assert (home / "labels.txt").read_text() == "red\ngreen\nblue\n"
    config = parsed((home / "config.pbtxt").read_text())
    (frame,), (classes,) = config.input, config.output
    assert (frame.name, list(frame.dims)) == ("frame", [1, 6, 10, 3])
    assert (classes.name, list(classes.dims)) == ("classes", [1, 6, 10])
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "onnxruntime", 0)
    assert config.default_model_filename == "model.onnx"
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, type(group).KIND_CPU)
    enum = type(frame).DESCRIPTOR.fields_by_name["data_type"].enum_type
    assert enum.values_by_number[frame.data_type].name == "TYPE_UINT8"


def test_an_open_batch_is_left_to_the_server(tmp_path: Path) -> None:
    decoder = write_bundle(tmp_path / "two.ev").manifest.stages[-1]
    decoder = replace(decoder, outputs=(decoder.outputs[0].with_shape((DYNAMIC, 4, 6)),))
    plan = Artifact("board", TRT, "stages/main/board.plan", version="10.3.0", sm=("8.7",))
    config = parsed(config_text('a "b"\n', decoder, plan, 1))
    assert (config.name, config.backend, config.max_batch_size) == ('a "b"\n', "tensorrt", 8)
    assert [list(tensor.dims) for tensor in config.input] == [
        list(spec.shape[1:]) for spec in decoder.inputs
    ]
    assert config.HasField("dynamic_batching")
    assert config.instance_group[0].kind == type(config.instance_group[0]).KIND_GPU


def test_what_the_server_cannot_run_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(TargetMismatchError, match=r"target 'x' there that Triton .* host-cpu"):
        served_models(bundle, target="x")
    with pytest.raises(ValueError, match="instances: got 0"):
        served_models(bundle, instances=0)
    path = "stages/main/host-cpu.onnx"
    artifacts = (
        Artifact("intel", OPENVINO, path, version="1"),
        Artifact("board", TRT, None, command="edgevision finish"),
        Artifact("host-cpu", ORT, path, version="1"),
    )
    mixed = semantic_bundle(tmp_path / "mixed.ev", artifacts=artifacts)
    assert [model.target for model in served_models(mixed)] == ["host-cpu"]
    with pytest.raises(TargetMismatchError, match=r"board \(pending\)"):
        served_models(mixed, target="board")


def test_a_model_of_another_maker_stays_and_one_that_was_killed_is_written_again(
    bundle: Bundle, tmp_path: Path
) -> None:
    models, home = served_models(bundle), tmp_path / "tiny"
    (home / "1").mkdir(parents=True)
    for foreign in (home / "1" / "model.onnx", home / "config.pbtxt"):
        foreign.write_text('name: "mine"')
        with pytest.raises(FileWriteError, match="not made by edgevision"):
            write_models(models, tmp_path)
        foreign.unlink()
    (home / "edgevision").mkdir()
    assert write_models(models, tmp_path) == [home]
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "tiny").touch()
    with pytest.raises(FileWriteError, match="not made by edgevision"):
        write_models(models, tmp_path / "file")

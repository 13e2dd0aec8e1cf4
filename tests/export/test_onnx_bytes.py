"""Weights outside a graph's file are found wherever they hide, and nothing hides in damage."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgevision.bundle.directory import Bundle, BundleWriter
from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Artifact, Manifest, Stage
from edgevision.bundle.onnx_bytes import PATHS, external_weights
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.targets import get_target
from edgevision.bundle.tensors import DType, TensorSpec
from edgevision.engines.ort import BUILDER
from edgevision.engines.request import BuildRequest
from edgevision.errors import BuildError, BundleFormatError, EngineLoadError
from edgevision.progress import silent
from edgevision.runtime.backends.ort import OrtProgram


def stored(name: str = "w", *, location: str | None = None) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4, 4])
    if location is None:
        tensor.raw_data = np.eye(4, dtype=np.float32).tobytes()
    else:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    return tensor


def graph(*nodes: onnx.NodeProto, weights: TensorProto | None = None) -> onnx.GraphProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    nodes = nodes or (helper.make_node("MatMul", ["x", "w"], ["y"]),)
    return helper.make_graph(list(nodes), "g", [x], [y], [weights] if weights else [])


def model(graph: onnx.GraphProto, **parts: object) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, **parts)


def inside(depth: int, tensor: TensorProto) -> onnx.GraphProto:
    found = graph(weights=tensor)
    for _ in range(depth):
        node = helper.make_node("If", ["c"], ["y"])
        node.attribute.append(helper.make_attribute("then_branch", found))
        found = graph(node)
    return found


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], value=tensor)


def in_tensors(tensor: TensorProto) -> onnx.GraphProto:
    node = helper.make_node("Foo", ["x"], ["y"])
    node.attribute.append(onnx.AttributeProto(name="t", tensors=[stored(), tensor]))
    return graph(node)


def sparse(tensor: TensorProto) -> onnx.GraphProto:
    found = graph()
    found.sparse_initializer.append(onnx.SparseTensorProto(values=stored(), indices=tensor))
    return found


def function(tensor: TensorProto) -> onnx.ModelProto:
    made = helper.make_function("d", "F", [], ["y"], [constant(tensor)], [])
    return model(graph(), functions=[made])


def training(tensor: TensorProto) -> onnx.ModelProto:
    found = model(graph())
    found.training_info.append(onnx.TrainingInfoProto(algorithm=graph(weights=tensor)))
    return found


PLACES: dict[str, Callable[[TensorProto], onnx.ModelProto]] = {
    "an initializer": lambda tensor: model(graph(weights=tensor)),
    "a branch": lambda tensor: model(inside(1, tensor)),
    "branches in branches": lambda tensor: model(inside(20, tensor)),
    "a constant": lambda tensor: model(graph(constant(tensor))),
    "a list of tensors": lambda tensor: model(in_tensors(tensor)),
    "sparse indices": lambda tensor: model(sparse(tensor)),
    "a function": function,
    "a training step": training,
}


@pytest.mark.parametrize("place", PLACES)
def test_they_are_found_wherever_they_hide(place: str) -> None:
    assert external_weights(PLACES[place](stored()).SerializeToString()) is None
    hidden = PLACES[place](stored("far", location="outside.bin"))
    assert external_weights(hidden.SerializeToString()) == "far"


def test_every_way_to_a_tensor_is_walked() -> None:
    """Held against onnx's own descriptors, of whatever version is installed."""

    def leads(message: Descriptor, seen: tuple[str, ...]) -> bool:
        return message.name == "TensorProto" or any(
            field.message_type is not None
            and field.message_type.name not in seen
            and leads(field.message_type, (*seen, message.name))
            for field in message.fields
        )

    pending, walked = [onnx.ModelProto.DESCRIPTOR], set()
    while pending:
        message = pending.pop()
        if message.name in walked or message.name == "TensorProto":
            continue
        walked.add(message.name)
        ways = {
            field.number: field.message_type.name
            for field in message.fields
            if field.message_type is not None and leads(field.message_type, ())
        }
        assert PATHS[message.name] == ways, message.name
        pending += [field.message_type for field in message.fields if field.number in ways]
    assert walked | {"TensorProto"} == set(PATHS)
    numbers = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
    assert [numbers[name] for name in ("name", "external_data", "data_location")] == [8, 13, 14]


@pytest.mark.parametrize(
    "content",
    [
        b"nonsense",
        b"\x3a\x05\x0a",  # a graph that ends too soon
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length without an end
        b"\x3b\x3c",  # a group
        b"\x00\x00",  # field 0
        b"\xba\x80\x80\x80\x10\x00",  # field 7, after another parser's 32 bits are full
        b"\x0d\x00",  # four bytes, of which one is there
    ],
)
def test_what_is_no_onnx_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        external_weights(content)
    with pytest.raises(EngineLoadError, match="it is not an ONNX file"):
        OrtProgram(content)


WHOLE = PLACES["branches in branches"](stored("far", location="outside.bin")).SerializeToString()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(0, 2))
def test_whatever_onnx_reads_is_seen_as_onnx_sees_it(place: int, byte: int, kind: int) -> None:
    """Of changed bytes: refused, or as the parser of onnx itself finds it."""
    changed = bytearray(WHOLE)
    if kind == 0:
        changed[place] = byte
    elif kind == 1:
        changed.insert(place, byte)
    else:
        del changed[place]
    try:
        found = external_weights(bytes(changed))
    except ValueError:
        return
    read = onnx.ModelProto()
    try:
        read.ParseFromString(bytes(changed))
    except Exception:
        return
    if "EXTERNAL" in str(read) or "external_data" in str(read):
        assert found is not None


def written(path: Path, content: bytes) -> Bundle:
    x, y = (TensorSpec(name, DType.FLOAT32, (1, 4)) for name in "xy")
    artifact = Artifact("host-cpu", ORT, "host-cpu.onnx", "1")
    stage = Stage("main", "model.onnx", (x,), (y,), {"y": Tolerance(1e-5, 0)}, {}, (artifact,))
    samples = np.ones((2, 1, 4), np.float32)
    whole = PLACES["an initializer"](stored()).SerializeToString()
    with BundleWriter(path) as writer:
        writer.add("model.onnx", whole)
        writer.add("host-cpu.onnx", content)
        writer.add_golden("main", {"x": samples}, {"y": samples})
        return writer.publish(Manifest("net", "tensors", "fp32", {}, (stage,), (), {}))


def test_no_bundle_is_published_loaded_or_built_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = PLACES["an initializer"](stored("far", location="outside.bin")).SerializeToString()
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would look
    (tmp_path / "outside.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    with pytest.raises(BundleFormatError, match=r"'host-cpu\.onnx' keeps the weights 'far'"):
        written(tmp_path / "road.ev", content)
    assert not (tmp_path / "road.ev").exists()
    with pytest.raises(EngineLoadError, match="keeps the weights 'far' in another file"):
        OrtProgram(content)
    (tmp_path / "net.onnx").write_bytes(content)
    for target in ("host-cpu", "local-cpu"):
        request = BuildRequest(tmp_path / "net.onnx", get_target(target), tmp_path / "engine")
        with pytest.raises(BuildError, match="keeps the weights 'far' in another file"):
            BUILDER.build(request, silent)


def test_a_pipe_for_weights_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "outside.bin")
    with pytest.raises(EngineLoadError, match="in another file"):
        OrtProgram(PLACES["a branch"](stored(location="outside.bin")).SerializeToString())

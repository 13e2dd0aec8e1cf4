"""Models with their own tensors: old ONNX files, dynamic batches, several inputs, hostile files."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import edgevision
from edgevision.bundle.tensors import DYNAMIC, DType, ShapeProfile, TensorSpec
from edgevision.errors import ExportError, FileReadError, FrameError
from edgevision.export import Tensors
from edgevision.export.samples import calibration_samples
from tests.parts.nets import run


def onnx_file(path: Path, *, opset: int = 11, batch: int | str = "n") -> Path:
    """Write a model of two inputs; its Squeeze has axes as an attribute, as before opset 13."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["a", "b"], ["s"]),
            helper.make_node("Unsqueeze", ["s"], ["u"], axes=[2]),
            helper.make_node("Squeeze", ["u"], ["q"], axes=[2]),
            helper.make_node("MatMul", ["q", "w"], ["y"]),
        ],
        "old",
        [helper.make_tensor_value_info(n, 1, [batch, 3]) for n in ("a", "b")],
        [helper.make_tensor_value_info("y", 1, [batch, 2])],
        [numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def feed(batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    return {n: rng.normal(size=(batch, 3)).astype(np.float32) for n in ("a", "b")}


def test_an_old_file_with_two_inputs_and_a_dynamic_batch(tmp_path: Path) -> None:
    adapter = Tensors(onnx_file(tmp_path / "old.onnx"))
    assert adapter.inputs[0] == TensorSpec("a", DType.FLOAT32, (DYNAMIC, 3))
    assert adapter.profiles["b"] == ShapeProfile((1, 3), (1, 3), (8, 3))
    model = adapter.to_onnx()
    assert model.opset_import[0].version == 20
    for batch in (1, 5):
        wanted = (feed(batch)["a"] + feed(batch)["b"]) @ np.arange(6).reshape(3, 2)
        np.testing.assert_allclose(adapter.reference(feed(batch))["y"], wanted, rtol=1e-5)
        np.testing.assert_allclose(run(model, feed(batch))["y"], wanted, rtol=1e-5)


def test_a_bundle_of_it_keeps_the_profile(tmp_path: Path) -> None:
    summary = edgevision.build(
        onnx_file(tmp_path / "old.onnx"), tmp_path / "old.ev", precision="fp16",
        targets=["host-cpu", "rtx"],
    )  # fmt: skip
    with edgevision.load(summary.bundle) as model:
        for batch in (1, 8):
            wanted = (feed(batch)["a"] + feed(batch)["b"]) @ np.arange(6).reshape(3, 2)
            found = model(feed(batch)).outputs["y"]
            np.testing.assert_allclose(found, wanted, rtol=2e-2, atol=2e-2)
        with pytest.raises(FrameError, match="outside the profile"):
            model(feed(9))


class TwoAnswers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x) + y, x.argmax(1)


def test_a_module_with_several_inputs_and_outputs() -> None:
    torch.manual_seed(0)
    specs = [
        TensorSpec("x", DType.FLOAT32, (DYNAMIC, 3)),
        TensorSpec("y", DType.FLOAT32, (DYNAMIC, 2)),
    ]
    adapter = Tensors(TwoAnswers(), inputs=specs)
    model = adapter.to_onnx()
    for batch in (1, 4, 8):
        fed = {"x": np.ones((batch, 3), np.float32), "y": np.full((batch, 2), 2, np.float32)}
        wanted, found = adapter.reference(fed), run(model, fed)
        assert wanted.keys() == found.keys() == {"output0", "output1"}
        np.testing.assert_allclose(found["output0"], wanted["output0"], rtol=1e-5)
        np.testing.assert_array_equal(found["output1"], wanted["output1"])


def test_int8_of_plain_tensors_from_npz_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for i in range(16):
        arrays = {name: rng.normal(size=(2, 3)).astype(np.float32) for name in ("a", "b")}
        np.savez(tmp_path / "data" / f"{i}.npz", **arrays)
    summary = edgevision.build(
        onnx_file(tmp_path / "old.onnx"), tmp_path / "o.ev", precision="int8",
        calibration=tmp_path / "data",
    )  # fmt: skip
    assert summary.bundle.manifest.provenance["calibration_count"] == "16"
    (tmp_path / "data" / "5.npz").write_bytes(b"nonsense")
    with pytest.raises(FileReadError, match=r"5\.npz: cannot be read as inputs"):
        edgevision.build(
            onnx_file(tmp_path / "old.onnx"), tmp_path / "o.ev", precision="int8",
            calibration=tmp_path / "data",
        )  # fmt: skip


def npy(shape: tuple[int, ...], content: bytes, descr: str = "<f4") -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return header.getvalue() + content


def npz(*, whole: bytes | None = None, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


GOOD = npy((2, 3), bytes(24))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + bytes(60), "is not a zip file"),
        (npz(a=GOOD, b=GOOD)[:150], "is not a zip file"),
        (npz(a=GOOD), "no item named 'b.npy'"),
        (npz(a=GOOD, b=npy((1 << 30, 3), bytes(24))), r"its header says 12884901888"),
        (npz(a=GOOD, b=npy((2, 3), bytes(1000))), "'b' has 1000 bytes, its header says 24"),
        (npz(a=GOOD, b=npy((2, 4), bytes(32))), r"'b' is float32\[2, 4\], expected b: float32"),
        (npz(a=GOOD, b=npy((2, 3), bytes(48), "<f8")), r"'b' is float64\[2, 3\], expected"),
        (npz(a=GOOD, b=npy((2, 3), bytes(48), "|O")), r"'b' is object\[2, 3\], expected"),
        (npz(a=GOOD, b=b"\x93NUMPY\x07\x00" + bytes(90)), "format"),
        (npz(a=GOOD, b=b"hello"), "magic"),
        (npz(a=GOOD, b=GOOD).replace(b"a.npy", b"a.npx", 1), "differ"),
    ],
)  # fmt: skip
def test_damaged_feeds_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    adapter = Tensors(onnx_file(tmp_path / "net.onnx"))
    (tmp_path / "0.npz").write_bytes(content)
    with pytest.raises(FileReadError, match=rf"0\.npz: cannot be read as inputs: .*{message}"):
        calibration_samples(adapter, tmp_path)


def test_a_pipe_of_feeds_is_refused_and_columns_first_are_read(tmp_path: Path) -> None:
    adapter = Tensors(onnx_file(tmp_path / "net.onnx"))
    arrays = {
        name: np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)) for name in "ab"
    }
    np.savez_compressed(tmp_path / "0.npz", **arrays)
    (feeds,) = calibration_samples(adapter, tmp_path)
    np.testing.assert_array_equal(feeds["a"], arrays["a"])
    os.mkfifo(tmp_path / "1.npz")
    with pytest.raises(FileReadError, match="it is not a regular file"):
        calibration_samples(adapter, tmp_path)


def test_dynamic_axes_beyond_the_batch_need_bounds(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", 1, ["n", 3, "h", "w"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "d.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=r"dynamic on axes \[0, 2, 3\].*ShapeProfile"):
        Tensors(path)
    profile = ShapeProfile((1, 3, 8, 8), (1, 3, 16, 16), (2, 3, 32, 32))
    assert Tensors(path, profiles={"x": profile}).profiles == {"x": profile}
    with pytest.raises(ValueError, match=r"\['z'\] are not dynamic inputs"):
        Tensors(path, profiles={"z": profile})


def test_bad_use() -> None:
    with pytest.raises(ValueError, match="a module needs them"):
        Tensors(nn.Linear(1, 1))


@pytest.mark.parametrize("content", [b"", b"\x08\x07garbage", b"\xff" * 300])
def test_garbage_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"bad\.onnx: not a valid ONNX file"):
        Tensors(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileReadError, match="No such file"):
        Tensors(tmp_path / "nowhere.onnx")


def external(folder: Path, location: str) -> Path:
    """Write a model whose weights say that they lie at `location`."""
    path = onnx_file(folder / "e.onnx", opset=11)
    model = onnx.load(path)
    weights = model.graph.initializer[0]
    (folder / "weights.bin").write_bytes(numpy_helper.to_array(weights).tobytes())
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", location
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_beside_the_model_are_read(tmp_path: Path) -> None:
    adapter = Tensors(external(tmp_path, "weights.bin"))
    wanted = (feed(2)["a"] + feed(2)["b"]) @ np.arange(6).reshape(3, 2)
    np.testing.assert_allclose(run(adapter.to_onnx(), feed(2))["y"], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/hostname", "link.bin", "nowhere.bin", ""]
)
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 24)
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(FileReadError, match="weights of 'w'"):
        Tensors(external(tmp_path / "model", location))


def test_a_type_that_no_target_takes(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "d.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=r"tensor 'x' \(DOUBLE\)"):
        Tensors(path)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = torch.cond(x.sum() > 0, lambda y: y * 2 + 1, lambda y: y.relu() - 3, (x,))
        return answer


def test_no_path_of_this_machine_is_in_a_subgraph() -> None:
    adapter = Tensors(Branching(), inputs=[TensorSpec("x", DType.FLOAT32, (1, 4))])
    model = adapter.to_onnx()
    assert any(node.op_type == "If" for node in model.graph.node)
    data = model.SerializeToString()
    assert b".py" not in data
    assert b"stack_trace" not in data


@pytest.mark.parametrize("net", [nn.Linear(8, 4), nn.Linear(9, 4).half()])
def test_a_module_that_fails_on_its_inputs_is_told_with_them(net: nn.Module) -> None:
    adapter = Tensors(net, inputs=[TensorSpec("x", DType.FLOAT32, (1, 9))])
    with pytest.raises(ExportError, match=r"Linear fails on \(x: float32\[1, 9\]\)"):
        adapter.reference({"x": np.ones((1, 9), np.float32)})
    with pytest.raises(ExportError, match=r"Linear fails on"):
        adapter.to_onnx()

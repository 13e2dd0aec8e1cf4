"""Preflight says of small graphs what the real builder does, and names node and mend."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from edgevision.bundle.targets import get_target
from edgevision.cli import main
from edgevision.engines.registry import unavailable
from edgevision.errors import FileReadError
from edgevision.export.graph.rules import check_graph, working_bytes
from edgevision.export.preflight import preflight
from tests.engines.small_graphs import GRAPHS, model

ROOT = Path(__file__).parents[2]
ORIN = get_target("jetson-orin-jp6")
needs_rtx = pytest.mark.skipif(
    unavailable(get_target("rtx")) is not None, reason="TensorRT-RTX is not installed"
)
# What the builder takes and we refuse, and why.
ALARMS = {"doubles": "the engine narrows them to float32 without a word"}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What TensorRT-RTX made of each graph; empty if it built."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.build_outcomes", *GRAPHS],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def errors(name: str, target: str = "rtx") -> list[str]:
    findings = check_graph(model(name), get_target(target))
    return [finding.node for finding in findings if finding.severity == "error"]


def test_there_are_enough_graphs_of_both_kinds(outcomes: dict[str, str]) -> None:
    assert len(outcomes) == len(GRAPHS) >= 60
    assert sum(map(bool, outcomes.values())) >= 20
    for name in GRAPHS:
        assert all(finding.remedy for finding in check_graph(model(name), ORIN))


@needs_rtx
def test_a_builder_that_gives_no_reason_is_not_quoted(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (int8[2, 4] x, int8[4, 3] w) => (int32[2, 3] y) { y = MatMulInteger(x, w) }"""
    onnx.save(parser.parse_model(text), tmp_path / "net.onnx")
    (checked,) = preflight(tmp_path / "net.onnx", "jetson-orin-jp6")
    (found,) = [f for f in checked.findings if f.rule == "builder"]
    assert "it gives no reason; most likely it has no such operator" in found.message


@needs_rtx
@pytest.mark.parametrize("name", GRAPHS)
def test_the_rules_alone_say_what_the_builder_does(name: str, outcomes: dict[str, str]) -> None:
    found = errors(name)
    if outcomes[name]:
        assert found, f"called fine, but: {outcomes[name]}"
    else:
        assert bool(found) is (name in ALARMS), f"refused, but it builds: {found}"


@pytest.mark.parametrize(
    ("name", "node", "mend"),
    [
        ("non zero", "the_NonZero (NonZero)", "carry a mask"),
        ("asymmetric zero point", "the_QuantizeLinear", "quantise symmetrically"),
        ("int32 bias", "the_DequantizeLinear_3", "leave the bias float"),
        ("top 4000", "the_TopK (TopK)", "take fewer candidates"),
        ("uint8 before cast", "the_Transpose (Transpose)", "let Cast be the first op"),
    ],
)
@pytest.mark.parametrize("target", ["rtx", "jetson-orin-jp6", "jetson-thor"])
def test_five_broken_nets_name_node_and_mend(
    name: str, node: str, mend: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {f.node: f for f in check_graph(model(name), get_target(target))}
    assert mend in found[node].remedy
    if target == "jetson-orin-jp6":
        file = tmp_path / "net.onnx"
        onnx.save(model(name), file)
        assert main(["check", str(file), "--target", target]) == 1
        told = capsys.readouterr().out
        assert f"error: {node}: " in told
        assert mend in told
        assert f"NOT fit for '{target}'" in told


@pytest.mark.parametrize(
    ("line", "type_", "node", "mend"),
    [
        ('y = GridSample <mode="linear"> (x, g)', "float", "y (GridSample)", "leave the mode out"),
        (
            'y = GridSample <mode="cubic"> (x, g)',
            "float",
            "y (GridSample)",
            "no word that opset 20",
        ),
        ("y = ReduceL2 (x)", "float16", "y (ReduceL2)", "compute in float32"),
        ("y = ReduceLogSumExp (x)", "float16", "y (ReduceLogSumExp)", "compute in float32"),
        ("y = ReduceSumSquare (x)", "float16", "y (ReduceSumSquare)", "compute in float32"),
    ],
)
def test_what_tensorrt_computes_otherwise_is_found(
    line: str, type_: str, node: str, mend: str
) -> None:
    made = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g '
        f"({type_}[1,8,7,7] x, float[1,7,7,2] g) => ({type_}[a,b,c,d] y) {{ {line} }}"
    )
    (found,) = [f for f in check_graph(made, ORIN) if f.rule in ("grid sample", "overflow")]
    assert found.node == node
    assert mend in found.remedy


@pytest.mark.parametrize("line", ["y = GridSample (x, g)", "y = ReduceL2 (x)"])
def test_what_every_tensorrt_computes_alike_is_not(line: str) -> None:
    made = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g '
        f"(float[1,8,7,7] x, float[1,7,7,2] g) => (float[a,b,c,d] y) {{ {line} }}"
    )
    assert not [f for f in check_graph(made, ORIN) if f.rule in ("grid sample", "overflow")]


@needs_rtx
def test_a_sound_net_is_fit_and_says_who_proved_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.onnx"
    onnx.save(model("uint8 camera"), file)
    assert main(["check", str(file), "--target", "jetson-orin-nano-jp6", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (graph,) = told["graphs"]
    assert told["passed"]
    assert graph["findings"] == []
    assert graph["builder"].startswith("TensorRT-RTX 1.")
    assert graph["engine_bytes"] > 10_000


@needs_rtx
def test_what_the_builder_alone_finds_is_a_finding(tmp_path: Path) -> None:
    # No rule knows this one: a pad of a string-typed axis; the parser does.
    made = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[4] x) => (float[8] y, float n)'
        "{ n = NegativeLogLikelihoodLoss (x2, t) y = Concat <axis=0> (x, x) }"
    )
    made.graph.node[0].name = "the_loss"
    for name, kind, shape in (("x2", 1, (2, 3)), ("t", 7, (2,))):
        made.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    file = tmp_path / "net.onnx"
    onnx.save(made, file)
    (checked,) = preflight(file, "rtx")
    assert not checked.passed
    assert [(f.rule, f.severity) for f in checked.findings] == [("builder", "error")]
    assert "NegativeLogLikelihoodLoss" in checked.findings[0].node
    assert checked.builder.startswith("TensorRT-RTX refused it")


@pytest.mark.parametrize(
    ("opset", "target", "is_found"),
    [(20, "jetson-orin-jp6", False), (21, "jetson-orin-jp6", True), (21, "jetson-thor", False)],
)
def test_an_opset_that_the_parser_does_not_read(opset: int, target: str, is_found: bool) -> None:
    found = check_graph(model("conv", opset=opset), get_target(target))
    assert [f.rule for f in found] == (["opset"] if is_found else [])


def test_types_are_held_against_the_gpu() -> None:
    made = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[4] x) => (float[4] y)'
        "{ h = Cast <to=17> (x) y = Cast <to=1> (h) }"
    )
    rules = {
        t: [f.rule for f in check_graph(made, get_target(t))] for t in ("jetson-orin-jp6", "h100")
    }
    assert rules == {"jetson-orin-jp6": ["type"], "h100": []}


def test_a_dla_is_told_of_and_stops_nothing() -> None:
    assert check_graph(model("einsum"), get_target("jetson-thor")) == []
    (note,) = check_graph(model("einsum"), get_target("jetson-agx-orin-jp6"))
    assert (note.severity, note.rule) == ("note", "dla")
    assert "Einsum" in note.message


def test_memory_is_estimated_by_what_is_alive_at_once(tmp_path: Path) -> None:
    # x stays alive for the second op; a is dead after it, so two maps and the weights count.
    megabyte = 1 << 18
    made = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> '
        f"g (float[{megabyte}] x) => (float[{megabyte}] y)"
        "{ a = Relu (x) b = Neg (a) c = Abs (b) y = Add (c, w) }"
    )
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "w"))
    assert working_bytes(made) == 2 * 4 * megabyte + 4
    board = tmp_path / "board.toml"
    board.write_text('name = "tiny"\ntitle = "t"\nflavour = "trt"\nmemory_bytes = 1000000\n')
    file = tmp_path / "net.onnx"
    onnx.save(made, file)
    (checked,) = preflight(file, str(board))
    assert [f.rule for f in checked.findings if f.severity == "error"] == ["memory"]


def test_an_open_size_is_not_called_proven(tmp_path: Path) -> None:
    made = model("softmax")
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    file = tmp_path / "net.onnx"
    onnx.save(made, file)
    (checked,) = preflight(file, "rtx")
    assert ("profile", "warning") in [(f.rule, f.severity) for f in checked.findings]
    assert "no builder was asked" in checked.builder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a valid ONNX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a valid ONNX file"),
        (b"hello, this is text and no model at all", "not a valid ONNX file"),
    ],
)
def test_other_files_are_refused_kindly(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(content)
    assert main(["check", str(file), "--target", "rtx"]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_an_external_one_and_a_huge_one(tmp_path: Path) -> None:
    with pytest.raises(FileReadError, match="No such file or directory; expected an ONNX file"):
        preflight(tmp_path / "gone.onnx", "rtx")
    onnx.save(model("conv"), tmp_path / "split.onnx", save_as_external_data=True, size_threshold=0)
    (checked,) = preflight(tmp_path / "split.onnx", "rtx")
    assert checked.passed, "as build takes it"
    huge = tmp_path / "huge.onnx"
    with huge.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(FileReadError, match="larger than 2147483647 bytes"):
        preflight(huge, "rtx")
    with pytest.raises(ValueError, match="unknown target"):
        preflight(tmp_path / "split.onnx", "jetson-nano")

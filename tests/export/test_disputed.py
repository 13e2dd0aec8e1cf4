"""What runtimes read in two ways is refused, with what to write; what they agree on is not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgevision.errors import ExportError
from edgevision.export.graph.disputed import refuse_disputed


def resized(
    scales: list[float] | None, mode: str = "align_corners", *, inside: bool = False
) -> onnx.ModelProto:
    """Return a resize of float32[1, 1, 3, 5] by `scales`; None: they are an input."""
    value = helper.make_tensor_value_info
    node = helper.make_node(
        "Resize", ["x", "", "scales"], ["y"], "grow", mode="linear",
        coordinate_transformation_mode=mode,
    )  # fmt: skip
    stored = [] if scales is None else [numpy_helper.from_array(np.array(scales, "f4"), "scales")]
    given = [value("x", 1, [1, 1, 3, 5])] + [value("scales", 1, [4])] * (scales is None)
    nodes, ends = [node], [value("y", 1, [None] * 4)]
    if inside:
        branch = helper.make_graph(nodes, "branch", [], ends)
        nodes = [helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)]
        given.append(value("c", 9, []))
        ends = [value("z", 1, [None] * 4)]
    graph = helper.make_graph(nodes, "g", given, ends, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_scales_that_give_no_whole_sizes_are_refused() -> None:
    with pytest.raises(ExportError, match=r"'grow' \(Resize\): scales .*no whole sizes.*stored"):
        refuse_disputed(resized([1, 1, 1.5, 1.5]))
    with pytest.raises(ExportError, match="no whole sizes"):
        refuse_disputed(resized([1, 1, 1.5, 1.5], inside=True))
    with pytest.raises(ExportError, match="its scales are the graph's input 'scales'"):
        refuse_disputed(resized(None))


def test_what_all_read_alike_is_taken() -> None:
    refuse_disputed(resized([1, 1, 2, 3]))
    refuse_disputed(resized([1, 1, 1.5, 1.5], "half_pixel"))
    refuse_disputed(resized(None, "half_pixel"))


@pytest.mark.parametrize("inputs", [["x", "i"], ["x", "i", "size"]])
def test_an_output_shape_of_an_unpooling_is_refused(inputs: list[str]) -> None:
    value = helper.make_tensor_value_info
    node = helper.make_node("MaxUnpool", inputs, ["y"], "back", kernel_shape=[2, 2], strides=[2, 2])
    given = [value("x", 1, [1, 1, 2, 2]), value("i", 7, [1, 1, 2, 2]), value("size", 7, [4])]
    graph = helper.make_graph([node], "g", given[: len(inputs)], [value("y", 1, [None] * 4)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    if len(inputs) == 2:
        refuse_disputed(model)
    else:
        with pytest.raises(ExportError, match="Leave output_shape out, and pad"):
            refuse_disputed(model)

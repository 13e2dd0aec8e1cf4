"""What runtimes read in two ways, so that no answer is right: refused where a file is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from edgevision.errors import ExportError
from edgevision.export.graph.subgraphs import nested

_SIZES = (
    "With align_corners some runtimes place the corners by the scale, some by the size: give sizes "
    "that are stored, not scales."
)


def refuse_disputed(model: onnx.ModelProto) -> None:
    """Refuse a graph with an operator whose answer hangs on who computes it.

    Raises:
        ExportError: it has one; the message says what to write.
    """
    typed = onnx.shape_inference.infer_shapes(model)
    graphs = [*nested(typed.graph)]
    # A body reads what stands outside it; no name stands for two things.
    stored = {i.name: i for graph in graphs for i in graph.initializer}
    sizes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for graph in graphs
        for value in (*graph.input, *graph.value_info)
    }
    given = {value.name for graph in graphs for value in graph.input}
    for graph in graphs:
        for node in graph.node:
            if reason := _reason(node, stored, sizes, given):
                raise ExportError(
                    f"node '{node.name or node.output[0]}' ({node.op_type}): {reason}"
                )


def _reason(
    node: onnx.NodeProto,
    stored: Mapping[str, onnx.TensorProto],
    sizes: Mapping[str, list[int]],
    given: Collection[str],
) -> str:
    if node.op_type == "MaxUnpool" and len(node.input) > 2 and node.input[2]:
        return (
            "ONNX Runtime takes its indices as those of the larger output_shape, ONNX as those of "
            "the pooled picture. Leave output_shape out, and pad what it gives."
        )
    modes = [a.s for a in node.attribute if a.name == "coordinate_transformation_mode"]
    if node.op_type != "Resize" or modes != [b"align_corners"] or len(node.input) < 3:
        return ""
    name, before = node.input[2], sizes.get(node.input[0], [])
    if name not in stored:
        return f"its scales are the graph's input '{name}'. {_SIZES}" if name in given else ""
    scales = numpy_helper.to_array(stored[name]).astype(np.float64)
    after = scales * before if len(before) == scales.size and all(before) else np.zeros(0)
    if np.allclose(after, np.round(after), atol=1e-3):
        return ""
    return f"scales {scales.tolist()} of {before} give no whole sizes. {_SIZES}"

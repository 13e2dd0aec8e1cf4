"""How many multiply-accumulates each layer of a graph takes for one sample."""

from __future__ import annotations

import math

import onnx

from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.observe import Profiles, observe
from edgevision.export.graph.subgraphs import body_feeds, body_model, loops
from edgevision.export.precision.placement import quantizable


def multiply_accumulates(
    graph: onnx.ModelProto, sample: Feeds, profiles: Profiles
) -> dict[str, int]:
    """Return the multiply-accumulates of each layer with stored weights, by node.

    Those in loops are of all of a sample's steps. What multiplies two computed tensors, as
    attention does, is no layer here: INT8 leaves it as it is.

    Args:
        graph: a typed graph.
        sample: what is fed; its sizes count where the graph leaves one open.
        profiles: bounds of the dynamic inputs.
    """
    found: dict[str, int] = {}
    for loop in loops(graph.graph):
        body = body_model(graph, loop)
        steps = list(body_feeds(graph, loop, body, [sample], profiles))
        if steps:
            inner = multiply_accumulates(body, steps[0], {})
            found |= {name: count * len(steps) for name, count in inner.items()}
    nodes = quantizable(graph)
    # Each weight meets every place of what a layer gives, or, transposed, of what it is given.
    tensors = {n.name: n.input[0] if n.op_type == "ConvTranspose" else n.output[0] for n in nodes}
    shapes = _shapes(graph)
    open_ = [name for name in dict.fromkeys(tensors.values()) if shapes.get(name) is None]
    if open_:
        (values,) = observe(graph, open_, [sample], profiles)
        shapes |= {name: list(array.shape) for name, array in values.items()}
    weights = {i.name: list(i.dims) for i in graph.graph.initializer}
    for node in nodes:
        shape, stored = shapes[tensors[node.name]], weights[node.input[1]]
        assert shape is not None
        if node.op_type.startswith("Conv"):
            # By axis 1 of the data: outputs of a Conv, inputs of a ConvTranspose.
            found[node.name] = math.prod(shape) * (math.prod(stored) // max(1, stored[0]))
        else:
            is_turned = any(a.name == "transB" and a.i for a in node.attribute)
            found[node.name] = math.prod(shape) * (stored[-1] if is_turned else stored[-2])
    return found


def _shapes(graph: onnx.ModelProto) -> dict[str, list[int] | None]:
    """Return the shapes that are known; None where a size is open."""
    found: dict[str, list[int] | None] = {}
    for value in (*graph.graph.input, *graph.graph.value_info, *graph.graph.output):
        dims = value.type.tensor_type.shape.dim
        is_known = value.type.tensor_type.HasField("shape")
        is_known = is_known and all(d.HasField("dim_value") and d.dim_value > 0 for d in dims)
        found[value.name] = [d.dim_value for d in dims] if is_known else None
    return found

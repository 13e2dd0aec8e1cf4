"""One step of a search, exported once, made a whole search: as an ONNX Loop, or written out.

Three flat graphs are joined. `before` gives the carried tensors' first values and what stays the
same; `body` takes the number of the step, the carried tensors and what stays the same, and says
whether to go on; `after` makes the answers of what was carried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevision.bundle.tensors import NEXT

NUMBER, GOING = "step", "going"


@dataclass(frozen=True, slots=True)
class Search:
    """The parts of a search.

    Attributes:
        before: gives every name in `carried`, and all that `body` takes beside those.
        body: takes `NUMBER`, and gives `GOING` and, of each carried tensor, `name` + `NEXT`.
        after: takes some of the carried tensors.
        carried: names of the tensors that each step computes.
        steps: how many steps there are at most.
    """

    before: onnx.ModelProto
    body: onnx.ModelProto
    after: onnx.ModelProto
    carried: tuple[str, ...]
    steps: int


def make_loop(search: Search) -> onnx.ModelProto:
    """Return the search as one graph with a Loop, which ends when no caption goes on."""
    body = _prefixed(search.body.graph, "body/", keep={NUMBER, GOING})
    inner = {name: f"body/{name}" for name in search.carried}
    last = {name: f"{name}_last" for name in search.carried}
    shapes = {value.name: value for value in search.body.graph.input}
    given = [_like(shapes[NUMBER], NUMBER), _value("going_in", TensorProto.BOOL, [])]
    given += [_like(shapes[name], inner[name]) for name in search.carried]
    made = [_value(GOING, TensorProto.BOOL, [])]
    made += [_like(shapes[name], f"body/{name}{NEXT}") for name in search.carried]
    same = [v.name for v in search.body.graph.input if v.name not in {NUMBER, *search.carried}]
    nodes = _renamed(body.node, {f"body/{name}": f"before/{name}" for name in same})
    graph = helper.make_graph(nodes, "step", given, made)
    loop = helper.make_node(
        "Loop",
        ["most_steps", "at_first", *(f"before/{name}" for name in search.carried)],
        [last[name] for name in search.carried],
        "search",
        body=graph,
    )
    # Stored outside, weights can be shared and are found by whoever rewrites the graph.
    stored = [
        *body.initializer,
        numpy_helper.from_array(np.array(search.steps, np.int64), "most_steps"),
        numpy_helper.from_array(np.array(True), "at_first"),
    ]
    return _joined(search, [loop], stored, last)


def unroll(search: Search) -> onnx.ModelProto:
    """Return the search as one flat graph: every step written out, none left out."""
    body = _prefixed(search.body.graph, "body/", keep=set())
    stored = list(body.initializer)
    shared = {i.name for i in stored}
    fed = {f"body/{v.name}" for v in search.body.graph.input}
    inside = {name for node in body.node for name in (*node.input, *node.output)} - shared - fed
    inside.discard("")
    current = {name: f"before/{name}" for name in search.carried}
    nodes: list[onnx.NodeProto] = []
    for step in range(search.steps):
        number = f"step_{step}"
        stored.append(numpy_helper.from_array(np.array(step, np.int64), number))
        names = {name: f"{number}/{name.removeprefix('body/')}" for name in inside}
        names |= {name: name.replace("body/", "before/", 1) for name in fed}
        names |= {f"body/{name}": current[name] for name in search.carried}
        names[f"body/{NUMBER}"] = number
        nodes += _renamed(body.node, names, prefix=f"{number}/")
        current = {
            name: names.get(f"body/{name}{NEXT}", f"body/{name}{NEXT}") for name in search.carried
        }
    return _without_dead_ends(_joined(search, nodes, stored, current))


def _joined(
    search: Search,
    middle: Sequence[onnx.NodeProto],
    stored: Sequence[onnx.TensorProto],
    last: Mapping[str, str],
) -> onnx.ModelProto:
    """Put `middle` between what stands before and after it."""
    keep = {v.name for v in search.before.graph.input}
    before = _prefixed(search.before.graph, "before/", keep=keep)
    answers = {v.name for v in search.after.graph.output}
    after = _prefixed(search.after.graph, "after/", keep=answers)
    taken = {f"after/{name}": last[name] for name in search.carried}
    graph = helper.make_graph(
        [*before.node, *middle, *_renamed(after.node, taken)],
        "caption",
        list(search.before.graph.input),
        list(search.after.graph.output),
        [*before.initializer, *stored, *after.initializer],
    )
    model = helper.make_model(
        graph,
        opset_imports=list(search.body.opset_import),
        ir_version=search.body.ir_version,
        producer_name="edgevision",
    )
    onnx.checker.check_model(model)
    return model


def _prefixed(graph: onnx.GraphProto, prefix: str, keep: set[str]) -> onnx.GraphProto:
    """Return a copy in which every name but those in `keep` begins with `prefix`."""
    names = {i.name for i in graph.initializer} | {v.name for v in graph.input}
    names |= {name for node in graph.node for name in (*node.input, *node.output) if name}
    renames = {name: prefix + name for name in names - keep}
    copy = onnx.GraphProto()
    copy.node.extend(_renamed(graph.node, renames, prefix=prefix))
    for tensor in graph.initializer:
        copy.initializer.append(tensor)
        copy.initializer[-1].name = renames.get(tensor.name, tensor.name)
    return copy


def _renamed(
    nodes: Sequence[onnx.NodeProto], names: Mapping[str, str], prefix: str = ""
) -> list[onnx.NodeProto]:
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = prefix + node.name
        copy.input[:] = [names.get(name, name) for name in node.input]
        copy.output[:] = [names.get(name, name) for name in node.output]
        copies.append(copy)
    return copies


def _without_dead_ends(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the nodes that no answer needs: what the last step carries on, and whether to go on."""
    wanted = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            wanted.update(node.input)
            kept.append(node)
    stored = [i for i in model.graph.initializer if i.name in wanted]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(kept))
    model.graph.initializer.extend(stored)
    return model


def _like(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def _value(name: str, dtype: int, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)

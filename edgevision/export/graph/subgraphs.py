"""The body of a Loop as a graph of its own: taken out, fed as the Loop feeds it, and put back.

What rewrites flat graphs so rewrites loops as well. Inputs and outputs of the body keep their
types, so what a loop carries stays in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgevision.bundle.flavours import ORT
from edgevision.bundle.tensors import Array
from edgevision.errors import ExportError
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.graph.capture import serialized
from edgevision.export.graph.observe import Profiles, observe, typed
from edgevision.runtime.session import Session

MOST_FEEDS = 512
"""A body runs many times a sample: no more than so many of its inputs are held in memory."""


def loops(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """List the Loop nodes of a graph."""
    return [node for node in graph.node if node.op_type == "Loop"]


def loop_body(loop: onnx.NodeProto) -> onnx.GraphProto:
    """Return a Loop's body."""
    (body,) = (attribute.g for attribute in loop.attribute if attribute.name == "body")
    assert isinstance(body, onnx.GraphProto)
    return body


def nested(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Give a graph, and every graph inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nested(attribute.g)


def without_unread(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the stored values that nothing reads, in place."""
    graph = model.graph
    read = names_read(graph.node) | {output.name for output in graph.output}
    kept = [i for i in graph.initializer if i.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


def names_read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Return the names that nodes read, and that graphs inside them do."""
    return {name for node in nodes for name in (*node.input, *captured(node))}


def check_names(option: str, model: onnx.ModelProto, names: Collection[str]) -> None:
    """Refuse names that are no node's and no op type's, also inside loops.

    Raises:
        ExportError: `names`, given as `option`, has such a one.
    """
    nodes = [node for graph in nested(model.graph) for node in graph.node]
    known = {node.name for node in nodes} | {node.op_type for node in nodes}
    if unknown := sorted(set(names) - known):
        raise ExportError(f"{option}: no node or op type is called {', '.join(unknown)}")


def captured(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node's graphs read from outside."""
    found = set[str]()
    for attribute in node.attribute:
        if not attribute.HasField("g"):
            continue
        inside = {v.name for v in attribute.g.input} | {i.name for i in attribute.g.initializer}
        read = {output.name for output in attribute.g.output}
        for part in attribute.g.node:
            inside.update(part.output)
            read.update(part.input)
            read |= captured(part)
        found |= read - inside - {""}
    return found


def rename_captured(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Let a node's graphs read other names from outside, in place."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for part in attribute.g.node:
                part.input[:] = [names.get(name, name) for name in part.input]
                rename_captured(part, names)
            for output in attribute.g.output:  # a body may give what it reads
                output.name = names.get(output.name, output.name)


def body_model(model: onnx.ModelProto, loop: onnx.NodeProto) -> onnx.ModelProto:
    """Return the body of a Loop of a typed `model` as a model that takes all it reads.

    Raises:
        ExportError: the type of a tensor that it reads is not known.
    """
    body = loop_body(loop)
    stored = {i.name: i for i in model.graph.initializer}
    known = {v.name: v for v in (*model.graph.input, *model.graph.value_info)}
    inputs, weights = list(body.input), list(body.initializer)
    for name in sorted(captured(loop)):
        if name in stored:
            weights.append(stored[name])
        elif name in known:
            inputs.append(known[name])
        else:
            raise ExportError(f"loop '{loop.name}' reads '{name}', whose type is not known")
    graph = helper.make_graph(body.node, loop.name, inputs, body.output, weights)
    return typed(
        helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    )


def body_feeds(
    model: onnx.ModelProto,
    loop: onnx.NodeProto,
    body: onnx.ModelProto,
    samples: Sequence[Feeds],
    profiles: Profiles,
) -> Iterator[Feeds]:
    """Give what the Loop feeds its body on `samples`, step by step."""
    inner = loop_body(loop)
    number, condition, *carried = (value.name for value in inner.input)
    needed = {value.name for value in body.graph.input} - {number, condition, *carried}
    read = list(dict.fromkeys([*(name for name in loop.input if name), *sorted(needed)]))
    stored = {
        i.name: numpy_helper.to_array(i) for i in model.graph.initializer if i.name in set(read)
    }
    computed = [name for name in read if name not in stored]
    share = max(1, MOST_FEEDS // max(1, len(samples)))
    with Session.open(serialized(body), flavour=ORT, profiles={}) as session:
        for outside in observe(model, computed, samples, profiles):
            values: dict[str, Array] = {**stored, **outside}
            steps = list(_steps(session, loop, inner, values, needed))
            yield from steps[:: -(-len(steps) // share)] if steps else ()


def put_back(loop: onnx.NodeProto, body: onnx.ModelProto) -> None:
    """Make a rewritten body the Loop's own, in place; what it reads from outside keeps its name.

    Stored values become the body's. What is stored or made in it gets a name that nothing outside
    has, since both sides were rewritten in the same way.
    """
    graph, prefix = loop_body(loop), f"{loop.name}/"
    answers = {value.name for value in graph.output}
    inside = {i.name for i in body.graph.initializer}
    inside.update(name for node in body.graph.node for name in node.output if name)
    names = {n: prefix + n for n in inside - answers if not n.startswith(prefix)}
    for tensor in body.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in body.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        rename_captured(node, names)
    own = [value.name for value in graph.input]
    kept = {value.name: value for value in graph.input}
    del graph.node[:], graph.initializer[:], graph.value_info[:], graph.input[:]
    graph.node.extend(body.graph.node)
    graph.initializer.extend(body.graph.initializer)
    graph.input.extend(kept[name] for name in own)


def _steps(
    session: Session,
    loop: onnx.NodeProto,
    inner: onnx.GraphProto,
    values: Mapping[str, Array],
    needed: Iterable[str],
) -> Iterator[Feeds]:
    number, condition, *carried = (value.name for value in inner.input)
    most, going, *first = loop.input
    state = {name: values[given] for name, given in zip(carried, first, strict=True)}
    steps: Iterable[int] = range(int(values[most])) if most else itertools.count()
    goes_on = bool(values[going]) if going else True
    taken = {spec.name for spec in session.program.inputs}
    for step in steps:
        if not goes_on:
            return
        feeds: dict[str, Array] = {
            number: np.array(step, np.int64),
            condition: np.array(True),
            **state,
            **{name: values[name] for name in needed},
        }
        feeds = {name: np.array(value) for name, value in feeds.items() if name in taken}
        yield feeds
        made = session.run(feeds)
        goes_on = bool(made[inner.output[0].name])
        state = {
            name: made[value.name] for name, value in zip(carried, inner.output[1:], strict=False)
        }

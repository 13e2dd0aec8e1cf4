"""Whether an ONNX file brings its weights with it, from its bytes only: no onnx is needed.

A tensor may say that its values lie in another file. Nothing hashes or signs that file, and ONNX
Runtime looks for it wherever the process happens to stand. So such a graph is refused, whatever
place the tensor has: a branch, a loop's body, an attribute, a function. Source: onnx.proto of onnx
1.19, and "Encoding" in the documentation of protocol buffers.
"""

from __future__ import annotations

from edgevision.errors import EngineLoadError

# By message: the fields that lead to tensors, and what each holds. tests/export holds it against
# the descriptors of onnx itself.
PATHS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto",
        22: "SparseTensorProto", 23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}  # fmt: skip
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_weights(graph: bytes) -> str | None:
    """Return the name of a tensor whose values lie outside the file; None if there is none.

    Raises:
        ValueError: it is not an ONNX file. What another parser reads and this one does not is
            refused, so that nothing can hide from it.
    """
    pending = [("ModelProto", 0, len(graph))]
    while pending:
        message, at, end = pending.pop()
        inner, is_tensor = PATHS[message], message == "TensorProto"
        name, is_external = "", False
        while at < end:
            tag = graph[at]
            at += 1
            if tag > 127:  # seldom: a graph has ten thousand tags of one byte
                tag, at = _varint(graph, at - 1, end)
            number, kind = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise ValueError(f"field {number} of {message}")
            if kind == _BYTES:
                if at < end and graph[at] < 128:
                    size, start = graph[at], at + 1
                else:
                    size, start = _varint(graph, at, end)
                at = start + size
                if at > end:
                    raise ValueError(f"{message} ends too soon")
                if number in inner:
                    pending.append((inner[number], start, at))
                elif is_tensor and number == _NAME:
                    name = graph[start:at].decode(errors="replace")
                is_external |= is_tensor and number == _EXTERNAL_DATA
            elif kind == _VARINT:
                value, at = _varint(graph, at, end)
                is_external |= is_tensor and number == _DATA_LOCATION and value != 0
            elif kind == _FIXED32:
                at += 4
            elif kind == _FIXED64:
                at += 8
            else:  # groups, which nothing has written for 15 years
                raise ValueError(f"a field of kind {kind} in {message}")
        if at > end:
            raise ValueError(f"{message} ends too soon")
        if is_external:
            return name
    return None


def refuse_external(graph: bytes, runtime: str) -> None:
    """Refuse a graph whose weights `runtime` would look for in another file.

    Raises:
        EngineLoadError: it is such a graph, or no ONNX file.
    """
    try:
        found = external_weights(graph)
    except ValueError as error:
        raise EngineLoadError(
            f"{runtime} cannot load the graph: it is not an ONNX file, or damaged: {error}"
        ) from error
    if found is not None:
        raise EngineLoadError(
            f"{runtime} cannot load the graph: it keeps the weights {found[:80]!r} in another "
            "file, which nothing has checked. Build it again from a model in one file"
        )


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number without an end")

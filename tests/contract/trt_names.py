"""Which TensorRT names a source file uses, read from its syntax tree."""

from __future__ import annotations

import ast

# What the seam files call their objects, and the class that each is an instance of.
CLASSES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "parser_error": "ParserError",
    "profile": "IOptimizationProfile",
    "tensor": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}


def names_used(source: str) -> set[str]:
    """Return dotted names such as `IBuilderConfig.progress_monitor` that are used unguarded.

    Found are attributes of the module `trt`, of objects named as in `CLASSES`, and methods that a
    class derived from one of TensorRT's overrides. A name that the same file asks for with
    `hasattr(owner, "name")` is guarded.
    """
    tree = ast.parse(source)
    found: set[str] = set()
    guarded: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := _dotted(node)):
            found.add(name)
        elif isinstance(node, ast.ClassDef):
            found |= _overrides(node)
        elif isinstance(node, ast.Call) and (name := _asked_for(node)):
            guarded.add(name)
    return {name for name in found if not any(f"{name}.".startswith(f"{g}.") for g in guarded)}


def _dotted(node: ast.Attribute) -> str | None:
    parts: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        parts.insert(0, inner.attr)
        inner = inner.value
    if not isinstance(inner, ast.Name):
        return None
    if inner.id == "trt":
        return ".".join(parts)
    if inner.id in CLASSES:
        # Beyond the first attribute it is another object.
        return f"{CLASSES[inner.id]}.{parts[0]}"
    return None


def _overrides(node: ast.ClassDef) -> set[str]:
    bases = [b.attr for b in node.bases if isinstance(b, ast.Attribute) and _dotted(b)]
    return {
        f"{base}.{item.name}"
        for base in bases
        for item in node.body
        if isinstance(item, ast.FunctionDef) and not item.name.startswith("__")
    }


def _asked_for(node: ast.Call) -> str | None:
    if not (isinstance(node.func, ast.Name) and node.func.id == "hasattr" and len(node.args) == 2):
        return None
    owner, name = node.args
    if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
        return None
    return _dotted(ast.Attribute(value=owner, attr=name.value, ctx=ast.Load()))

"""Which TensorRT names a source file uses, read from its syntax tree.

A name is a path from the module, with `()` for what a call gives: `Builder().create_network()` is a
network, and `IBuilderConfig()` is also what a variable annotated `tensorrt.IBuilderConfig` holds.
Setting an attribute is told by ` =` behind it. What an object's type cannot be told from its
creation or annotation is not followed, so annotate parameters: `untold` lists those that are not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager

MODULES = ("tensorrt", "tensorrt_rtx")


def names_used(source: str) -> set[str]:
    """Return the names that are used where no `hasattr` asks for them first."""
    reader = _Reader()
    reader.visit(ast.parse(source))
    return reader.found


def modules_required(source: str) -> set[str]:
    """Return which of TensorRT's modules a file imports; empty where it is handed one."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {module for call in calls if (module := _required(call))}


def untold(source: str) -> list[str]:
    """Return the parameters annotated Any, which might hide an object of TensorRT's."""
    return [
        f"{node.name}({argument.arg})"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
        for argument in (*node.args.args, *node.args.kwonlyargs)
        if isinstance(argument.annotation, ast.Name) and argument.annotation.id == "Any"
    ]


class _Reader(ast.NodeVisitor):
    """Follows TensorRT's objects through a file; scopes map a variable to its path, or to None."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._scopes: list[dict[str, str | None]] = [dict.fromkeys(MODULES, "")]
        self._guards: list[str] = []

    def path(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return next((s[node.id] for s in reversed(self._scopes) if node.id in s), None)
        if isinstance(node, ast.Attribute):
            base = self.path(node.value)
            return None if base is None else f"{base}.{node.attr}".lstrip(".")
        if isinstance(node, ast.Call):
            if _required(node):
                return ""
            base = self.path(node.func)
            return f"{base}()" if base else None
        return None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        path = self.path(node)
        if path and not any(f"{path}.".startswith(f"{guard}.") for guard in self._guards):
            self.found.add(path + " =" * isinstance(node.ctx, ast.Store))

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._bind(target, self.path(node.value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
        self._bind(node.target, self._annotated(node.annotation))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.generic_visit(node)
        self._bind(node.target, self.path(node.value))

    def visit_For(self, node: ast.For) -> None:
        self._bind(node.target, None)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        self._scopes.append({each.arg: self._annotated(each.annotation) for each in arguments})
        for statement in node.body:
            self.visit(statement)
        self._scopes.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in filter(None, map(self.path, node.bases)):
            self.found |= {
                f"{base}.{item.name}"
                for item in node.body
                if isinstance(item, ast.FunctionDef) and not item.name.startswith("_")
            }
        self.generic_visit(node)

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        self.visit(node.test)
        with self._guarded([node.test]):
            for each in node.body if isinstance(node.body, list) else [node.body]:
                self.visit(each)
        for each in node.orelse if isinstance(node.orelse, list) else [node.orelse]:
            self.visit(each)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit_If(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for i, value in enumerate(node.values):
            with self._guarded(node.values[:i] if isinstance(node.op, ast.And) else []):
                self.visit(value)

    def _bind(self, target: ast.expr, path: str | None) -> None:
        if isinstance(target, ast.Name):
            self._scopes[-1][target.id] = path
        elif isinstance(target, ast.Tuple | ast.List):
            for element in target.elts:
                self._bind(element, None)

    def _annotated(self, annotation: ast.expr | None) -> str | None:
        if isinstance(annotation, ast.BinOp):
            # X | None
            return self._annotated(annotation.left)
        if isinstance(annotation, ast.Name):
            return "" if annotation.id == "ModuleType" else None
        if isinstance(annotation, ast.Attribute) and (path := self.path(annotation)):
            self.visit(annotation)
            return f"{path}()"
        return None

    @contextmanager
    def _guarded(self, tests: list[ast.expr]) -> Iterator[None]:
        asked = [self._asked_for(part) for test in tests for part in _anded(test)]
        kept, self._guards = self._guards, [*self._guards, *filter(None, asked)]
        yield
        self._guards = kept

    def _asked_for(self, node: ast.expr) -> str | None:
        match node:
            case ast.Call(func=ast.Name(id="hasattr"), args=[owner, ast.Constant(value=str(name))]):
                return self.path(ast.Attribute(value=owner, attr=name, ctx=ast.Load()))
        return None


def _anded(test: ast.expr) -> list[ast.expr]:
    return test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]


def _required(call: ast.Call) -> str | None:
    match call:
        case ast.Call(func=ast.Name(id="require"), args=[ast.Constant(value=str(module))]):
            return module if module in MODULES else None
    return None

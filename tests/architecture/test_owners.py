"""What a registry owns is told apart there and nowhere else: ask what a thing can, not which it is.

A comparison with one flavour works until there is another. To hold something else to the same rule,
add a row to OWNED.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgevision.bundle import flavours, forms

ROOT = Path(__file__).parents[2]
ROOMS = ("edgevision", "benchmarks", "deploy", "examples", "training")

# Methods that look up or compare what they are given.
_ASKS = {"count", "endswith", "get", "index", "pop", "setdefault", "startswith"}


@dataclass(frozen=True)
class Owned:
    """What one registry owns.

    Attributes:
        what: one of them, in words.
        homes: files and folders that may tell them apart.
        constants: Python's names for them.
        names: their names as strings.
    """

    what: str
    homes: tuple[str, ...]
    constants: frozenset[str]
    names: frozenset[str]


OWNED = (
    Owned(
        "flavour",
        ("edgevision/bundle/flavours.py",),
        frozenset(k for k, v in vars(flavours).items() if isinstance(v, flavours.Flavour)),
        frozenset(flavour.name for flavour in flavours.flavours()),
    ),
    Owned(
        "form",
        ("edgevision/bundle/forms.py",),
        # The others' names are those of precisions, which users type, and of ONNX's types.
        frozenset({"INT8_WIDE"}),
        frozenset({forms.INT8_WIDE.name}),
    ),
)


def told_apart(source: str, owned: Owned) -> list[str]:
    """Return the places in a module that compare with what is owned, or key something by it."""
    tree = ast.parse(source)
    constants = owned.constants | {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in owned.constants and alias.asname
    }

    def is_constant(node: ast.AST) -> bool:
        if isinstance(node, ast.Name):
            return node.id in constants
        return isinstance(node, ast.Attribute) and node.attr in constants

    def is_owned(node: ast.AST) -> bool:
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return any(map(is_owned, node.elts))
        return is_constant(node) or (isinstance(node, ast.Constant) and node.value in owned.names)

    def found() -> Iterator[int]:
        for node in ast.walk(tree):
            match node:
                case ast.Compare(left=left, comparators=others):
                    asked: list[ast.AST] = [left, *others]
                case ast.MatchValue(value=value):
                    asked = [value]
                case ast.MatchAs(name=str(name)) if name in constants:
                    yield node.lineno  # `case ORT:` matches anything, and was not meant to
                    continue
                case ast.Dict(keys=keys):
                    asked = [key for key in keys if key is not None]
                case ast.DictComp(key=key):
                    asked = [key]
                case ast.Subscript(slice=key):
                    asked = [key]
                case ast.Call(func=ast.Attribute(attr=method), args=arguments):
                    asked = list(arguments) if method in _ASKS else []
                case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
                    # A list of some of them is a comparison that happens elsewhere.
                    asked = [element for element in elements if is_constant(element)]
                case _:
                    continue
            if any(map(is_owned, asked)):
                yield node.lineno

    lines = source.splitlines()
    return [f"{line}: {lines[line - 1].strip()}" for line in sorted(set(found()))]


def _modules(owned: Owned) -> Iterator[Path]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            if not any(place == home or place.startswith(f"{home}/") for home in owned.homes):
                yield path


@pytest.mark.parametrize("owned", OWNED, ids=lambda owned: owned.what)
def test_nobody_but_the_registry_tells_them_apart(owned: Owned) -> None:
    modules = list(_modules(owned))
    found = [
        f"{path.relative_to(ROOT)}:{place}"
        for path in modules
        for place in told_apart(path.read_text(), owned)
    ]
    assert not found, f"each compares or keys by a {owned.what}:\n" + "\n".join(found)
    assert len(modules) > 150


@pytest.mark.parametrize(
    "planted",
    [
        "x = flavour is ORT",
        "x = flavours.ORT != flavour",
        "x = flavour in (TRT, TRT_RTX)",
        "x = flavour.name == 'trt'",
        "x = 'ort' not in names",
        "x = name in {'trt', 'trt_rtx'}",
        "x = {ORT: 1}",
        "x = {'trt': 'plan'}[flavour.name]",
        "x = {TRT: f for f in y}",
        "x = table[ORT]",
        "x = table['trt_rtx']",
        "x = table.get(TRT)",
        "x = name.startswith('trt')",
        "PLANS = (TRT, TRT_RTX)",
        "match flavour:\n    case flavours.ORT:\n        pass",
        "match name:\n    case 'ort' | 'trt':\n        pass",
        "match flavour:\n    case ORT:\n        pass",
        "from edgevision.bundle.flavours import TRT as RUNTIME\nx = flavour is RUNTIME",
        "sorted(stages, key=lambda a: a.flavour is ORT)",
    ],
)
def test_planted_comparisons_are_found(planted: str) -> None:
    assert told_apart(planted, OWNED[0])


@pytest.mark.parametrize(
    "fine",
    [
        "x = flavour.on_gpu",
        "session = Session.open(graph, flavour=ORT)",
        "ort = require('onnxruntime', extra='ort')",
        "x = one.flavour is other.flavour",
        "x = ('onnxruntime', 'ort', 'runs bundles')",
        "target = TargetProfile('host-cpu', 'any CPU', ORT)",
    ],
)
def test_what_only_names_one_is_fine(fine: str) -> None:
    assert told_apart(fine, OWNED[0]) == []

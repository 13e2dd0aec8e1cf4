"""A task is told apart in its own files only: nobody else compares or keys by a task's name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgevision.tasks.task import get_task, task_names

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "edgevision"
PROGRAMS = ("edgevision", "benchmarks", "deploy", "examples", "training", "scripts")

ADDED = ("classification", "depth", "detection")
"""Tasks that were added by adding files."""

LISTING = "edgevision/tasks/task.py"
OWN_ROOMS = ("edgevision/tasks", "edgevision/export/adapters", "edgevision/metrics")

DECODERS = {
    "edgevision/cli/demo.py": "the demo is about one shipped net, whose pictures it draws itself",
    "edgevision/cli/run.py": "--seed, --count and --out are of generators, which take no frames",
    "edgevision/runtime/model.py": "`Model.generate` exists for generators, and says so to others",
}
"""Where a decoder's class may be asked for, and why."""

ALLOWED = {
    ("edgevision/metrics/coco.py", "caption"): "COCO's own key of a caption's text",
    ("edgevision/export/source.py", "tensors"): "an ONNX file has one adapter, and takes no other",
}
"""Where a word that is a task's name may stand, and why."""


LOOK_UPS = ("get", "pop", "setdefault", "startswith", "endswith")


def _strings(node: ast.AST) -> Iterator[str]:
    """Give the strings that a comparison's side, a key or a pattern may be equal to."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        for item in node.elts:
            yield from _strings(item)


def _tasks(tree: ast.AST) -> dict[str, str]:
    """Return the variables that hold a task in a module, and the task's name."""
    return {
        alias.asname or alias.name: node.module.rpartition(".")[2]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.name == "TASK"
    }


def compared(tree: ast.AST, names: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return line and name of each comparison, key, subscript or pattern by a task."""
    found: list[tuple[int, str]] = []
    tasks = _tasks(tree)

    def note(line: int, *nodes: ast.AST | None) -> None:
        given = (text for node in nodes if node is not None for text in _strings(node))
        found.extend((line, text) for text in given if text in names)

    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            note(node.lineno, node.left, *node.comparators)
        elif isinstance(node, ast.Dict):
            note(node.lineno, *node.keys)
        elif isinstance(node, ast.Subscript):
            note(node.lineno, node.slice)
        elif isinstance(node, ast.MatchValue):
            note(node.lineno, node.value)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in LOOK_UPS:
            note(node.lineno, *node.args)
        if isinstance(node, ast.Compare):
            # `task is TASK` and `task in (None, TASK.name)` tell tasks apart as well.
            held = (x.id for x in ast.walk(node) if isinstance(x, ast.Name))
            found.extend((node.lineno, tasks[name]) for name in held if name in tasks)
    return found


def asked_decoders(tree: ast.AST) -> list[int]:
    """Return the lines where a value's class is held against a decoder's or a task's."""
    lines = []
    for node in ast.walk(tree):
        classes: list[ast.AST] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("isinstance", "issubclass") and len(node.args) == 2:
                classes = list(ast.walk(node.args[1]))
        elif isinstance(node, ast.MatchClass):
            classes = list(ast.walk(node.cls))
        names = {c.id if isinstance(c, ast.Name) else getattr(c, "attr", "") for c in classes}
        if any(name.endswith(("Decoder", "Task")) for name in names):
            lines.append(node.lineno)
    return lines


def mentioned(tree: ast.AST, names: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return line and text of each string that is one of `names`."""
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in names
    ]


def _modules(*folders: str, word: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Give each module of the folders that has the word in it, parsed."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if word in (text := path.read_text("utf-8")):
                yield path.relative_to(ROOT).as_posix(), ast.parse(text)


def test_no_module_outside_the_tasks_compares_or_keys_by_a_name() -> None:
    found = {
        (module, name): line
        for module, tree in _modules("edgevision")
        if not module.startswith("edgevision/tasks/")
        for line, name in compared(tree, task_names())
    }
    # In its own adapter and metric a task's name may be an output's, too.
    foreign = {(module, name) for module, name in found if Path(module).stem != name}
    assert foreign == set(ALLOWED), found


def test_a_decoders_class_is_asked_for_where_that_is_documented() -> None:
    found = {
        module
        for module, tree in _modules("edgevision")
        if not module.startswith("edgevision/tasks/") and asked_decoders(tree)
    }
    assert found == set(DECODERS)


@pytest.mark.parametrize("name", ADDED)
def test_a_task_that_was_added_is_its_own_files(name: str) -> None:
    own = {f"{room}/{name}.py" for room in OWN_ROOMS}
    assert all((ROOT / path).is_file() for path in own)
    found = {module for module, tree in _modules(*PROGRAMS, word=name) if mentioned(tree, (name,))}
    assert found - own == {LISTING}
    assert get_task(name).name == name


PLANTED = """
from edgevision.tasks.depth import TASK as DEPTH
if task == "depth": ...
if "depth" != task.name: ...
if task in ("semantic", "classification"): ...
HEADS = {"instance": 1}
LIMITS = limits["caption"]
OTHER = limits.get("generated")
match task:
    case "tensors": ...
    case "semantic" | "depth": ...
if task is DEPTH: ...
if task not in (None, DEPTH.name): ...
"""


def test_what_is_planted_is_found() -> None:
    found = compared(ast.parse(PLANTED), task_names())
    lines = {3: 1, 4: 1, 5: 2, 6: 1, 7: 1, 8: 1, 10: 1, 11: 2, 12: 1, 13: 1}
    assert {line: sum(at == line for at, _ in found) for line, _ in found} == lines
    harmless = 'x = "depth"\nprint("semantic")\nif a == "depths": ...\nif "x" in names: ...\n'
    assert not compared(ast.parse(harmless), task_names())


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(model.decoder, GeneratedDecoder)",
        "isinstance(x, (int, semantic.SemanticDecoder))",
        "isinstance(task, CaptionTask)",
        "match x:\n    case DepthDecoder(): ...",
    ],
)
def test_a_planted_question_for_a_class_is_found(line: str) -> None:
    assert asked_decoders(ast.parse(line))
    assert not asked_decoders(ast.parse("isinstance(x, (str, Path))\nDepthDecoder(camera)"))


def test_a_planted_name_is_found() -> None:
    assert mentioned(ast.parse('def f(task: str = "depth") -> None: ...'), ADDED) == [(1, "depth")]
    assert not mentioned(ast.parse('HOME = "edgevision.export.adapters.depth"'), ADDED)

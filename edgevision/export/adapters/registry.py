"""How a task's adapter is made of a module, found by the task's name.

Each `export/adapters/NAME.py` names its class as `ADAPTER`, and what a module lacks to be made one
by `edgevision build --task NAME` as `MODULE_REASON`; for a shipped net it has `from_card(module,
card, given)`, where `card` is what the net's model.json says; and `recognises` if a module shows by
itself that it is one.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from edgevision.export.adapters.adapter import ModelAdapter
from edgevision.tasks.semantic import TASK as SEMANTIC
from edgevision.tasks.task import Task, get_task, task_names

Size = tuple[int, int]
ClassNames = Sequence[str | tuple[str, str]]
Given = Mapping[str, Any]
"""What was given of a net beside its module, by its adapter's names: size, classes, front end."""

USUAL = SEMANTIC
"""What a module is taken for that no adapter recognises: most give logits of pixels."""

_ASKED = {"size": ("input size", "--size HxW"), "classes": ("classes", "--classes FILE")}


def recognised_task(module: nn.Module) -> Task[Any]:
    """Return the task that a module shows by itself to be for, else the usual one."""
    for name in task_names():
        task = get_task(name)
        recognises = getattr(_home(task), "recognises", None)
        if recognises is not None and recognises(module):
            return task
    return USUAL


def adapt_module(task: Task[Any], module: nn.Module, source: str, given: Given) -> ModelAdapter:
    """Return the adapter of a module that a user named.

    Args:
        task: what it is for.
        module: the module, its weights loaded.
        source: what the user typed, for messages.
        given: what was given beside it.

    Raises:
        ValueError: something that the task needs was not given, or was and is not used.
        ExportError: the module is not one of the task.
    """
    home = _home(task)
    if reason := getattr(home, "MODULE_REASON", ""):
        raise ValueError(f"'{source}': {reason}")
    taken = _taken(home, f"a net of task {task}", given)
    needed = [
        name for name in _ASKED if name in taken and taken[name].default is inspect.Parameter.empty
    ]
    if not given.keys() >= set(needed):
        titles, flags = zip(*(_ASKED[name] for name in needed), strict=True)
        raise ValueError(
            f"'{source}' needs the net's {' and '.join(titles)}: give {' and '.join(flags)} "
            f"({', '.join(f'{name}=' for name in needed)} in Python)"
        )
    found: ModelAdapter = home.ADAPTER(module, **given)
    return found


def adapt_shipped(
    task: Task[Any], module: nn.Module, card: Mapping[str, Any], given: Given
) -> ModelAdapter:
    """Return the adapter of a shipped net; `card` is what its model.json says.

    Raises:
        ValueError: something was given that the net cannot change.
    """
    home = _home(task)
    _taken(home, f"a shipped net of task {task}", given)
    found: ModelAdapter = home.from_card(module, card, given)
    return found


def refuse_options(kind: str, **options: object) -> None:
    """Refuse options that were given and would be ignored.

    Raises:
        ValueError: one was given.
    """
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: not used with {kind}, which says this itself")


def _home(task: Task[Any]) -> ModuleType:
    return importlib.import_module(f"edgevision.export.adapters.{task.name}")


def _taken(home: ModuleType, kind: str, given: Given) -> Mapping[str, inspect.Parameter]:
    """Return what a home's adapter takes; refuse what was given beside that."""
    taken = inspect.signature(home.ADAPTER).parameters
    refuse_options(kind, **{name: value for name, value in given.items() if name not in taken})
    return taken

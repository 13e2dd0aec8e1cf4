"""How a task's adapter is made of a module, found by the task's name.

Each `export/adapters/NAME.py` has `from_module`, for `edgevision build --task NAME`, and
`from_card`, for a shipped net; and `recognises` if a module shows by itself that it is one.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, cast

from torch import nn

from edgevision.export.adapters.adapter import ModelAdapter
from edgevision.tasks.semantic import TASK as SEMANTIC
from edgevision.tasks.task import Task, get_task, task_names

Size = tuple[int, int]
ClassNames = Sequence[str | tuple[str, str]]
Front = Mapping[str, Any]
"""What was given of the front end: any of `camera`, `mean` and `std`, by an adapter's names."""

NO_FRONT: Front = MappingProxyType({})

USUAL = SEMANTIC
"""What a module is taken for that no adapter recognises: most give logits of pixels."""


class AdapterHome(Protocol):
    """What the module of a task's adapter has.

    One whose model looks at frames also takes `front: Front = NO_FRONT`, for both functions.
    """

    def from_module(
        self, module: nn.Module, source: str, *, size: Size | None, classes: ClassNames | None
    ) -> ModelAdapter:
        """Return the adapter of a module that a user named.

        Args:
            module: the module, its weights loaded.
            source: what the user typed, for messages.
            size: (H, W) of the net's input, if it was given.
            classes: names or (name, "#rrggbb"), if they were given.

        Raises:
            ValueError: something that the task needs was not given, or was and is not used.
            ExportError: the module is not one of the task.
        """

    def from_card(
        self,
        module: nn.Module,
        card: Mapping[str, Any],
        *,
        size: Size | None,
        classes: ClassNames | None,
    ) -> ModelAdapter:
        """Return the adapter of a shipped net; `card` is what its model.json says.

        Raises:
            ValueError: `size` or `classes` was given, and the net cannot change them.
        """


def adapter_home(task: Task[Any]) -> AdapterHome:
    """Return the module of a task's adapter."""
    return cast(AdapterHome, importlib.import_module(f"edgevision.export.adapters.{task.name}"))


def recognised_task(module: nn.Module) -> Task[Any]:
    """Return the task that a module shows by itself to be for, else the usual one."""
    for name in task_names():
        task = get_task(name)
        recognises = getattr(adapter_home(task), "recognises", None)
        if recognises is not None and recognises(module):
            return task
    return USUAL


def call_home(make: Callable[..., ModelAdapter], task: str, front: Front, **given: Any) -> Any:
    """Return what `from_module` or `from_card` of a task makes, with the front end if it takes one.

    Raises:
        ValueError: something was given of a front end, and the task has none.
    """
    if not front:
        return make(**given)
    if "front" not in inspect.signature(make).parameters:
        refuse_options(f"task {task}", **front)
    return make(**given, front=front)


def refuse_options(kind: str, **options: object) -> None:
    """Refuse options that were given and would be ignored.

    Raises:
        ValueError: one was given.
    """
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: not used with {kind}, which says this itself")


def need_size_and_classes(
    source: str, size: Size | None, classes: ClassNames | None
) -> tuple[Size, ClassNames]:
    """Return both.

    Raises:
        ValueError: one is missing.
    """
    if size is None or not classes:
        raise ValueError(
            f"'{source}': the net's input size and classes are needed; give --size HxW and "
            "--classes FILE (size=, classes= in Python)"
        )
    return size, classes

"""A module's arguments by position or by name, and the tensors in whatever it returns."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from edgevision.errors import ExportError

_ODD = re.compile(r"[^A-Za-z0-9._-]+")


class Flat(nn.Module):
    """A user's module as one that takes tensors in order, and gives a tuple of tensors."""

    def __init__(self, module: nn.Module, keywords: Sequence[str]) -> None:
        super().__init__()
        self.module, self.keywords = module, tuple(keywords)

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of what the module gives."""
        found = called(self.module, arguments, self.keywords)
        return tuple(tensor for _, tensor in _tensors(found, ()))


def keyword_names(module: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Return `names` where the module takes them by name; nothing where it takes them in order.

    Raises:
        ValueError: it takes them neither way.
    """
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):  # TorchScript has none
        return ()
    taken = signature.parameters
    in_order = [n for n, p in taken.items() if p.kind is not p.KEYWORD_ONLY][: len(names)]
    if set(names) <= taken.keys() and in_order != list(names):
        return tuple(names)
    for by_name in (False, True):
        with contextlib.suppress(TypeError):
            signature.bind(*() if by_name else names, **dict.fromkeys(names if by_name else ()))
            return tuple(names) if by_name else ()
    raise ValueError(
        f"inputs: got {', '.join(names)}; {type(module).__name__}.forward takes {signature}. Give "
        "them in its order, or call them as it does"
    )


def called(module: nn.Module, arguments: Sequence[Tensor], keywords: Sequence[str]) -> object:
    """Return what the module gives, called by name where there are names."""
    if keywords:
        return module(**dict(zip(keywords, arguments, strict=True)))
    return module(*arguments)


def is_flat(output: object) -> bool:
    """Whether it is a tensor, or a plain tuple or list of tensors."""
    items = list(output) if type(output) in (tuple, list) else [output]  # type: ignore[call-overload]
    return all(isinstance(item, Tensor) for item in items)


def named_tensors(output: object, taken: Sequence[str]) -> list[tuple[str, Tensor]]:
    """List the tensors in what a module gives, None left out.

    A tuple's are called output0, output1 and so on, a dict's or a dataclass's by their keys.

    Args:
        output: what the module gives.
        taken: names of the inputs, which no output has.

    Raises:
        ExportError: there is none, or something else among them; says where.
    """
    found: dict[str, Tensor] = {}
    for place, tensor in _tensors(output, ()):
        words = "_".join(_ODD.sub("_", str(part)) for part in place if not isinstance(part, int))
        name = words or f"output{len(found)}"
        while name in found or name in taken:
            name = f"{name}_{len(found)}"
        found[name] = tensor
    if not found:
        raise ExportError(
            f"the module returns {type(output).__name__} without a tensor, expected a tensor, or a "
            "tuple, dict or dataclass of tensors"
        )
    return list(found.items())


def _tensors(
    output: object, place: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], Tensor]]:
    if isinstance(output, Tensor):
        yield place, output
    elif isinstance(output, Mapping):
        for key, item in output.items():
            yield from _tensors(item, (*place, str(key)))
    elif dataclasses.is_dataclass(output):
        for each in dataclasses.fields(output):
            yield from _tensors(getattr(output, each.name), (*place, each.name))
    elif isinstance(output, tuple | list):
        names = getattr(output, "_fields", range(len(output)))
        for key, item in zip(names, output, strict=True):
            yield from _tensors(item, (*place, key))
    elif output is not None:
        where = f", at {'.'.join(map(str, place))}," if place else ""
        raise ExportError(
            f"the module returns{where} {type(output).__name__}, expected a tensor, or a tuple, "
            "dict or dataclass of tensors. Return tensors alone"
        )

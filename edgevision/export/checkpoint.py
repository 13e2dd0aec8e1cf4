"""Weights as training scripts write them: found in their wrapping, and given names that fit."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgevision.bundle.files import open_plain
from edgevision.errors import ExportError, FileReadError

MAX_BYTES = 8 << 30
_MAX_DEPTH = 3
_MAX_SHOWN = 3
# Averaged weights stand last: which set was meant is the user's to say where a file has both.
_WRAPPINGS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights",
    "params", "ema", "model_ema", "state_dict_ema", "ema_state_dict", "params_ema",
)  # fmt: skip
# What checkpoints hold beside tensors: arguments of the script, and numpy's figures.
_PLAIN: list[Any] = [
    Namespace,
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    np.float64(0).__reduce__()[0],
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64", "bool")),
]

State = dict[str, torch.Tensor]


def load_weights(path: Path) -> State:
    """Read a state dict, also out of a training script's checkpoint; code in it never runs.

    Raises:
        FileReadError: the file is missing, too large, corrupt, or holds no tensors by name; says
            what it holds.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[State, list[str]]:
    """Return the weights, and what a person should know of where they were found."""
    try:
        file = open_plain(path, max_bytes=MAX_BYTES, follow_links=True)
    except OSError as error:
        raise FileReadError(f"{path}: {error.strerror}; expected a file of weights") from error
    try:
        with file:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                return load_file(path), []
            with torch.serialization.safe_globals(_PLAIN):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise whatever the bytes make them hit
        # torch's own text advises to load it all the same, which may run code: not repeated here.
        raise FileReadError(
            f"{path}: refused ({type(error).__name__}): damaged, or it holds more than tensors. "
            "Expected a safetensors file, or a PyTorch checkpoint of only tensors "
            "(torch.save(module.state_dict(), path))."
        ) from error
    return _unwrapped(content, path)


def load_into(module: nn.Module, path: Path) -> None:
    """Load the weights of `path` into `module`, less a prefix that a wrapper of it left.

    A warning says in one line where they were found, and what was left out.

    Raises:
        FileReadError: see `load_weights`.
        ExportError: the names or the shapes are not the module's; names the first of both.
    """
    wanted = module.state_dict()
    held, notes = _read(path)
    state, stripped = _without_prefix(held, wanted)
    if stripped:
        notes.append(f"took '{stripped}' from the front of every name")
    # A part that the module has nothing of is a loss, or a head of the training.
    parts, counters = {name.split(".")[0] for name in wanted}, _counters(wanted)
    if wanted.keys() - counters <= state.keys():
        state = {name: value for name, value in state.items() if name.split(".")[0] in parts}
    if left := [name for name in held if name.removeprefix(stripped) not in state]:
        notes.append(f"left out {_first(left, len(left))}")
    if reason := _misfit_reason(state, wanted):
        raise ExportError(f"{path}: does not fit {type(module).__name__}: {reason}")
    # Old files lack the counters of training, which no answer depends on.
    module.load_state_dict({name: state.get(name, value) for name, value in wanted.items()})
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", stacklevel=3)


def _unwrapped(content: object, path: Path) -> tuple[State, list[str]]:
    """Return the tensors by name inside `content`, and which keys led there."""
    keys: list[str] = []
    left: list[str] = []
    while len(keys) <= _MAX_DEPTH and isinstance(content, Mapping):
        if content and all(
            isinstance(key, str) and isinstance(value, torch.Tensor)
            for key, value in content.items()
        ):
            took = [f"took the weights under '{' > '.join(keys)}'"] if keys else []
            return dict(content), took + [f"left '{key}'" for key in left]
        held = [key for key in _WRAPPINGS if isinstance(content.get(key), Mapping)]
        if not held:
            break
        left += held[1:]
        keys.append(held[0])
        content = content[held[0]]
    inside = f" > {' > '.join(keys)}" if keys else ""
    raise FileReadError(
        f"{path}{inside}: holds no state dict (a dict of tensors by name), but {_kind(content)}. "
        "Save it so: torch.save(module.state_dict(), path)."
    )


def _kind(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"one object of type {type(content).__name__}"
    if not content:
        return "an empty dict"
    return f"a dict with {_first(map(str, content), len(content))}"


def _without_prefix(state: State, wanted: Mapping[str, Any]) -> tuple[State, str]:
    """Return `state` less the one prefix without which it has every name of `wanted`."""
    needed = wanted.keys() - _counters(wanted)
    if not needed or needed <= state.keys():
        return state, ""
    first = min(needed)
    prefixes = {
        name.removesuffix(first) for name in state if name.endswith(f".{first}") and name != first
    }
    fitting = [p for p in prefixes if all(p + name in state for name in needed)]
    if len(fitting) != 1:  # two that fit: a net and its average, or a student and its teacher
        return state, ""
    (prefix,) = fitting
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}, prefix


def _misfit_reason(state: State, wanted: Mapping[str, Any]) -> str | None:
    missing = [name for name in wanted if name not in {*state, *_counters(wanted)}]
    extra = [name for name in state if name not in wanted]
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"the file lacks {_first(missing, len(missing))}")
        if extra:
            parts.append(f"the module has no {_first(extra, len(extra))}")
        return f"{'; '.join(parts)}.{_hint(state, wanted)}"
    for name, value in wanted.items():
        if name in state and state[name].shape != value.shape:
            return (
                f"'{name}' is {list(state[name].shape)} in the file and {list(value.shape)} in the "
                "module. Make the module as it was trained: number of classes, width."
            )
    return None


def _hint(state: State, wanted: Mapping[str, Any]) -> str:
    """Return the prefixes that would fit, and what to type; empty where none would."""
    first = next(iter(wanted), "")
    fitting = sorted({n.removesuffix(first) for n in state if first and n.endswith(f".{first}")})
    if fitting:
        return (
            f" With one of these in front the names begin to fit: {_first(fitting, len(fitting))}. "
            "Keep the names that you want, without it, and save them by torch.save."
        )
    if all(name in state for name in wanted):
        return " Drop what the module does not have, and save the rest by torch.save."
    return ""


def _counters(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.endswith("num_batches_tracked")}


def _first(names: Iterable[str], count: int) -> str:
    shown = [f"'{name}'" for name, _ in zip(names, range(_MAX_SHOWN), strict=False)]
    more = f" and {count - _MAX_SHOWN} more" if count > _MAX_SHOWN else ""
    return ", ".join(shown) + more

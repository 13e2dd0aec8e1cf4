"""Weights as training scripts write them: found in their wrapping, and given names that fit."""

from __future__ import annotations

import pathlib
import re
import warnings
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
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
    datetime,
    *((pathlib.PurePosixPath, f"pathlib{inner}.PosixPath") for inner in ("", "._local")),
    *((pathlib.PureWindowsPath, f"pathlib{inner}.WindowsPath") for inner in ("", "._local")),
    *(
        (made.__reduce__()[0], f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name, made in (("scalar", np.float64(0)), ("_reconstruct", np.zeros(1)))
    ),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "uint8", "uint32", "int32")),
    *(type(np.dtype(kind)) for kind in ("int64", "bool")),
]
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_SAVE = "torch.save(module.state_dict(), path)"

State = dict[str, torch.Tensor]
Found = tuple[tuple[str, ...], State]
"""The keys that lead to a state dict in a checkpoint, and it."""


def load_weights(path: Path) -> State:
    """Read a state dict, also out of a training script's checkpoint; code in it never runs.

    Raises:
        FileReadError: the file is missing, too large, corrupt, or holds no tensors by name; says
            what it holds.
    """
    return _states(_content(path), path)[0][1]


def load_into(module: nn.Module, path: Path) -> None:
    """Load the weights of `path` into `module`, less a prefix that a wrapper of it left.

    A warning says in one line where they were found, and what was left out.

    Raises:
        FileReadError: see `load_weights`.
        ExportError: the names or the shapes are not the module's, or several sets of weights are;
            names the first of both.
    """
    own = {_uncompiled(name): (name, value) for name, value in module.state_dict().items()}
    wanted = {name: value for name, (_, value) in own.items()}
    (keys, held), others = _chosen(_states(_content(path), path), wanted, path)
    held = {_uncompiled(name): value for name, value in held.items()}
    notes = [f"took the weights under '{' > '.join(keys)}'"] if keys else []
    notes += [f"left '{' > '.join(other)}'" for other in others]
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
    module.load_state_dict({real: state.get(name, value) for name, (real, value) in own.items()})
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", stacklevel=3)


def _uncompiled(name: str) -> str:
    """Return a name without what torch.compile puts before each compiled part."""
    return name.replace("_orig_mod.", "")


def _content(path: Path) -> object:
    """Return what a file of weights holds; by its content, for names say little."""
    try:
        file = open_plain(path, max_bytes=MAX_BYTES, follow_links=True)
    except OSError as error:
        raise FileReadError(f"{path}: {error.strerror}; expected a file of weights") from error
    try:
        with file:
            start = file.read(9)
            if start[8:] == b"{":  # behind the length of its header in JSON
                from safetensors.torch import load_file

                return load_file(path)
            file.seek(0)
            with torch.serialization.safe_globals(_PLAIN):
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise whatever the bytes make them hit
        # torch's own text advises to load it all the same, which may run code: not repeated here.
        raise FileReadError(f"{path}: refused: {_refusal(str(error), start)}") from error


def _refusal(said: str, start: bytes) -> str:
    """Return why a file was not read, and what to type, by what torch said of it."""
    how = "torch.load(PATH, weights_only=False)"
    if "TorchScript" in said:
        reason, how = "it is a TorchScript archive", "torch.jit.load(PATH)"
    elif named := _GLOBAL.search(said):
        reason = f"it holds more than tensors, a {named[1]}, which only its own code can read"
    else:
        return (
            "damaged, or it holds more than tensors. Expected a safetensors file, or a PyTorch "
            f"checkpoint of only tensors ({_SAVE})."
        )
    return (
        f"{reason}. If you trust whoever made it, write only the tensors where it was trained: "
        f"held = {how}, then torch.save(held.state_dict(), NEW) of a module, or "
        "torch.save(held['model'], NEW) of a dict that has them there."
    )


def _states(content: object, path: Path) -> list[Found]:
    """Return the sets of tensors by name inside `content`, what is most likely meant first.

    Raises:
        FileReadError: there is none.
    """
    found = sorted(_walk(content, ()), key=_rank)
    if not found:
        raise FileReadError(
            f"{path}: holds no state dict (a dict of tensors by name), but {_kind(content)}. "
            f"Save it so: {_SAVE}."
        )
    return found


def _walk(content: object, keys: tuple[str, ...]) -> Iterator[Found]:
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    if tensors := {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}:
        yield keys, tensors
    for key, value in content.items() if len(keys) < _MAX_DEPTH else ():
        yield from _walk(value, (*keys, key))


def _rank(found: Found) -> tuple[bool, list[int]]:
    known = {key: place for place, key in enumerate(_WRAPPINGS)}
    places = [known.get(key, len(known)) for key in found[0]]
    return len(known) in places, places


def _chosen(
    states: Sequence[Found], wanted: Mapping[str, Any], path: Path
) -> tuple[Found, list[tuple[str, ...]]]:
    """Return the set of tensors that is the module's, and the keys of others that fit as well.

    Raises:
        ExportError: several fit, under keys that say nothing.
    """
    needed = wanted.keys() - _counters(wanted)
    fitting = []
    for keys, held in states:
        state = _without_prefix({_uncompiled(name): v for name, v in held.items()}, wanted)[0]
        fits = needed <= state.keys() and all(wanted[n].shape == state[n].shape for n in needed)
        fitting += [(keys, held)] if fits else []
    if not fitting:
        return states[0], []
    unknown, _ = _rank(fitting[0])
    if unknown and len(fitting) > 1:
        named = [" > ".join(keys) for keys, _ in fitting]
        raise ExportError(
            f"{path}: holds several sets of weights that fit: {_first(named, len(named))}. Save "
            f"the one that you want: torch.save(torch.load(PATH){_lookup(fitting[0][0])}, NEW)."
        )
    return fitting[0], [keys for keys, _ in fitting[1:]]


def _lookup(keys: Sequence[str]) -> str:
    return "".join(f"[{key!r}]" for key in keys)


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
        if name in state and _numbers(state[name]) != _numbers(value):
            return (
                f"'{name}' holds {_numbers(state[name])} in the file and {_numbers(value)} in the "
                "module. Save plain weights, e.g. of the net before it was quantised."
            )
    return None


def _numbers(tensor: torch.Tensor) -> str:
    """Return the kind of numbers that a tensor holds; of float types one is read as the other."""
    if tensor.is_quantized or tensor.layout is not torch.strided or tensor.is_meta:
        return "quantised, sparse or no values"
    return "floats" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")


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

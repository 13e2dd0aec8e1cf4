"""From what a user names (a shipped net, a factory, an ONNX file) to an adapter."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from edgevision.bundle.files import open_plain, read_plain
from edgevision.bundle.tensors import Profiles
from edgevision.errors import ExportError, FileReadError
from edgevision.export import ADAPTERS
from edgevision.export.adapters.adapter import ModelAdapter
from edgevision.export.adapters.registry import (
    ClassNames,
    Given,
    Size,
    adapt_module,
    adapt_shipped,
    recognised_task,
    refuse_options,
)
from edgevision.export.adapters.tensors import Tensors
from edgevision.export.checkpoint import MAX_BYTES, load_into
from edgevision.export.zoo import ZooEntry, zoo_entry, zoo_names
from edgevision.tasks.task import get_task, task_names
from edgevision.tasks.tensors import TASK as TENSORS

_MAX_CLASSES_BYTES = 1 << 20
# The name's last character is not a space: no two parts share a run of spaces, so time is linear.
_CLASS_LINE = re.compile(r"(?P<name>[^#\s](?:[^#]*[^#\s])?)\s*(?P<color>#[0-9a-fA-F]{6})?")


@dataclass(frozen=True, slots=True)
class Source:
    """A resolved source: the adapter, a name for the bundle, and where it all came from.

    A shipped net may bring `samples`, a folder of frames.
    """

    name: str
    adapter: ModelAdapter
    provenance: dict[str, str]
    samples: Path | None = None


def resolve(
    source: str | Path | nn.Module | ModelAdapter,
    *,
    task: str | None = None,
    weights: Path | None = None,
    size: Size | None = None,
    classes: ClassNames | None = None,
    front: Given = MappingProxyType({}),
    shapes: Profiles | None = None,
) -> Source:
    """Turn `source` into an adapter.

    Args:
        source: a shipped net's name, `package.module:factory`, a path of an ONNX file, a module, or
            an adapter. A factory's modules are looked for in the working directory last, and only
            until the factory has returned.
        task: a task's name; by default what the source says.
        weights: a safetensors file, or a PyTorch checkpoint of only tensors; see `checkpoint`.
        size: (H, W) of the net's input.
        classes: names, or (name, "#rrggbb").
        front: what was given of the front end, by the adapters' names.
        shapes: bounds of an ONNX file's open inputs, by name.

    Raises:
        ValueError: the source or the options make no sense together.
        ExportError: the factory or the weights fail.
        FileReadError: a file cannot be read.
    """
    if task not in (None, *task_names()):
        raise ValueError(f"task: got '{task}', expected one of {', '.join(task_names())}")
    options = {"size": size, "classes": classes, **front}
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(source, Path) or (isinstance(source, str) and source.endswith(".onnx")):
        refuse_options("an ONNX file", weights=weights, **given)
        return _from_onnx(Path(source), task, shapes)
    refuse_options("anything but an ONNX file", shapes=shapes)
    if isinstance(source, nn.Module):
        name = type(source).__name__
        adapter = _adapt(source, name, task, weights, given)
        return Source(name.lower(), adapter, _provenance("a module", weights))
    if not isinstance(source, str):
        refuse_options("an adapter", weights=weights, task=task, **given)
        return Source(source.task, source, {"source": "an adapter"})
    if ":" in source:
        return _from_factory(source, task, weights, given)
    return _from_zoo(source, task, weights, given)


def read_classes(path: Path) -> list[str | tuple[str, str]]:
    """Read a class file: one name a line, optionally followed by its colour `#rrggbb`.

    Raises:
        FileReadError: the file cannot be read, is empty, or has a line of another form.
    """
    try:
        content = read_plain(path, max_bytes=_MAX_CLASSES_BYTES, follow_links=True)
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileReadError(f"{path}: cannot be read as a list of classes: {error}") from error
    classes: list[str | tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _CLASS_LINE.fullmatch(line.strip())
        if match is None:
            raise FileReadError(
                f"{path}:{number}: expected 'name' or 'name #rrggbb', got {line!r:.80}"
            )
        color = match["color"]
        classes.append((match["name"], color.lower()) if color else match["name"])
    if not classes:
        raise FileReadError(f"{path}: no class in this file; expected one name a line")
    return classes


def _from_zoo(name: str, task: str | None, weights: Path | None, given: Given) -> Source:
    if name not in zoo_names():
        known = ", ".join(zoo_names()) or "none on this machine: pip install edgevision-zoo"
        near = difflib.get_close_matches(name, zoo_names(), n=1)
        meant = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"unknown source '{name}'.{meant} Give a shipped net ({known}), "
            "package.module:factory, or a path that ends in .onnx."
        )
    entry = zoo_entry(name)
    if task not in (None, entry.task):
        raise ValueError(f"'{name}' is a net for task '{entry.task}'; leave out task '{task}'")
    chosen = weights or entry.weights
    module = _zoo_module(entry)
    load_into(module, chosen)
    adapter = adapt_shipped(get_task(entry.task), module, entry.card, given)
    return Source(name, adapter, _provenance(name, chosen), entry.samples)


def _zoo_module(entry: ZooEntry) -> nn.Module:
    module, function = entry.factory.split(":")
    made = getattr(importlib.import_module(module), function)(**entry.arguments)
    assert isinstance(made, nn.Module)
    return made


def _from_factory(source: str, task: str | None, weights: Path | None, given: Given) -> Source:
    factory = find_function("source", source, "package.module:factory")
    function = source.partition(":")[2]
    with _working_directory():
        try:
            made = factory()
        except (Exception, SystemExit) as error:
            raise ExportError(f"'{source}' failed: {type(error).__name__}: {error}") from error
    name = re.sub(r"[^A-Za-z0-9._-]", "-", function).strip("-._") or "model"
    if isinstance(made, nn.Module):
        adapter = _adapt(made, source, task, weights, given)
        return Source(name, adapter, _provenance(source, weights))
    if not hasattr(made, "to_onnx"):
        raise ExportError(
            f"'{source}' returned {type(made).__name__}, expected a torch module or an adapter "
            f"(edgevision.export has {', '.join(ADAPTERS)})"
        )
    refuse_options("an adapter", weights=weights, task=task, **given)
    return Source(name, made, {"source": source})


def find_function(what: str, source: str, expected: str) -> Any:
    """Return what is called `package.module:name`, as `source=` and `metric=` are.

    Raises:
        ValueError: there is no such module, or nothing of that name in it.
        ExportError: the module cannot be imported.
    """
    module_name, _, name = source.partition(":")
    with _working_directory():
        try:
            module = importlib.import_module(module_name)
        except (ImportError, ValueError) as error:
            raise ValueError(f"{what} '{source}': {error}. Expected {expected}.") from error
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise ExportError(
                f"'{source}' cannot be imported: {type(error).__name__}: {error}"
            ) from error
    if not name or (found := getattr(module, name, None)) is None:
        raise ValueError(
            f"{what} '{source}': {getattr(module, '__file__', module_name)} has no '{name}'. "
            f"Expected {expected}."
        )
    return found


@contextlib.contextmanager
def _working_directory() -> Iterator[None]:
    """Let modules be found where the user stands, after all others, until the block is left.

    Never for longer: what lies there may be a stranger's, and a numpy.py among it.
    """
    here = os.getcwd()
    if here in sys.path:
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


def _from_onnx(path: Path, task: str | None, shapes: Profiles | None) -> Source:
    if task not in (None, TENSORS.name):
        raise ValueError(f"an ONNX file has its own tensors: use task {TENSORS}, or leave it out")
    name = re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).strip("-._") or "model"
    adapter = Tensors(path, profiles=shapes)
    return Source(name, adapter, {"source": path.name, "source_sha256": _sha256(path)})


def _adapt(
    module: nn.Module, source: str, task: str | None, weights: Path | None, given: Given
) -> ModelAdapter:
    if weights is not None:
        load_into(module, weights)
    chosen = recognised_task(module) if task is None else get_task(task)
    return adapt_module(chosen, module, source, given)


def _provenance(source: str, weights: Path | None) -> dict[str, str]:
    found = {"source": source}
    if weights is not None:
        found["weights_sha256"] = _sha256(weights)
    return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open_plain(path, max_bytes=MAX_BYTES, follow_links=True) as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise FileReadError(f"{path}: {error.strerror}") from error
    return digest.hexdigest()

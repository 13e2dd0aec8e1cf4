"""Run in a process of its own: which of the names on stdin a TensorRT binding wheel lacks.

    python trt_probe.py FOLDER   (FOLDER holds the unpacked wheel; stand-ins are built into it)

The bindings need TensorRT's libraries to load, but none to be looked at: empty libraries with the
wanted names and functions are enough. `trt_names` says what a name looks like.
"""

from __future__ import annotations

import builtins
import ctypes
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def main() -> None:
    """Print a JSON object: the version, the names that are missing, and those that nobody knows."""
    module = load(Path(sys.argv[1]))
    verdicts = {name: verdict(module, name) for name in json.load(sys.stdin)}
    answer = {key: [n for n, v in verdicts.items() if v == key] for key in ("missing", "unknown")}
    print(json.dumps({"version": module.__version__, **answer}))


def load(folder: Path) -> ModuleType:
    """Return the bindings unpacked in `folder`, or the installed tensorrt_rtx."""
    if folder.name == "tensorrt_rtx":
        return importlib.import_module("tensorrt_rtx")
    for library in build_stand_ins(folder):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(folder))
    return importlib.import_module("tensorrt_bindings")


class Instance:
    """Any object of a class."""

    def __init__(self, kind: type) -> None:
        self.kind = kind


def verdict(module: ModuleType, name: str) -> str:
    """Return "there", "missing", or "unknown" where the bindings do not say what a call gives."""
    path, _, store = name.partition(" ")
    found: Any = module
    for step in path.split("."):
        attribute, _, call = step.partition("(")
        owner = found.kind if isinstance(found, Instance) else found
        if not hasattr(owner, attribute):
            return "missing"
        member = getattr(owner, attribute)
        if isinstance(found, Instance) and isinstance(member, property):
            if store and step == path.split(".")[-1] and member.fset is None:
                return "missing"
            member = given_by(module, member.fget)
        if call:
            member = Instance(member) if isinstance(member, type) else given_by(module, member)
        if member is None and step != path.split(".")[-1]:
            return "unknown"
        found = member
    return "there"


def given_by(module: ModuleType, function: Any) -> Instance | None:
    """Return what a bound C++ function gives, by its docstring."""
    kinds = set(re.findall(r"-> ([\w.]+)", function.__doc__ or ""))
    if len(kinds) != 1:
        return None
    names = kinds.pop().split(".")
    # tensorrt_bindings.tensorrt.ILogger.Severity, but str
    for start in range(len(names)):
        found: Any = builtins if len(names) == 1 else module
        for name in names[start:]:
            found = getattr(found, name, None)
        if isinstance(found, type):
            return Instance(found)
    return None


def build_stand_ins(folder: Path) -> list[Path]:
    """Build a library for each of TensorRT's that the binding needs."""
    binding = folder / "tensorrt_bindings" / "tensorrt.so"
    dynamic = run("readelf", "-d", str(binding))
    wanted = re.findall(r"NEEDED.*\[(libnv[^\]]+)\]", dynamic)
    undefined = re.findall(r"^ +U (\w+)$", run("nm", "-D", "--undefined-only", str(binding)), re.M)
    # What Python and libc bring must stay theirs: an empty dlopen would break this process.
    here = ctypes.CDLL(None)
    symbols = [symbol for symbol in undefined if not hasattr(here, symbol)]
    source = folder / "stand_in.c"
    source.write_text("".join(f"void *{s}(void) {{ return 0; }}\n" for s in symbols))
    libraries = []
    for soname in wanted:
        library = folder / soname
        run("gcc", "-shared", "-fPIC", f"-Wl,-soname={soname}", "-o", str(library), str(source))
        libraries.append(library)
    return libraries


def run(*command: str) -> str:
    """Run a tool; return what it prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()

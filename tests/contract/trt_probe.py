"""Run in a process of its own: which of the names on stdin a TensorRT binding wheel lacks.

    python trt_probe.py FOLDER   (FOLDER holds the unpacked wheel; stand-ins are built into it)

The bindings need TensorRT's libraries to load, but none to be looked at: empty libraries with the
wanted names and functions are enough.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Print a JSON object: the version, and the names that are missing."""
    folder = Path(sys.argv[1])
    if folder.name == "tensorrt_rtx":
        module = importlib.import_module("tensorrt_rtx")
    else:
        for library in build_stand_ins(folder):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        sys.path.insert(0, str(folder))
        module = importlib.import_module("tensorrt_bindings")
    missing = [name for name in json.load(sys.stdin) if not has(module, name)]
    print(json.dumps({"version": module.__version__, "missing": missing}))


def has(module: object, name: str) -> bool:
    """Return whether a dotted name resolves."""
    for part in name.split("."):
        if not hasattr(module, part):
            return False
        module = getattr(module, part)
    return True


def build_stand_ins(folder: Path) -> list[Path]:
    """Build a library for each of TensorRT's that the binding needs."""
    binding = folder / "tensorrt_bindings" / "tensorrt.so"
    dynamic = run("readelf", "-d", str(binding))
    wanted = re.findall(r"NEEDED.*\[(libnv[^\]]+)\]", dynamic)
    # Functions of libc and libstdc++ carry a version; TensorRT's do not.
    symbols = re.findall(r"^ +U (\w+)$", run("nm", "-D", "--undefined-only", str(binding)), re.M)
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

"""C tables and stubs that the stand-in driver takes from the public CUDA headers."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

_VERSION_SUFFIX = re.compile(r"_v\d+$")
_PER_THREAD = ("_ptds", "_ptsz")


def symbols(include: Path) -> set[str]:
    """Return every symbol that the headers declare, older versions of functions included."""
    found: set[str] = set()
    for header in ("cuda.h", "cudaProfiler.h"):
        # Under this macro the headers do not rename functions and declare all versions of them.
        command = ["cc", "-E", "-P", "-D__CUDA_API_VERSION_INTERNAL", f"-I{include}"]
        text = subprocess.run(
            [*command, str(include / header)], check=True, capture_output=True, text=True
        ).stdout
        found.update(re.findall(r"CUresult\s+(cu[A-Z]\w*)\s*\(", text))
    return {symbol for symbol in found if not symbol.endswith(_PER_THREAD)}


def entries(include: Path) -> list[tuple[str, int, str]]:
    """Pair each name and version of the typedefs with its symbol, both oldest first."""
    versions: dict[str, set[int]] = defaultdict(set)
    for header in ("cudaTypedefs.h", "cudaProfilerTypedefs.h"):
        typedefs = re.findall(r"\*PFN_(cu\w+?)_v(\d+)\)\(", (include / header).read_text())
        for name, version in typedefs:
            versions[name].add(int(version))
    declared: dict[str, list[str]] = defaultdict(list)
    for symbol in sorted(symbols(include)):
        declared[_base(symbol)].append(symbol)
    paired = []
    for name, introduced in sorted(versions.items()):
        ordered = sorted(declared[name], key=lambda symbol: (len(symbol), symbol))
        if len(ordered) != len(introduced):
            raise ValueError(f"{name}: versions {sorted(introduced)}, symbols {ordered}")
        paired += [(name, *pair) for pair in zip(sorted(introduced), ordered, strict=True)]
    return paired


def tables(include: Path) -> str:
    """Return C source: the entry points by name, the functions to count, the error codes."""
    table = entries(include)
    names = sorted({_base(symbol) for symbol in symbols(include)})
    codes = re.findall(r"^\s+(CUDA_(?:SUCCESS|ERROR_\w+))\s*=\s*(\d+)", _cuda_h(include), re.M)
    lines = ['#include "standin.h"']
    lines += [f'extern void at_{symbol}(void) __asm__("{symbol}");' for _, _, symbol in table]
    lines.append("const struct entry entries[] = {")
    lines += [f'    {{"{name}", {version}, at_{symbol}}},' for name, version, symbol in table]
    lines += ["};", f"const int n_entries = {len(table)};", "const char *const bases[] = {"]
    lines += [f'    "{name}",' for name in names]
    lines += ["};", f"const int n_bases = {len(names)};", "const struct named_code codes[] = {"]
    lines += [f'    {{{code}, "{name}", "{_words(name)}"}},' for name, code in codes]
    lines += ["};", f"const int n_codes = {len(codes)};"]
    return "\n".join(lines) + "\n"


def stubs(include: Path, implemented: set[str]) -> str:
    """Return C source in which every function not implemented answers NOT_SUPPORTED."""
    lines = ["extern int not_supported(const char *);"]
    lines += [
        f'__attribute__((visibility("default"))) int {symbol}(void) '
        f'{{ return not_supported("{symbol}"); }}'
        for symbol in sorted(symbols(include) - implemented)
    ]
    return "\n".join(lines) + "\n"


def _base(symbol: str) -> str:
    return _VERSION_SUFFIX.sub("", symbol)


def _cuda_h(include: Path) -> str:
    return (include / "cuda.h").read_text()


def _words(name: str) -> str:
    return name.removeprefix("CUDA_").removeprefix("ERROR_").replace("_", " ").lower()

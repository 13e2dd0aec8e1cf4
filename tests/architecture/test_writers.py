"""Every place that writes a file is known, with what keeps it from a file that is somebody else's.

Who writes where the user says asks `refuse_foreign` before the first write, or makes the file anew
and fails where one is; all else is written into folders of our own.
"""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "edgevision"
# By the file that writes: the call in it that stands before, or whose folder it is.
ASKS = "refuse_foreign"
WRITERS = {
    "batch/review": ASKS,
    "batch/shards": "the folder of a run, which has a mark of its own",
    "batch/worker": "the folder of a run, by batch/shards",
    "bench/loadgen_child": "a temporary folder",
    "bench/reference": "a temporary folder",
    "bench/report": ASKS,
    "bench/gate/process": "a temporary folder",
    "bench/gate/sides": "an environment of its own",
    "bundle/directory": "a bundle's staging",
    "bundle/files": "what others here call",
    "bundle/signature": "write_new",
    "bundle/staging": "a bundle, put in place whole",
    "bundle/state": "the state directory",
    "bundle/triton": "a model repository, refused where one is",
    "bundle/user_cache": "the user's cache",
    "cli/bench": ASKS,
    "cli/demo": ASKS,
    "cli/terminal": ASKS,
    "engines/artifacts": "a temporary folder",
    "engines/builder": "a bundle's staging",
    "engines/cache": "the engine cache",
    "engines/cache_archive": ASKS,
    "engines/child": "a pipe",
    "engines/finish": "the state directory",
    "engines/portable": "what the builder names",
    "engines/process": "a pipe",
    "engines/tensorrt_network": "what the builder names",
    "export/preflight": "a temporary folder",
    "metrics/tally": "a buffer in memory",
    "runtime/files/batch": ASKS,
    "runtime/files/generate": ASKS,
    "runtime/stream/trace": "xb",
    "tasks/generated": ASKS,
}
_CALLS = {
    "write_text", "write_bytes", "write_whole", "write_new", "copyfile", "copytree", "copy2",
    "rename", "replace", "staged", "savez", "savez_compressed", "tofile", "imwrite", "fdopen",
}  # fmt: skip
# Of a path or a file, not of a text, a dataclass or a graph.
_OF_OS = {"rename", "replace", "fdopen"}


def writes(call: ast.Call) -> bool:
    """Whether a call makes or replaces a file."""
    called = call.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    of = called.value if isinstance(called, ast.Attribute) else None
    if name in _OF_OS:
        is_path = name == "rename" and len(call.args) == 1
        return is_path or (isinstance(of, ast.Name) and of.id == "os" and len(call.args) > 1)
    if name == "save":
        first = call.args[0] if call.args else None
        return isinstance(first, ast.expr) and getattr(first, "id", "") != "buffer"
    if name == "open":
        modes = [a.value for a in call.args if isinstance(a, ast.Constant)]
        return any(isinstance(m, str) and set(m) <= set("wxab+t") and m for m in modes)
    return name in _CALLS


def test_every_writer_is_known_and_asks_first() -> None:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and writes(n)]
        if calls:
            found[path.relative_to(PACKAGE).with_suffix("").as_posix()] = text
    assert sorted(found) == sorted(WRITERS), sorted(found.keys() ^ WRITERS.keys())
    for name, guard in WRITERS.items():
        if " " not in guard:
            assert f"{guard}(" in found[name] or f'"{guard}"' in found[name], name

"""Imports point down, and each half of edgevision needs no more than it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPTIONAL = (
    "av", "cuda", "jinja2", "onnx", "onnxruntime", "onnxscript", "openvino", "PIL",
    "pycuda", "safetensors", "skimage", "tensorrt", "tensorrt_rtx", "torch", "torchvision",
)  # fmt: skip
EXPORT_SIDE = ("edgevision.export", "edgevision.models")

RUNTIME_ALONE = """
import json, sys
import edgevision.runtime, edgevision.runtime.load, edgevision.runtime.verify
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""

BARE = """
import importlib, json, pkgutil, sys
blocked, skipped = json.loads(sys.argv[1]), tuple(json.loads(sys.argv[2]))

class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Missing)
import edgevision
imported = ["edgevision"]
def walk(package):
    for module in pkgutil.iter_modules(getattr(package, "__path__", ()), package.__name__ + "."):
        if not module.name.startswith(skipped):
            imported.append(module.name)
            loaded = importlib.import_module(module.name)
            if module.ispkg:
                walk(loaded)
walk(edgevision)
print(json.dumps(imported))
"""


def _printed(program: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def test_import_contracts_hold() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_runtime_loads_nothing_heavy() -> None:
    loaded = _printed(RUNTIME_ALONE)
    assert "numpy" in loaded
    assert not set(loaded) & set(OPTIONAL)
    assert not [name for name in loaded if name.startswith("tensorrt")]


def test_every_module_imports_on_a_bare_machine() -> None:
    imported = _printed(BARE, json.dumps(OPTIONAL), json.dumps(EXPORT_SIDE))
    files = {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for path in (ROOT / "edgevision").rglob("*.py")
    }
    expected = {
        name.removesuffix(".__init__") for name in files if not name.startswith(EXPORT_SIDE)
    }
    assert set(imported) == expected
    assert len(imported) > 15


def test_the_export_side_imports_where_its_packages_are() -> None:
    models_first = "".join(f"import {name}; walk({name})\n" for name in reversed(EXPORT_SIDE))
    imported = _printed(BARE.replace("walk(edgevision)\n", models_first), "[]", '["nothing"]')
    assert all(any(name.startswith(side) for name in imported) for side in EXPORT_SIDE)

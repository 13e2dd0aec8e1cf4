"""Makes docs/operators.md: what becomes of small modules in FP16 and INT8, one after the other.

    python scripts/try_operators.py         # tries all, 20 minutes; writes docs/operators.json, .md
    python scripts/try_operators.py --page  # writes the page from the JSON
    python scripts/try_operators.py --only "max 2" "top 5"   # tries some, keeps the other rows
    python scripts/try_operators.py --print --only "max 2"   # and prints them, writing nothing

Of each module, in each precision: whether ONNX Runtime gives the module's answers, what
edgevision's rules (and the reading of a Jetson's parser) say for TensorRT 10.3, and whether
TensorRT-RTX builds it. The modules are those of tests/parts/operator_modules.py. Each batch runs in
a child; a module that takes the child with it is a row that says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT, PAGE = ROOT / "docs" / "operators.json", ROOT / "docs" / "operators.md"
PRECISIONS = ("fp16", "int8")
TARGET = "jetson-orin-jp6"
_BATCH, _SAMPLES, _WORDS = 20, 4, 420
_HEAD = """# Operators

Small modules, an operator or a pattern each, behind a layer with weights; made by
`scripts/try_operators.py`, and the same as JSON in [operators.json](operators.json). Of each, in
FP16 and in INT8 (every layer of it, whatever it costs):

- **ONNX Runtime**: the graph gives the module's answers, within the bars of a build; where it does
  not, `build` refuses it with what is said below;
- **TensorRT 10.3**: what `edgevision check --target jetson-orin-jp6` says of the graph, by its
  rules and by running what a Jetson's parser reads; no board was asked;
- **RTX**: TensorRT-RTX built an engine of it.

{counts}

| Module | FP16: ONNX Runtime | TensorRT 10.3 | RTX | INT8: ONNX Runtime | TensorRT 10.3 | RTX |
|---|---|---|---|---|---|---|
"""


def main() -> int:
    """Try modules; 1 where one ends the process that tries it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--print", action="store_true")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.child:
        for name in options.child:
            print(f"begin {name}", flush=True)
            print("end " + json.dumps(tried(name)), flush=True)
        return 0
    if options.page:
        PAGE.write_text(page(json.loads(DOCUMENT.read_text())))
        return 0
    from tests.parts.operator_modules import GROUPS, NAMES

    found = _all(options.only or NAMES)
    if options.print:
        print(json.dumps(found, indent=1))
        return 0
    if options.only:
        kept = json.loads(DOCUMENT.read_text())["modules"].values()
        found = {**{name: row for group in kept for name, row in group.items()}, **found}
    rows = {group: {name: found[name] for name in names} for group, names in GROUPS.items()}
    document = {"versions": _versions(), "target": TARGET, "modules": rows}
    DOCUMENT.write_text(json.dumps(document, indent=1) + "\n")
    PAGE.write_text(page(document))
    dead = [n for n, row in found.items() if "the process ended" in row["fp16"]["ort"]]
    print(f"ended the process: {dead or 'none'}")
    return 1 if dead else 0


def _all(names: list[str]) -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = {}
    while left := [name for name in names if name not in found]:
        command = [sys.executable, __file__, "--child", *left[:_BATCH]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        name = ""
        for line in done.stdout.splitlines():
            if line.startswith("begin "):
                name = line.removeprefix("begin ")
            elif line.startswith("end "):
                found[name] = json.loads(line.removeprefix("end "))
                print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
                name = ""
        if name:
            words = f"the process ended with {done.returncode}"
            found[name] = {p: dict.fromkeys(("ort", "rule", "rtx"), words) for p in PRECISIONS}
        print(f"{len(found)} of {len(names)}", file=sys.stderr, flush=True)
    return found


def tried(name: str, *, with_rtx: bool = True) -> dict[str, dict[str, str]]:
    """Return by precision what each of the three says; "" where it is well."""
    from edgevision.errors import EdgeVisionError
    from edgevision.export.recipe import export_stage

    warnings.simplefilter("ignore")
    adapter, feeds = _adapter(name)
    rows = {}
    for precision in PRECISIONS:
        try:
            stage = export_stage(
                adapter, precision=precision, samples=feeds[:2], calibration=feeds, proof=_proof()
            )
        except (EdgeVisionError, ValueError) as error:
            rows[precision] = {"ort": _short(error), "rule": "", "rtx": ""}
            continue
        graph = stage.graphs[precision]
        rtx = _built(graph) if with_rtx else ""
        rows[precision] = {"ort": "", "rule": _rules(stage, precision), "rtx": rtx}
    return rows


def _adapter(name: str):
    import numpy as np

    from edgevision.bundle.tensors import DType, TensorSpec
    from edgevision.export import Tensors
    from tests.parts.operator_modules import PICTURE, SEQUENCE, SEQUENCES, module

    shape = SEQUENCE if name in SEQUENCES else PICTURE
    dice = np.random.default_rng(0)
    feeds = [{"x": dice.standard_normal(shape).astype(np.float32)} for _ in range(_SAMPLES)]
    return Tensors(module(name), inputs=[TensorSpec("x", DType.FLOAT32, shape)]), feeds


def _proof():
    from edgevision.tasks.proof import Proof

    class Quantized(Proof):
        """Every layer is INT8, whatever it costs: what a builder takes is asked."""

        min_snr_db = float("-inf")

    return Quantized()


def _rules(stage: object, precision: str) -> str:
    import onnx

    from edgevision.bundle.targets import get_target
    from edgevision.export.as_read import Expected, check_reading
    from edgevision.export.graph.rules import check_graph

    model = onnx.load_from_string(stage.graphs[precision])
    found = check_graph(model, get_target(TARGET))
    typed = onnx.shape_inference.infer_shapes(model)
    bars = stage.tolerances[precision]
    golden = Expected(stage.golden_inputs, stage.golden_outputs, bars, _proof(), "samples")
    found += check_reading(typed, lambda: golden, {})
    return "; ".join(
        f"{f.node}: {f.message} -> {f.remedy}" for f in found if f.severity == "error"
    )[:_WORDS]


def _built(graph: bytes) -> str:
    from edgevision.bundle.targets import get_target
    from edgevision.engines.request import BuildRequest
    from edgevision.engines.trt_rtx import BUILDER
    from edgevision.errors import BuildError
    from edgevision.progress import silent

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(graph)
        request = BuildRequest(file, get_target("rtx-ampere"), Path(folder) / "engine.plan")
        try:
            BUILDER.build(request, silent)
        except BuildError as error:
            return _short(error)
    return ""


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:_WORDS]


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "onnx", "onnxscript", "onnxruntime", "tensorrt-rtx-cu13")
    return {name: version(name) for name in names}


def page(document: dict) -> str:
    """Return the page that shows a document."""
    rows = [(name, row) for group in document["modules"].values() for name, row in group.items()]
    counts = []
    for precision in PRECISIONS:
        well = {key: sum(not r[precision][key] for _, r in rows) for key in ("ort", "rule", "rtx")}
        counts.append(
            f"{precision.upper()}: {well['ort']} of {len(rows)} right on ONNX Runtime, "
            f"{sum(not any(r[precision].values()) for _, r in rows)} also without an objection of "
            "the rules and built by RTX."
        )
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    text = _HEAD.format(counts=f"{' '.join(counts)} With {versions}.")
    notes: list[str] = []
    for group, modules in document["modules"].items():
        text += f"| **{group}** | | | | | | |\n"
        for name, row in modules.items():
            text += f"| {name} | " + " | ".join(_cells(row, notes)) + " |\n"
    text += "\n## What was said\n\n"
    return text + "".join(f"{i}. {note}\n" for i, note in enumerate(notes, 1))


def _cells(row: dict, notes: list[str]) -> Iterator[str]:
    for precision in PRECISIONS:
        has_graph = not row[precision]["ort"]
        for key in ("ort", "rule", "rtx"):
            words = row[precision][key].replace("|", "\\|").replace("<", "&lt;")
            if not words:
                yield "yes" if has_graph else ""
                continue
            if words not in notes:
                notes.append(words)
            yield f"no ({notes.index(words) + 1})"


if __name__ == "__main__":
    sys.exit(main())

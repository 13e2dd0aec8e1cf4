"""Builds the official ONNX node tests with their own inputs, and counts what became of each.

    python scripts/try_onnx_nodes.py FOLDER --out tests/data/onnx_nodes.json [--every 10]

FOLDER is onnx/backend/test/data/node of the wheel of onnx 1.19 (later wheels have none), or a .zip
of such folders. Each is built in a child; one that takes the child with it is counted as a crash,
and the rest goes on. With strings, sequences or training: left out. An answer that is not the
stored one is "superseded" where the evaluator of the onnx installed here gives it, too: the
standard's own reference was mended since (Attention with fewer heads of keys, for one).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

_RIGHT = {"fp32": 1e-3, "fp16": 5e-2}
_FINE = ("right", "left", "superseded")
_BATCH, _LIMIT_S = 150, 1800


def main() -> int:
    """Try all of a folder; 1 where one is wrong, a traceback or a crash."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", choices=_RIGHT, action="append")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    precisions = options.precision or list(_RIGHT)
    if options.child is not None:
        _build_here()
        for name in options.child:
            print(f"begin {name}", flush=True)
            print("end " + json.dumps(_tried(options.folder / name, *precisions)), flush=True)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder
        if folder.is_file():
            zipfile.ZipFile(folder).extractall(temporary)
            folder = Path(temporary)
        names = sorted(path.name for path in folder.iterdir())[:: options.every]
        found = {precision: _all(folder, names, precision) for precision in precisions}
    counts = {p: dict(sorted(Counter(v for v, _ in f.values()).items())) for p, f in found.items()}
    told = {
        p: {n: f"{v}: {why}" for n, (v, why) in sorted(f.items()) if v not in _FINE}
        for p, f in found.items()
    }
    others = {
        p: sorted(n for n, (v, _) in f.items() if v == "superseded") for p, f in found.items()
    }
    document = {"counts": counts, "superseded": others, "refused": told}
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(counts)
    bad = [c.get(v) for c in counts.values() for v in ("wrong", "traceback", "crash")]
    return 1 if any(bad) else 0


def _all(folder: Path, names: list[str], precision: str) -> dict[str, tuple[str, str]]:
    """Return each test's verdict and why, from as many children as it takes."""
    found: dict[str, tuple[str, str]] = {}
    while left := [name for name in names if name not in found]:
        command = [sys.executable, __file__, str(folder), "--out", "-"]
        command += ["--precision", precision, "--child", *left[:_BATCH]]
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_LIMIT_S,
                check=False,
            )  # fmt: skip
            output, ended = done.stdout, f"exit code {done.returncode}"
        except subprocess.TimeoutExpired as error:
            output, ended = error.stdout or b"", f"no end within {_LIMIT_S} s"
        name = ""
        for line in output.decode().splitlines():
            if line.startswith("begin "):
                name = line.removeprefix("begin ")
            elif line.startswith("end "):
                verdict, why = json.loads(line.removeprefix("end "))
                found[name], name = (verdict, why), ""
        if name:
            found[name] = "crash", ended
        elif not any(name in found for name in left):
            raise SystemExit(f"the child tried nothing: {ended}")
        print(f"{precision}: {len(found)} of {len(names)}", file=sys.stderr, flush=True)
    return found


def _build_here() -> None:
    """Build in this process, which is a child already, in place of one more for each engine."""
    import edgevision.engines.cache
    from edgevision.engines.registry import builder_for

    edgevision.engines.cache.build_engine = lambda request, progress: builder_for(
        request.target.flavour
    ).build(request, progress)


def _tried(folder: Path, precision: str) -> tuple[str, str]:
    """Return "right", "left", "superseded", "refused", "wrong" or "traceback", and why."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    import edgevision
    from edgevision.errors import EdgeVisionError

    model = onnx.load(folder / "model.onnx")
    values = (*model.graph.input, *model.graph.output)
    odd = any(not v.type.HasField("tensor_type") for v in values)
    odd |= any(v.type.tensor_type.elem_type == onnx.TensorProto.STRING for v in values)
    odd |= any("training" in o.domain for o in model.opset_import)
    if odd:
        return "left", ""

    def tensors(kind: str) -> list[np.ndarray]:
        paths = folder.glob(f"test_data_set_0/{kind}_*.pb")
        ordered = sorted(paths, key=lambda path: int(path.stem.rpartition("_")[2]))
        return [np.asarray(numpy_helper.to_array(onnx.load_tensor(path))) for path in ordered]

    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        names = [value.name for value in model.graph.input]
        given = dict(zip(names, tensors("input"), strict=False))
        np.savez(out / "0.npz", **given)
        try:
            profiles = _profiles(model, given)
            made = edgevision.build(
                folder / "model.onnx", out / "net.ev", precision=precision, cache=None,
                samples=out if given else None, shapes=profiles or None, strict=True,
            )  # fmt: skip
            with edgevision.load(made.bundle) as net:
                answers = net(given).outputs
        except (EdgeVisionError, ValueError) as error:
            words = str(error).replace(temporary, "TMP").replace(str(folder), folder.name)
            return "refused", re.sub(r"/[\w./-]*/", "", words)[:300]
        except BaseException as error:
            return "traceback", f"{type(error).__name__}: {error}"[:300]
    found = [np.asarray(answers[value.name]) for value in model.graph.output]
    if not (fault := _fault(found, tensors("output"), precision)):
        return "right", ""
    try:
        again = onnx.reference.ReferenceEvaluator(model).run(None, given)
        if not _fault(found, [np.asarray(x) for x in again], precision):
            return "superseded", ""
    except Exception as error:  # it raises whatever a test makes it hit
        fault += f"; and onnx {onnx.__version__} cannot run it: {error}"[:150]
    return "wrong", fault


def _fault(found: list[object], wanted: list[object], precision: str) -> str:
    import numpy as np

    bar = _RIGHT[precision]
    for place, (answer, stored) in enumerate(zip(found, wanted, strict=False)):
        if answer.shape != stored.shape:
            return f"output {place} is {answer.shape}, expected {stored.shape}"
        pair = [np.asarray(x, np.float64) for x in (answer, stored)]
        reach = np.abs(pair[1][np.isfinite(pair[1])]).max(initial=0)
        if not np.allclose(*pair, rtol=bar, atol=bar * max(reach, 1e-3), equal_nan=True):
            with np.errstate(invalid="ignore"):
                return f"output {place} is off by {np.nanmax(np.abs(pair[0] - pair[1])):.3g}"
    return ""


def _profiles(model: object, given: dict[str, object]) -> dict[str, object]:
    """Return the sizes of the inputs given, for the open ones."""
    from edgevision.bundle.tensors import ShapeProfile

    found = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in given and any(d.dim_value <= 0 for d in dims):
            shape = given[value.name].shape
            found[value.name] = ShapeProfile(shape, shape, shape)
    return found


if __name__ == "__main__":
    sys.exit(main())

"""Builds the official ONNX node tests with their own inputs, and counts what became of each.

    python scripts/try_onnx_nodes.py FOLDER --out counts.json [--precision fp16] [--every 10]

FOLDER is onnx/backend/test/data/node of the wheel of onnx 1.19; later wheels have none. Each is
built in a child; one that takes the child with it is counted as a crash, and the rest goes on. With
strings, sequences or training: left out.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

_RIGHT = {"fp32": 1e-3, "fp16": 5e-2}


def main() -> int:
    """Try all of a folder; 1 where one is wrong, a traceback or a crash."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", choices=_RIGHT, default="fp32")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        for name in options.child:
            print(f"begin {name}", flush=True)
            print("end " + json.dumps(_tried(options.folder / name, options.precision)), flush=True)
        return 0
    left = sorted(path.name for path in options.folder.iterdir())[:: options.every]
    found: dict[str, tuple[str, str]] = {}
    while left:
        batch = left[:150]
        command = [sys.executable, __file__, str(options.folder), "--out", "-"]
        command += ["--precision", options.precision, "--child", *batch]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        name = ""
        for line in done.stdout.splitlines():
            if line.startswith("begin "):
                name = line.removeprefix("begin ")
            elif line.startswith("end "):
                found[name], name = tuple(json.loads(line.removeprefix("end "))), ""
        if name:
            found[name] = "crash", f"exit code {done.returncode}"
        left = [other for other in left if other not in found]
        print(f"{len(found)} done, {len(left)} left", file=sys.stderr, flush=True)
    counts = Counter(verdict for verdict, _ in found.values())
    told = {n: f"{v}: {why}" for n, (v, why) in sorted(found.items()) if v not in ("right", "left")}
    options.out.write_text(
        json.dumps({"counts": dict(sorted(counts.items())), **told}, indent=1) + "\n"
    )
    print(dict(counts))
    return 1 if counts["wrong"] or counts["traceback"] or counts["crash"] else 0


def _tried(folder: Path, precision: str) -> tuple[str, str]:
    """Return "right", "left", "refused", "wrong" or "traceback", and why."""
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
                samples=out if given else None, shapes=profiles or None,
            )  # fmt: skip
            with edgevision.load(made.bundle) as net:
                answers = net(given).outputs
        except (EdgeVisionError, ValueError) as error:
            return "refused", re.sub(re.escape(temporary), "TMP", str(error))[:300]
        except BaseException as error:
            return "traceback", f"{type(error).__name__}: {error}"[:300]
    for value, wanted in zip(model.graph.output, tensors("output"), strict=False):
        answer, bar = np.asarray(answers[value.name]), _RIGHT[precision]
        if answer.shape != wanted.shape:
            return "wrong", f"{value.name} is {answer.shape}, expected {wanted.shape}"
        pair = [np.asarray(x, np.float64) for x in (answer, wanted)]
        reach = np.abs(pair[1][np.isfinite(pair[1])]).max(initial=0)
        if not np.allclose(*pair, rtol=bar, atol=bar * max(reach, 1e-3), equal_nan=True):
            return "wrong", f"{value.name}: off by {np.abs(pair[0] - pair[1]).max():.3g}"
    return "right", ""


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

"""Build a bundle from an ONNX file, its tensors as they are, with bounds for what is dynamic.

python examples/export/onnx_file.py net.onnx --out net.ev
"""

from __future__ import annotations

import argparse
from pathlib import Path

import edgevision
from edgevision.export import Tensors


def main() -> None:
    """Parse the arguments, build, run once on zeros, and print what goes in and comes out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--precision", default="fp16", choices=["fp32", "fp16"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    net = Tensors(
        options.file
    )  # profiles={"x": ShapeProfile(...)} where more than the batch varies
    summary = edgevision.build(net, options.out, precision=options.precision)
    stage = summary.bundle.manifest.stages[0]
    print("takes", *stage.inputs)
    print("gives", *stage.outputs)
    print(*summary.parity, sep="\n")


if __name__ == "__main__":
    main()

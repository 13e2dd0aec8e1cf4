"""What FP16 and INT8 cost a net in its task's own metric, in bytes, and in layers that stay wide.

python examples/measure/precisions.py unet-camvid --calibration frames/ --evaluate val/
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import edgevision


def main() -> None:
    """Parse the arguments, build the INT8 bundle, and print a line for each form."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="a shipped net, or package.module:factory")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--evaluate", type=Path, required=True)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        summary = edgevision.build(
            options.source,
            f"{folder}/net.ev",
            precision="int8",
            calibration=options.calibration,
            evaluate=options.evaluate,
        )
        for score in summary.scores:
            print(f"{score.form:10}", score.figures())
        layers = json.loads((summary.bundle.root / "reports" / "layers.json").read_text("utf-8"))
        for file in summary.bundle.manifest.files:
            if file.path.endswith(".onnx"):
                print(f"{file.path}: {file.size_bytes / 1e6:.2f} MB")
    print({kind: len(names) for kind, names in layers.items() if isinstance(names, dict)})


if __name__ == "__main__":
    main()

"""A bundle of two stages, written, changed and listed again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.directory import GOLDEN, MANIFEST, Bundle, BundleWriter
from edgevision.bundle.flavours import ORT, TRT_RTX
from edgevision.bundle.manifest import Artifact, Manifest, Stage
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.tensors import DYNAMIC, DType, ShapeProfile, TensorSpec

Arrays = dict[str, npt.NDArray[np.generic]]

FRAME = TensorSpec("frame", DType.UINT8, (1, 4, 6, 3))
FEATURES = TensorSpec("features", DType.FLOAT32, (DYNAMIC, 2))
CLASSES = TensorSpec("classes", DType.UINT8, (1, 4, 6))
PROFILE = ShapeProfile((1, 2), (4, 2), (8, 2))

STAGES = (
    Stage(
        name="encoder",
        graph="stages/encoder/model.onnx",
        inputs=(FRAME,),
        outputs=(FEATURES,),
        tolerances={"features": Tolerance(max_abs=0.5, max_mismatch_share=0.125)},
        artifacts=(
            Artifact("host-cpu", ORT, "stages/encoder/host-cpu.onnx", version="1.32.0"),
            Artifact("rtx", TRT_RTX, None, reason="no GPU", command="edgevision finish"),
        ),
    ),
    Stage(
        name="decoder",
        graph="stages/decoder/model.onnx",
        inputs=(FEATURES,),
        outputs=(CLASSES,),
        tolerances={"classes": Tolerance()},
        profiles={"features": PROFILE},
    ),
)
MANIFEST_VALUE = Manifest(
    name="tiny",
    task="semantic",
    precision="int8",
    settings={"classes": [{"name": "road", "color": "#804080"}], "channel_order": "rgb"},
    stages=STAGES,
    files=(),
    provenance={"source": "tests"},
)
FILES = {
    "stages/encoder/model.onnx": b"the encoder's graph",
    "stages/encoder/host-cpu.onnx": b"the encoder's engine",
    "stages/decoder/model.onnx": b"the decoder's graph",
    "reports/parity.json": b"[]\n",
}


def golden_arrays(seed: int = 0) -> dict[str, tuple[Arrays, Arrays]]:
    """Three samples of each stage's inputs and outputs."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((3, 5, 2)).astype(np.float32)
    return {
        "encoder": (
            {"frame": rng.integers(0, 256, (3, *FRAME.shape), np.uint8)},
            {"features": features},
        ),
        "decoder": (
            {"features": features},
            {"classes": rng.integers(0, 256, (3, *CLASSES.shape), np.uint8)},
        ),
    }


def write_bundle(path: Path, *, seed: int = 0) -> Bundle:
    """Publish the small bundle; another `seed` makes other golden vectors."""
    with BundleWriter(path) as writer:
        for name, data in FILES.items():
            writer.add(name, data)
        for stage, (inputs, outputs) in golden_arrays(seed).items():
            writer.add_golden(stage, inputs, outputs)
        return writer.publish(MANIFEST_VALUE)


def contents(root: Path) -> dict[str, bytes]:
    """Every file below `root`."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def read_manifest(root: Path) -> Any:
    return json.loads((root / MANIFEST).read_text())


def write_manifest(root: Path, fields: Any) -> None:
    (root / MANIFEST).write_text(json.dumps(fields))


def relist(root: Path) -> None:
    """Make the manifest list the files as they are, as an attacker would."""
    fields = read_manifest(root)
    for entry in fields["files"]:
        data = (root / entry["path"]).read_bytes()
        entry["size_bytes"], entry["sha256"] = len(data), hashlib.sha256(data).hexdigest()
    write_manifest(root, fields)


def replace_golden(root: Path, data: bytes) -> None:
    (root / GOLDEN).write_bytes(data)
    relist(root)

"""Hold the pictures of digit generators in lower precision against those of the first one.

    edgevision build gan-digits --precision int8 --out int8.ev   (and fp32, fp16)
    python training/score_digit_bundles.py --digits DIGITS.npz fp32.ev fp16.ev int8.ev

Each bundle's graph makes a picture of every seed on ONNX Runtime. An INT8 bundle has two graphs:
"int8.ev graph" has its rest in FP16 and is what GPU engines are built from, "int8.ev host-cpu" has
its rest in FP32. Distances are over features of the digit classifier, and are not Inception FID.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from score_digit_generator import KEPT_OUT, SHIPPED, features

import edgevision
from edgevision.bundle.flavours import ORT
from edgevision.metrics.images import frechet_distance, psnr
from edgevision.models.digit_classifier import DigitClassifier
from edgevision.runtime.model import Model
from edgevision.runtime.select import select
from edgevision.runtime.session import Session
from edgevision.tasks.decoders import bundle_decoder

Images = npt.NDArray[np.uint8]


def main() -> None:
    """Parse the arguments, score, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+", help="the FP32 bundle first")
    parser.add_argument("--digits", type=Path, required=True, help=".npz with images")
    parser.add_argument("--count", type=int, default=5000, help="seeds, from 0 on")
    print(json.dumps(score(parser.parse_args()), indent=2))


@torch.inference_mode()
def score(options: argparse.Namespace) -> dict[str, object]:
    """Return each form's scores."""
    classifier = DigitClassifier().eval()
    classifier.load_state_dict(load_file(SHIPPED / "digit-classifier/model.safetensors"))
    with np.load(options.digits) as file:
        real = features(classifier, _floats(file["images"][-KEPT_OUT:, ..., np.newaxis]))
    report: dict[str, object] = {}
    first: tuple[Images, npt.NDArray[np.int64], float] | None = None
    for name, images in _pictures(options.bundles, options.count):
        found = features(classifier, _floats(images))
        labels = classifier.head(torch.from_numpy(found)).argmax(1).numpy()
        distance = frechet_distance(real, found)
        first = first or (images, labels, distance)
        report[name] = {
            "label agreement": float((labels == first[1]).mean()),
            "frechet distance to unseen": distance,
            "rise": distance / first[2] - 1,
        } | ({"median psnr, dB": float(np.median(psnr(first[0], images)))} if len(report) else {})
    return report


def _pictures(bundles: list[Path], count: int) -> Iterator[tuple[str, Images]]:
    for path in bundles:
        bundle = edgevision.Bundle.open(path)
        (stage,) = bundle.manifest.stages
        task = bundle_decoder(bundle.manifest, bundle.read)
        graphs = {"graph": stage.graph, "host-cpu": f"stages/{stage.name}/host-cpu.onnx"}
        for form, file in graphs.items():
            if form == "graph" or bundle.manifest.precision == "int8":
                session = Session.open(bundle.read(file), flavour=ORT, profiles=stage.profiles)
                selection = select(stage, device="cpu")
                with Model(bundle.manifest, session, selection, task) as model:
                    yield f"{path.name} {form}", model.generate(range(count)).images


def _floats(images: Images) -> torch.Tensor:
    """Return `uint8[N, H, W, 1]` as the classifier's `float32[N, 1, H, W], -1 to 1`."""
    return torch.from_numpy(images).float().permute(0, 3, 1, 2) / 127.5 - 1


if __name__ == "__main__":
    main()

"""Hold generated digits against real ones over the features of the digit classifier.

    python training/score_digit_generator.py --digits DIGITS.npz

The generated digits are held against those that the generator was trained on and against the 2,000
that neither net ever saw; the training digits, held against the unseen ones, show what no generator
can be asked to beat. The figures are not Inception FID: compare them only with each other.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor

from edgevision.metrics.images import frechet_distance, precision_recall
from edgevision.models.digit_classifier import DigitClassifier
from edgevision.models.gan import digit_generator

SHIPPED = Path(__file__).parents[1] / "checkpoints"
KEPT_OUT = 2000
BATCH = 500


def main() -> None:
    """Parse the arguments, score, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits", type=Path, required=True, help=".npz with images")
    parser.add_argument("--generator", type=Path, default=SHIPPED / "gan-digits/model.safetensors")
    parser.add_argument(
        "--classifier", type=Path, default=SHIPPED / "digit-classifier/model.safetensors"
    )
    parser.add_argument("--count", type=int, default=5000, help="digits to generate")
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args()
    print(json.dumps(score(options), indent=2))


@torch.inference_mode()
def score(options: argparse.Namespace) -> dict[str, object]:
    """Return the scores of `options.generator`."""
    with np.load(options.digits) as file:
        images = torch.from_numpy(file["images"]).float()[:, None] / 127.5 - 1
    generator, classifier = digit_generator().eval(), DigitClassifier().eval()
    generator.load_state_dict(load_file(options.generator))
    classifier.load_state_dict(load_file(options.classifier))
    rng = np.random.default_rng(options.seed)
    latent = rng.standard_normal((options.count, generator.latent_size), dtype=np.float32)
    generated = torch.cat([generator(part) for part in torch.from_numpy(latent).split(BATCH)])

    seen, unseen, made = (
        features(classifier, part) for part in (images[:-KEPT_OUT], images[-KEPT_OUT:], generated)
    )
    shares = classifier.head(torch.from_numpy(made)).softmax(1)
    classes = np.bincount(shares.argmax(1).numpy(), minlength=10) / len(made)
    report: dict[str, object] = {
        "frechet distance": {
            "generated to training": frechet_distance(seen, made),
            "generated to unseen": frechet_distance(unseen, made),
            "training to unseen": frechet_distance(unseen, seen),
        },
        "classifier is 90 % sure": (shares.amax(1) >= 0.9).float().mean().item(),
        "share of each digit": classes.round(3).tolist(),
    }
    # Neighbourhoods hang on how many they are: as many of each.
    for name, candidate in (("generated", made), ("training", seen)):
        found = precision_recall(unseen, candidate[:KEPT_OUT])
        report[f"{name} to unseen"] = {"precision": found.precision, "recall": found.recall}
    return report


def features(classifier: DigitClassifier, images: Tensor) -> npt.NDArray[np.float32]:
    """Return `features: float32[N, D]` of `images: float32[N, 1, 28, 28], -1 to 1`."""
    return torch.cat([classifier.features(part) for part in images.split(BATCH)]).numpy()


if __name__ == "__main__":
    main()

"""The shipped digit classifier, on digits that it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from edgevision.metrics.images import frechet_distance, precision_recall
from edgevision.models.digit_classifier import DigitClassifier

ROOT = Path(__file__).parents[2]


def classifier() -> DigitClassifier:
    net = DigitClassifier().eval()
    net.load_state_dict(load_file(ROOT / "checkpoints" / "digit-classifier" / "model.safetensors"))
    return net


def digits() -> tuple[torch.Tensor, np.ndarray]:
    with np.load(ROOT / "tests" / "data" / "digits.npz") as file:
        return torch.from_numpy(file["images"]).float()[:, None] / 127.5 - 1, file["labels"]


@torch.inference_mode()
def test_the_classifier_knows_digits_it_never_saw() -> None:
    images, labels = digits()
    right = (classifier()(images).argmax(1).numpy() == labels).mean()
    assert right >= 0.98


@torch.inference_mode()
def test_its_features_tell_digits_from_worse_ones() -> None:
    images, _ = digits()
    net = classifier()
    torch.manual_seed(0)
    first, second = images[:250], images[250:]
    worse = [second + level * torch.randn_like(second) for level in (0.5, 1.0)]
    sets = [net.features(part).numpy() for part in (first, second, *worse)]
    distances = [frechet_distance(sets[0], other) for other in sets[1:]]
    assert distances == sorted(distances)
    assert distances[0] < distances[1] / 2
    assert (
        precision_recall(sets[0], sets[1]).precision > precision_recall(sets[0], sets[3]).precision
    )

"""The shipped digit nets, held against digits that they never saw."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import edgevision
from edgevision.metrics.images import frechet_distance, precision_recall
from edgevision.models.digit_classifier import DigitClassifier
from edgevision.models.gan import digit_generator
from tests.parts.nets import import_example

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


@torch.inference_mode()
def test_the_generator_makes_every_digit_and_is_far_better_than_untrained() -> None:
    images, _ = digits()
    torch.manual_seed(0)
    untrained, trained = digit_generator().eval(), digit_generator().eval()
    weights = ROOT / "checkpoints" / "gan-digits" / "model.safetensors"
    assert weights.stat().st_size <= 6_000_000
    trained.load_state_dict(load_file(weights))
    net = classifier()
    latent = torch.randn(500, trained.latent_size)
    real, made, before = (
        net.features(part).numpy() for part in (images, trained(latent), untrained(latent))
    )
    assert frechet_distance(real, made) < frechet_distance(real, before) / 5
    shares = net(trained(latent)).argmax(1).bincount(minlength=10) / len(latent)
    assert shares.min() > 0.02
    assert precision_recall(real, made).recall > 0.7


def test_the_example_scores_each_form_of_bundles(tmp_path: Path) -> None:
    for precision in ("fp32", "int8"):
        edgevision.build("gan-digits", tmp_path / f"{precision}.ev", precision=precision)
    bundles = [tmp_path / "fp32.ev", tmp_path / "int8.ev"]
    digits = ROOT / "tests" / "data" / "digits.npz"
    score = import_example("score_digit_bundles").score
    found = score(Namespace(bundles=bundles, digits=digits, count=200))
    assert list(found) == ["fp32.ev graph", "int8.ev graph", "int8.ev host-cpu"]
    assert all(form["label agreement"] > 0.95 for form in found.values())

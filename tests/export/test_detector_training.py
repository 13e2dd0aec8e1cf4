"""The small FCOS on a handful of scenes: its losses, which place finds what, and a resumed run."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from edgevision.export.zoo import zoo_entry
from edgevision.models.fcos import fcos_mobilenet_v2
from edgevision.models.mask_rcnn import maskrcnn_mobilenet_v2
from tests.parts.nets import import_example


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return import_example("train_detector")


def test_a_resumed_run_repeats_an_unbroken_one(
    example: ModuleType, digits_and_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def options(out: str, *, resume: bool = False) -> Namespace:
        return Namespace(
            digits=digits_and_photos / "digits.npz", photos=digits_and_photos, out=tmp_path / out,
            start=zoo_entry("maskrcnn-digits").weights, epochs=2, steps=1, batch=2, lr=2e-3,
            seed=3, scored=1, resume=resume,
        )  # fmt: skip

    example.train(options("whole"))
    saved = example.save_state

    def interrupt(*parts: object) -> None:
        saved(*parts)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(example, "save_state", interrupt)
        example.train(options("broken"))
    example.train(options("broken", resume=True))
    whole, broken = (load_file(tmp_path / out / "model.safetensors") for out in ("whole", "broken"))
    for name, values in whole.items():
        np.testing.assert_array_equal(values, broken[name], err_msg=name)
    rows = (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [0, 1]
    assert (tmp_path / "whole" / "scenes.png").is_file()


def test_the_start_is_the_mask_r_cnn_s_backbone_without_its_finest_map(example: ModuleType) -> None:
    net = fcos_mobilenet_v2(10)
    theirs = maskrcnn_mobilenet_v2(11)
    net.backbone.load_state_dict(example.start_of(theirs.state_dict(), net))
    picture = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        ours, wanted = (list(x.eval()(picture).values()) for x in (net.backbone, theirs.backbone))
    for found, expected in zip(ours, wanted[1:], strict=True):
        torch.testing.assert_close(found, expected)


def test_a_place_has_the_smallest_object_around_it_that_its_map_is_for() -> None:
    losses = import_example("detector_losses")
    places = torch.tensor([[20.0, 20.0], [60.0, 60.0], [56.0, 56.0], [100.0, 10.0]])
    strides = torch.tensor([8.0, 8.0, 16.0, 8.0])
    boxes = torch.tensor([[[10.0, 10, 34, 34], [12, 12, 32, 32], [20, 20, 100, 100], [0, 0, 0, 0]]])
    labels = torch.tensor([[1, 2, 3, 0]])
    owner, is_object = losses.assign(places, strides, boxes, labels, 32)
    # The large one is for the coarser map only.
    assert is_object.tolist() == [[True, False, True, False]]
    assert owner[0, [0, 2]].tolist() == [1, 2]


def test_boxes_that_agree_cost_nothing_and_far_ones_the_most() -> None:
    losses = import_example("detector_losses")
    found = torch.tensor([[0.0, 0, 10, 20], [0, 0, 10, 10], [0, 0, 10, 10]])
    targets = torch.tensor([[0.0, 0, 10, 20], [5, 0, 15, 10], [90, 90, 100, 100]])
    overlap, generalized = losses.agreement(found, targets)
    torch.testing.assert_close(overlap, torch.tensor([1.0, 1 / 3, 0.0]))
    torch.testing.assert_close(generalized, torch.tensor([1.0, 1 / 3, -0.98]))

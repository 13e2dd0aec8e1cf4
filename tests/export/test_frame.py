"""The pixel front end of all adapters: what it computes, and arguments that make no sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from edgevision.export.adapters.frame import CameraInput, FrontEnd, class_labels
from edgevision.export.adapters.resize import ResizeCrop

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)


def pixels(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_pixels_are_normalised_in_rgb(order: str) -> None:
    camera = CameraInput.check((6, 8), None, order)
    frame = pixels((6, 8))
    given = frame if order == "rgb" else np.ascontiguousarray(frame[..., ::-1])
    found = FrontEnd(camera, MEAN, STD)(torch.from_numpy(given))
    wanted = (frame / 255.0 - MEAN) / STD
    np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), wanted, atol=1e-5)


def test_a_frame_of_another_size_is_stretched_or_fitted() -> None:
    camera = CameraInput.check((6, 6), (9, 14), "rgb")
    frame = torch.from_numpy(pixels((9, 14)))
    whole = FrontEnd(camera, MEAN, STD, fit=nn.Identity())(frame)
    stretched = interpolate(whole, size=(6, 6), mode="bilinear", align_corners=False)
    assert torch.equal(FrontEnd(camera, MEAN, STD)(frame), stretched)
    crop = ResizeCrop((9, 14), (6, 6), 7)
    assert torch.equal(FrontEnd(camera, MEAN, STD, fit=crop)(frame), crop(whole))


def test_what_the_run_side_is_told() -> None:
    camera = CameraInput.check((6, 6), (9, 14), "bgr", cameras=2)
    sizes = {"size": [6, 6], "input_size": [9, 14]}
    assert camera.settings() == {**sizes, "channel_order": "bgr", "cameras": 2}
    assert str(camera.tensor.shape) == "(2, 9, 14, 3)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 6), None, "rgb"), "size: got"),
        (((6, 6), (6, 10**6), "rgb"), "input_size: got"),
        (((6, 6), None, "grey"), "expected rgb or bgr"),
    ],
)
def test_frames_that_make_no_sense(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CameraInput.check(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("cameras", [0, 65, (2, 1), (1, 65), (1, 2, 3), True, "6", (1.0, 2)])
def test_numbers_of_cameras_that_make_no_sense(cameras: object) -> None:
    with pytest.raises(ValueError, match=r"cameras: got .*, expected"):
        CameraInput.check((6, 6), None, "rgb", cameras=cameras)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mean", "std"), [(MEAN[:2], STD), (MEAN, (1, 0, 1)), (MEAN, (1, 2, np.inf))]
)
def test_channels_that_make_no_sense(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected three numbers on the 0-1 scale"):
        FrontEnd(CameraInput.check((6, 6), None, "rgb"), mean, std)


def test_colours_are_given_or_far_from_their_neighbours() -> None:
    labels = class_labels(["road", ("sky", "#ABCDEF"), "tree"])
    assert labels[1] == ("sky", "#abcdef")
    assert len({color for _, color in labels}) == 3
    for classes in ("road", [], ["a", "a"], [("a", "red")]):
        with pytest.raises(ValueError, match="classes: "):
            class_labels(classes)

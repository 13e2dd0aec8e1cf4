"""Boxes drawn on a frame, each with its caption."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgevision._optional import require
from edgevision.bundle.tensors import Floats, Image

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


def draw_boxes(
    picture: Image, boxes: Floats, colors: Sequence[Floats], captions: Sequence[str]
) -> Image:
    """Return `picture`, uint8[H, W, 3], with the boxes on it, the first on top.

    Args:
        picture: is drawn on.
        boxes: float32[N, 4] x1 y1 x2 y2 in its pixels.
        colors: float32[3] of each, RGB 0 to 255.
        captions: written over each box, light on dark colours and dark on light.
    """
    for index in range(len(boxes) - 1, -1, -1):
        _frame_box(picture, boxes[index], colors[index].astype(np.uint8))
    image = require("PIL.Image", extra="media").fromarray(picture)
    draw = require("PIL.ImageDraw", extra="media").Draw(image)
    height, width = picture.shape[:2]
    font = require("PIL.ImageFont", extra="media").load_default(max(9, height // 36))
    for index, text in reversed(list(enumerate(captions))):
        color = tuple(int(v) for v in colors[index])
        _, _, right, bottom = draw.textbbox((0, 0), text, font=font)
        x = int(np.clip(boxes[index][0], 0, max(width - right - 2, 0)))
        y = int(np.clip(boxes[index][1] - bottom - 2, 0, height))
        draw.rectangle((x, y, x + right + 2, y + bottom + 2), fill=color)
        ink = "black" if np.dot(color, _LUMINANCE) > 140 else "white"
        draw.text((x + 1, y + 1), text, ink, font)
    return np.array(image)


def _frame_box(picture: Image, box: Floats, color: Image) -> None:
    height, width = picture.shape[:2]
    x1, x2 = (int(np.clip(x, 0, width - 1)) for x in box[0::2])
    y1, y2 = (int(np.clip(y, 0, height - 1)) for y in box[1::2])
    picture[[y1, y2], x1 : x2 + 1] = color
    picture[y1 : y2 + 1, [x1, x2]] = color

"""Non-maximum suppression as matrix products: no loop, no shape that depends on the data.

Greedy suppression keeps a box unless a better kept box overlaps it too much. That is a fixed point
of `keep = no kept box before me overlaps me`, reached from above and below in as many steps as the
longest chain of boxes that suppress each other. A flag says whether it was reached.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 16


def suppress(
    boxes: Tensor, valid: Tensor, overlap: float, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return which boxes greedy suppression keeps, and whether that is certain.

    Args:
        boxes: float32[..., K, 4] x1 y1 x2 y2, best first.
        valid: float32[..., K], 1 for boxes that count and 0 for padding.
        overlap: intersection over union above which the later of two boxes goes.
        labels: int64[..., K], where boxes of different labels leave each other alone.

    Returns:
        keep: float32[..., K], 1 or 0.
        converged: float32[...], 1 where one more step would change nothing.
    """
    hits = _overlaps(boxes, overlap) * valid[..., :, None]
    if labels is not None:
        hits = hits * same(labels).to(hits.dtype)
    keep = valid
    before = keep
    for _ in range(STEPS):
        before = keep
        keep = valid * ((keep[..., None, :] @ hits)[..., 0, :] < 0.5).to(valid.dtype)
    converged = ((keep - before).abs().amax(-1) < 0.5).to(valid.dtype)
    return keep, converged


def same(labels: Tensor) -> Tensor:
    """Return bool[..., K, K], whether two of `labels: int64[..., K]` are one."""
    return labels[..., :, None] == labels[..., None, :]


def _overlaps(boxes: Tensor, overlap: float) -> Tensor:
    """Return float32[..., K, K], 1 where the row's box comes first and overlaps the column's."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    area = (x2 - x1) * (y2 - y1)
    width = (_least(x2) - _most(x1)).clamp(min=0)
    height = (_least(y2) - _most(y1)).clamp(min=0)
    shared = width * height
    union = area[..., :, None] + area[..., None, :] - shared
    # Without a division, so that boxes without an area overlap nothing.
    hit = (shared > overlap * union).to(boxes.dtype)
    return torch.triu(hit, diagonal=1)


def _least(side: Tensor) -> Tensor:
    return torch.minimum(side[..., :, None], side[..., None, :])


def _most(side: Tensor) -> Tensor:
    return torch.maximum(side[..., :, None], side[..., None, :])

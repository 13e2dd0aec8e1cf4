"""What FCOS learns from: which place finds which object, and the losses of its boxes and scores.

Sources: Tian et al. 2019, "FCOS", section 3.2, and its sampling around the centre; Li et al. 2020,
"Generalized Focal Loss", equation 2; Rezatofighi et al. 2019, "Generalized Intersection over
Union". Boxes are `float32[..., 4]` x1 y1 x2 y2 in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from edgevision.models.fcos import FCOS

# In strides: how far from an object's centre a place may be, and the longest side a map is for.
CENTRE, LONGEST = 1.5, 5.5


def losses(net: FCOS, frames: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the two losses of `frames: float32[N, 3, H, W]`, normalised.

    Args:
        net: in training.
        frames: as the net sees them.
        boxes: float32[N, M, 4], padded with zeros.
        labels: int64[N, M] from 1, 0 for padding.
    """
    found, logits, places, strides = net.raw(frames)
    owner, is_object = assign(places, strides, boxes, labels, max(net.strides))
    targets = boxes.gather(1, owner[..., None].expand(*owner.shape, 4))
    overlap, generalized = agreement(found[is_object], targets[is_object])
    wanted = torch.zeros_like(logits)
    frame, place = is_object.nonzero(as_tuple=True)
    wanted[frame, place, labels.gather(1, owner)[is_object] - 1] = overlap.detach()
    distance = (wanted - logits.sigmoid()).abs()
    focal = distance**2 * binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    count = max(len(frame), 1)
    return {"score": focal.sum() / count, "box": (1 - generalized).sum() / count}


def assign(
    places: Tensor, strides: Tensor, boxes: Tensor, labels: Tensor, coarsest: int
) -> tuple[Tensor, Tensor]:
    """Return int64[N, P], the object of each place, and bool[N, P], whether it has one.

    A place has the smallest object that its map is for, that it lies in, and whose centre is near.
    """
    at = places[:, None]
    low, high = boxes[:, None, :, :2], boxes[:, None, :, 2:]
    is_inside = ((at > low) & (at < high)).all(-1)
    is_near = ((at - (low + high) / 2).abs() <= CENTRE * strides[:, None, None]).all(-1)
    longest = (high - low).amax(-1)
    most = torch.where(strides == coarsest, torch.inf, LONGEST * strides)[:, None]
    least = torch.where(strides == strides.min(), 0.0, LONGEST * strides / 2)[:, None]
    fits = is_inside & is_near & (longest > least) & (longest <= most) & (labels > 0)[:, None]
    area = torch.where(fits, (high - low).prod(-1), torch.inf)
    smallest, owner = area.min(-1)
    return owner, smallest.isfinite()


def agreement(found: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return intersection over union, float32[K], and the generalized one, -1 to 1."""
    shared = _area(
        torch.maximum(found[:, :2], targets[:, :2]), torch.minimum(found[:, 2:], targets[:, 2:])
    )
    union = _area(found[:, :2], found[:, 2:]) + _area(targets[:, :2], targets[:, 2:]) - shared
    around = _area(
        torch.minimum(found[:, :2], targets[:, :2]), torch.maximum(found[:, 2:], targets[:, 2:])
    )
    overlap = shared / union.clamp(min=1e-6)
    return overlap, overlap - (around - union) / around.clamp(min=1e-6)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)

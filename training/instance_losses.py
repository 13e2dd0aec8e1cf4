"""What Mask R-CNN learns from: the losses of its proposals, boxes, classes and masks.

Sources: Ren et al. 2015, "Faster R-CNN", section 3.1.2 (which anchor is an object, and the loss);
He et al. 2017, "Mask R-CNN", section 3 (the mask's loss is only that of its true class). Boxes are
`float32[..., 4]` x1 y1 x2 y2 in pixels. Every tensor has a fixed shape: what does not count has
weight 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    grid_sample,
    smooth_l1_loss,
)

from edgevision.export.adapters.detections import (
    BOX_BINS,
    DELTA_WEIGHTS,
    MASK_BINS,
    Detections,
    by_anchor,
)

# Of a frame: anchors that count, and regions; at most half and a quarter of them are objects.
ANCHORS, REGIONS = 128, 64
OBJECT_ANCHOR, GROUND_ANCHOR, OBJECT_REGION = 0.7, 0.3, 0.5
PLAIN = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Truth:
    """The objects of a batch, padded to as many in each frame; a padded box is all zeros.

    Attributes:
        boxes: float32[N, M, 4].
        labels: int64[N, M], 0 for padding.
        masks: float32[N, M, H, W], 0 or 1.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor


def losses(module: Any, graph: Detections, frames: Tensor, truth: Truth) -> dict[str, Tensor]:
    """Return the five losses of `frames: float32[N, 3, H, W]`, normalised."""
    maps = list(module.backbone(frames).values())
    logits, deltas = module.rpn.head(maps)
    pairs = [by_anchor(*pair) for pair in zip(logits, deltas, strict=True)]
    objectness, moves = torch.cat([p[0] for p in pairs], 1), torch.cat([p[1] for p in pairs], 1)
    found = _proposal_losses(torch.cat(graph.anchors()), objectness, moves, truth)
    with torch.no_grad():
        proposals, valid, _ = graph.proposals(logits, deltas)
        regions, owner, is_object, counts = _sampled(proposals, valid, truth)
    atlas = graph.sampler.atlas(maps[:-1])
    found |= _box_losses(module, graph, atlas, regions, owner, is_object, counts, truth)
    most = REGIONS // 4
    found["mask"] = _mask_loss(
        module, graph, atlas, regions[:, :most], owner[:, :most], is_object[:, :most], truth
    )
    return found


def _proposal_losses(
    anchors: Tensor, objectness: Tensor, moves: Tensor, truth: Truth
) -> dict[str, Tensor]:
    with torch.no_grad():
        overlap = overlaps(truth.boxes, anchors.expand(len(truth.boxes), *anchors.shape))
        best, owner = overlap.max(1)
        # The best anchor of each object counts, however little it overlaps.
        nearest = (overlap == overlap.amax(2, keepdim=True)) & (overlap > 0)
        positive = (best >= OBJECT_ANCHOR) | nearest.any(1)
        negative = (best < GROUND_ANCHOR) & ~positive
        chosen = _drawn(positive, ANCHORS // 2)
        others = _drawn(negative, ANCHORS - ANCHORS // 2)
        boxes = _of(truth.boxes, owner)
        targets = encode(anchors, boxes, PLAIN)
    weight = (chosen | others).float()
    object_loss = binary_cross_entropy_with_logits(
        objectness, chosen.float(), weight, reduction="sum"
    )
    box_loss = smooth_l1_loss(moves[chosen], targets[chosen], beta=1 / 9, reduction="sum")
    return {"objectness": object_loss / weight.sum(), "proposal": box_loss / weight.sum()}


def _sampled(
    proposals: Tensor, valid: Tensor, truth: Truth
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return regions float32[N, R, 4], objects first, their owners, and which are and count."""
    boxes = torch.cat([truth.boxes, proposals], 1)
    valid = torch.cat([(truth.labels > 0).float(), valid], 1) > 0
    best, owner = overlaps(truth.boxes, boxes).max(1)
    positive = _drawn(valid & (best >= OBJECT_REGION), REGIONS // 4)
    negative = valid & (best < OBJECT_REGION)
    order = (2.0 * positive + negative + torch.rand(valid.shape)).argsort(1, descending=True)
    order = order[:, :REGIONS]
    counts = (positive | negative).gather(1, order)
    return _of(boxes, order), owner.gather(1, order), positive.gather(1, order), counts


def _box_losses(
    module: Any,
    graph: Detections,
    atlas: Tensor,
    regions: Tensor,
    owner: Tensor,
    is_object: Tensor,
    counts: Tensor,
    truth: Truth,
) -> dict[str, Tensor]:
    heads = module.roi_heads
    cut = graph.sampler(atlas, regions, BOX_BINS)
    logits, moves = heads.box_predictor(heads.box_head(cut.flatten(0, 1)))
    labels = (truth.labels.gather(1, owner) * is_object).flatten()
    weight = counts.flatten().float()
    class_loss = (cross_entropy(logits, labels, reduction="none") * weight).sum() / weight.sum()
    rows = is_object.flatten().nonzero()[:, 0]
    own = moves.view(len(moves), -1, 4)[rows, labels[rows]]
    targets = encode(regions, _of(truth.boxes, owner), DELTA_WEIGHTS).flatten(0, 1)[rows]
    box_loss = smooth_l1_loss(own, targets, beta=1 / 9, reduction="sum") / weight.sum()
    return {"class": class_loss, "box": box_loss}


def _mask_loss(
    module: Any,
    graph: Detections,
    atlas: Tensor,
    regions: Tensor,
    owner: Tensor,
    is_object: Tensor,
    truth: Truth,
) -> Tensor:
    heads = module.roi_heads
    rows = is_object.flatten().nonzero()[:, 0]
    if not len(rows):
        return atlas.sum() * 0
    cut = graph.sampler(atlas, regions, MASK_BINS).flatten(0, 1)[rows]
    logits = heads.mask_predictor(heads.mask_head(cut))
    labels = truth.labels.gather(1, owner).flatten()[rows]
    own = logits[torch.arange(len(rows)), labels]
    frame = torch.arange(len(regions))[:, None].expand_as(owner).flatten()[rows]
    masks = truth.masks[frame, owner.flatten()[rows]]
    return binary_cross_entropy_with_logits(
        own, cut_masks(masks, regions.flatten(0, 1)[rows], own.shape[-1])
    )


def cut_masks(masks: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Return float32[R, side, side]: what each box sees of its mask `float32[R, H, W]`."""
    height, width = masks.shape[-2:]
    places = (torch.arange(side) + 0.5) / side
    x = boxes[:, 0:1] + places * (boxes[:, 2:3] - boxes[:, 0:1])
    y = boxes[:, 1:2] + places * (boxes[:, 3:4] - boxes[:, 1:2])
    grid = torch.stack(
        [
            (x / width * 2 - 1)[:, None, :].expand(-1, side, side),
            (y / height * 2 - 1)[:, :, None].expand(-1, side, side),
        ],
        -1,
    )
    return grid_sample(masks[:, None], grid, align_corners=False)[:, 0]


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Return float32[N, A, B]: intersection over union, 0 with a box that has no area."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    return shared / (areas[0][:, :, None] + areas[1][:, None] - shared).clamp(min=1e-6)


def encode(boxes: Tensor, targets: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Return the deltas that `detections.decode` turns into `targets`."""
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3)
    wanted = (targets[..., 2:] - targets[..., :2]).clamp(min=1e-3)
    move = (targets[..., :2] + wanted / 2 - boxes[..., :2] - size / 2) / size
    return torch.cat([move, (wanted / size).log()], -1) * torch.tensor(weights)


def _of(boxes: Tensor, index: Tensor) -> Tensor:
    """Return `boxes: float32[N, M, 4]` at `index: int64[N, K]`."""
    return boxes.gather(1, index[..., None].expand(*index.shape, 4))


def _drawn(mask: Tensor, most: int) -> Tensor:
    """Return at most `most` of the places of `mask: bool[N, K]` in each row, at random."""
    rank = (mask + torch.rand(mask.shape)).argsort(1, descending=True).argsort(1)
    return mask & (rank < most)

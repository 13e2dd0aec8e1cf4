"""Inference of Faster and Mask R-CNN as one static graph: detections of a fixed number, counted.

Everything that depends on the data becomes a fixed number of places and a flag for each: the best
anchors by TopK, suppression by matrix products, regions by one GridSample. Sources: He et al. 2017,
"Mask R-CNN"; Ren et al. 2015, "Faster R-CNN", section 3.1 and equation 2; torchvision's detection
package for the order of thresholds, clipping and suppression, which is what trained nets expect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from edgevision.export.adapters.frame import CameraInput, FrontEnd
from edgevision.export.adapters.regions import RegionSampler
from edgevision.export.adapters.suppression import suppress
from edgevision.models.mask_rcnn import DetectionSettings

CANDIDATES = 1000
MOST_PLACES = 3840
"""TensorRT's limit of K in TopK."""

BOX_BINS, MASK_BINS = 7, 14
DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_LONGEST_STEP = math.log(1000.0 / 16)
_MIN_PROPOSAL, _MIN_DETECTION = 1e-3, 1e-2


class Detections(FrontEnd):
    """The fused graph: frame in, boxes, labels, scores, masks and counts out.

    Without masks, of a Faster R-CNN, where `masks` is "none".
    """

    to_frame: Tensor

    def __init__(
        self,
        module: Any,
        settings: DetectionSettings,
        camera: CameraInput,
        *,
        masks: str = "cells",
    ) -> None:
        """Read the maps' shapes off one pass of the backbone over zeros."""
        super().__init__(camera, settings.mean, settings.std)
        self.backbone, self.head, self.heads = module.backbone, module.rpn.head, module.roi_heads
        size, input_size = camera.size, camera.input_size
        self.settings, self.size, self.input_size = settings, size, input_size
        self.masks, self.placement = masks, camera.placement
        height, width = (there / here for there, here in zip(input_size, size, strict=True))
        self.register_buffer("to_frame", torch.tensor([width, height, width, height]))
        with torch.no_grad():
            maps = list(self.backbone(torch.zeros(1, 3, *size)).values())
        shapes = [(int(x.shape[-2]), int(x.shape[-1])) for x in maps]
        # The coarsest map, "pool", is only for proposals.
        self.sampler = RegionSampler(shapes[:-1], [size[0] // height for height, _ in shapes[:-1]])
        self.levels = len(shapes)
        for index, shape in enumerate(shapes):
            anchors = grid_anchors(
                shape, size, settings.anchor_sizes[index], settings.aspect_ratios
            )
            self.register_buffer(f"anchors_{index}", anchors)

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Return boxes, labels, scores, masks if any, count, overflow and converged of `frame`."""
        maps = list(self.backbone(self.pixels(frame)).values())
        proposals, valid, settled = self.proposals(*self.head(maps))
        atlas = self.sampler.atlas(maps[:-1])
        boxes, labels, scores, overflow, also_settled = self._detections(atlas, proposals, valid)
        real = (scores > 0).to(scores.dtype)
        placed = boxes * self.to_frame if self.camera.is_stretched else self.placement.boxes(boxes)
        placed = placed * real[..., None]
        masks = []
        if self.masks != "none":
            cells = self._masks(atlas, boxes, labels) * real[..., None, None]
            masks = [paste(placed, cells, self.input_size) if self.masks == "frame" else cells]
        return (
            placed,
            (labels * real.long()).to(torch.int32),
            scores * real,
            *masks,
            real.sum(-1).to(torch.int32),
            overflow,
            (settled * also_settled).to(torch.int32),
        )

    def anchors(self) -> list[Tensor]:
        """Return each map's anchors, float32[h w A, 4] x1 y1 x2 y2 px."""
        return [getattr(self, f"anchors_{index}") for index in range(self.levels)]

    def proposals(
        self, all_logits: Sequence[Tensor], all_deltas: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best boxes `float32[N, R, 4]`, which of them count, and convergence."""
        before, after = self.settings.proposals
        all_anchors = self.anchors()
        most = min(before, max(len(anchors) for anchors in all_anchors))
        boxes, scores = [], []
        for anchors, logits, deltas in zip(all_anchors, all_logits, all_deltas, strict=True):
            flat, moves = by_anchor(logits, deltas)
            count, places = flat.shape
            kept = min(before, places)
            best, chosen = flat.topk(kept, dim=1)
            picked = chosen[..., None].expand(count, kept, 4)
            box = decode(
                anchors.expand(count, places, 4).gather(1, picked),
                moves.gather(1, picked),
                (1.0, 1.0, 1.0, 1.0),
            )
            box = clip(box, self.size)
            score = best.sigmoid()
            usable = is_large(box, _MIN_PROPOSAL) * (score >= self.settings.proposal_score)
            score = torch.where(usable > 0, score, torch.full_like(score, -1))
            boxes.append(pad(box, (0, 0, 0, most - kept)))
            scores.append(pad(score, (0, most - kept), value=-1.0))
        box, score = torch.stack(boxes, 1), torch.stack(scores, 1)
        valid = (score >= 0).to(score.dtype)
        keep, settled = suppress(box, valid, self.settings.proposal_overlap)
        score = torch.where(keep > 0, score, torch.full_like(score, -1))
        flat = score.flatten(1)
        kept = min(after, flat.shape[1])
        best, chosen = flat.topk(kept, dim=1)
        picked = chosen[..., None].expand(*chosen.shape, 4)
        real = (best >= 0).to(best.dtype)
        found = box.flatten(1, 2).gather(1, picked) * real[..., None]
        return found, real, settled.amin(1)

    def _detections(
        self, atlas: Tensor, proposals: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the best boxes, labels and scores, the number of candidates, and convergence."""
        count, regions = proposals.shape[:2]
        cut = self.sampler(atlas, proposals, BOX_BINS)
        hidden = self.heads.box_head(cut.reshape(count * regions, *cut.shape[2:]))
        logits, deltas = self.heads.box_predictor(hidden)
        classes = logits.shape[-1] - 1
        score = logits.softmax(-1)[:, 1:].reshape(count, regions, classes) * valid[..., None]
        moves = deltas.reshape(count, regions, classes + 1, 4)[:, :, 1:]
        # Of what shows the frame: a box must not reach into the bars of a letterbox.
        boxes = decode(proposals[:, :, None].expand_as(moves), moves, DELTA_WEIGHTS)
        boxes = clip(boxes, self.size, self.placement.bounds())
        usable = is_large(boxes, _MIN_DETECTION) * (score > self.settings.score)
        score = torch.where(usable > 0, score, torch.full_like(score, -1)).flatten(1)
        candidates = (score > 0).to(torch.int32).sum(-1).to(torch.int32)
        kept = min(CANDIDATES, regions * classes)
        best, chosen = score.topk(kept, dim=1)
        boxes = boxes.flatten(1, 2).gather(1, chosen[..., None].expand(count, kept, 4))
        labels = chosen % classes + 1
        valid = (best > 0).to(best.dtype)
        keep, settled = suppress(boxes, valid, self.settings.overlap, labels)
        best = torch.where(keep > 0, best, torch.full_like(best, -1))
        least = min(self.settings.detections, kept)
        best, chosen = best.topk(least, dim=1)
        boxes = boxes.gather(1, chosen[..., None].expand(count, least, 4))
        return boxes, labels.gather(1, chosen), best, candidates, settled

    def _masks(self, atlas: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """Return each detection's mask of its own class, `float32[N, D, 28, 28]`."""
        count, places = boxes.shape[:2]
        cut = self.sampler(atlas, boxes, MASK_BINS)
        hidden = self.heads.mask_head(cut.reshape(count * places, *cut.shape[2:]))
        masks: Tensor = self.heads.mask_predictor(hidden).sigmoid()
        side = masks.shape[-1]
        chosen = labels.reshape(-1, 1, 1, 1).expand(-1, 1, side, side)
        return masks.gather(1, chosen).reshape(count, places, side, side)


def by_anchor(logits: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
    """Return a map's `[N, A, h, w]` and `[N, 4 A, h, w]` as `[N, h w A]` and `[N, h w A, 4]`."""
    count = logits.shape[0]
    moves = deltas.reshape(count, -1, 4, *deltas.shape[-2:]).permute(0, 3, 4, 1, 2)
    return logits.permute(0, 2, 3, 1).reshape(count, -1), moves.reshape(count, -1, 4)


def grid_anchors(
    shape: tuple[int, int], size: tuple[int, int], sizes: Sequence[int], ratios: Sequence[float]
) -> Tensor:
    """Return float32[h w A, 4]: anchors around each place of a map of `size`, row by row."""
    base = []
    for ratio in ratios:
        root = math.sqrt(ratio)
        for side in sizes:
            width, height = side / root, side * root
            base.append([-width / 2, -height / 2, width / 2, height / 2])
    centred = torch.tensor(base).round()
    # A stride for each axis: half of an odd side is rounded up in the coarsest map.
    rows, columns = (
        torch.arange(places) * (pixels // places)
        for places, pixels in zip(shape, size, strict=True)
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    shifts = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (shifts + centred).reshape(-1, 4).float()


def decode(boxes: Tensor, deltas: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Return `boxes` moved and resized by `deltas`, both float32[..., 4]."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    dx, dy, dw, dh = (deltas[..., i] / weights[i] for i in range(4))
    x = dx * width + boxes[..., 0] + 0.5 * width
    y = dy * height + boxes[..., 1] + 0.5 * height
    half_width = 0.5 * dw.clamp(max=_LONGEST_STEP).exp() * width
    half_height = 0.5 * dh.clamp(max=_LONGEST_STEP).exp() * height
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], -1)


def clip(
    boxes: Tensor, size: tuple[int, int], bounds: tuple[int, int, int, int] | None = None
) -> Tensor:
    """Return `boxes` without what lies outside the picture, or outside x1 y1 x2 y2 of it."""
    left, top, right, bottom = bounds or (0, 0, size[1], size[0])
    x = boxes[..., 0::2].clamp(left, right)
    y = boxes[..., 1::2].clamp(top, bottom)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1)


def is_large(boxes: Tensor, least: float) -> Tensor:
    """Return 1 where both sides are at least `least`, else 0."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return ((width >= least) & (height >= least)).to(boxes.dtype)


def paste(boxes: Tensor, cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Return each object's pixels, uint8[N, D, *size], 1 where its mask is over one half.

    Two matrix products resize a mask and put it in its place, as torchvision's `paste_masks` does:
    a border of one cell around, corners cut to whole pixels, then bilinear.
    """
    side = cells.shape[-1]
    x1, y1, x2, y2 = boxes.unbind(-1)
    grown = (side + 2) / side / 2
    rows = _weights((y1 + y2) / 2, (y2 - y1) * grown, side + 2, size[0])
    columns = _weights((x1 + x2) / 2, (x2 - x1) * grown, side + 2, size[1])
    found = rows @ pad(cells, (1, 1, 1, 1)) @ columns.transpose(-1, -2)
    return (found > 0.5).to(torch.uint8)


def _weights(centre: Tensor, half: Tensor, cells: int, pixels: int) -> Tensor:
    """Return float32[..., pixels, cells]: how much of each cell each pixel of the frame takes."""
    first, last = (centre - half).trunc(), (centre + half).trunc()
    width = (last - first + 1).clamp(min=1)[..., None]
    offset = torch.arange(pixels, device=centre.device) - first[..., None]
    inside = ((offset >= 0) & (offset < width)).to(centre.dtype)
    place = ((offset + 0.5) * (cells / width) - 0.5).clamp(0, cells - 1)
    distance = (place[..., None] - torch.arange(cells, device=centre.device)).abs()
    return (1 - distance).clamp(min=0) * inside[..., None]


def names() -> Mapping[str, str]:
    """Return the outputs' names in order, and what each is."""
    return {
        "boxes": "float32[N, D, 4] x1 y1 x2 y2 in pixels of the frame",
        "labels": "int32[N, D], 0 where there is no detection",
        "scores": "float32[N, D], best first, 0 where there is no detection",
        "masks": "float32[N, D, 28, 28], the probability of each cell of the box; or with masks of "
        "the frame, uint8[N, D, H, W], 1 where the object is",
        "count": "int32[N], detections",
        "overflow": "int32[N], candidates over the score; beyond 1,000 the worst were left out",
        "converged": "int32[N], 1 where suppression is certainly the greedy one",
    }

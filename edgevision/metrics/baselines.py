"""Classical segmentation of photos, so that a net's score has something to be held against.

Colours learn from labelled frames which class they mostly belong to. A frame is then cut into
regions without any learning, by growing, by splitting and merging, or along edges, and each region
takes the class that most of its colours vote for.

On CamVid val (`training/score_baselines.py`) mIoU is 0.236 for single pixels, 0.233 for growing,
0.234 for splitting and merging, and 0.230 along edges. The bounds below were chosen on a part of
CamVid's train.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from edgevision._optional import require

Frame = npt.NDArray[np.uint8]
ClassMap = npt.NDArray[np.uint8]
Regions = npt.NDArray[np.int64]
Lab = npt.NDArray[np.float64]
Method = Literal["growing", "split-and-merge", "edges"]

# 16 levels of each of red, green and blue, in each of 8 bands from the top to the bottom.
_LEVEL_BITS = 4
_BANDS = 8
_SIGMA_PX = 1.0
# How alike one region is, in CIE 1976 colour differences.
_GROW_WITHIN = 6.0
_SPLIT_ABOVE = 4.0
_MERGE_WITHIN = 3.0
_EDGE_ABOVE = 10.0
# Regions of fewer pixels are not grown; they fall to those around them.
_SMALLEST_PX = 50
_SEED_CELL_PX = 12
_BLOCK_SIDES_PX = (64, 32, 16, 8)


class ColourVotes:
    """Which classes the colours of labelled frames belong to, by how high in the frame they lie."""

    def __init__(self, class_count: int) -> None:
        if not 1 <= class_count <= 256:
            raise ValueError(f"class_count: got {class_count}, expected 1 to 256")
        self.class_count = class_count
        self._counts = np.zeros((_BANDS << 3 * _LEVEL_BITS, class_count))

    def add(self, frame: Frame, labels: npt.NDArray[np.integer]) -> None:
        """Learn from one frame `uint8[H, W, 3]` and its class map `int[H, W]`.

        Labels outside the classes are void, and teach nothing.

        Raises:
            ValueError: the frame is not such an array, or the labels are of another size.
        """
        _check(frame)
        if labels.shape != frame.shape[:2]:
            raise ValueError(f"labels are {labels.shape}, the frame is {frame.shape[:2]}")
        known = (labels >= 0) & (labels < self.class_count)
        flat = _bins(frame)[known] * self.class_count + labels[known]
        self._counts += np.bincount(flat, minlength=self._counts.size).reshape(self._counts.shape)

    def classify(self, frame: Frame, method: Method | None = None) -> ClassMap:
        """Return the class map `uint8[H, W]` of one frame `uint8[H, W, 3]`.

        Args:
            frame: what to segment.
            method: how to find the regions; without one each pixel is its own.

        Raises:
            ValueError: the frame is not such an array, or the method is unknown.
            MissingDependencyError: scikit-image is not installed.
        """
        _check(frame)
        # A colour never seen votes as all colours together do, but lightly.
        common = self._counts.sum(0) / max(1.0, self._counts.sum())
        table = self._counts + common
        shares = table / np.maximum(table.sum(1, keepdims=True), 1e-12)
        bins = _bins(frame)
        if method is None:
            return np.asarray(shares.argmax(1)[bins], np.uint8)
        regions = find_regions(frame, method)
        votes = np.stack(
            [np.bincount(regions.ravel(), shares[:, k][bins.ravel()]) for k in range(len(common))],
            axis=1,
        )
        return np.asarray(votes.argmax(1)[regions], np.uint8)


def find_regions(frame: Frame, method: Method) -> Regions:
    """Cut a frame `uint8[H, W, 3]` into regions, `int64[H, W]` of numbers from 0.

    Raises:
        ValueError: the frame is not such an array, or the method is unknown.
        MissingDependencyError: scikit-image is not installed.
    """
    _check(frame)
    methods = {"growing": _grow, "split-and-merge": _split_and_merge, "edges": _along_edges}
    if method not in methods:
        raise ValueError(f"method: got {method!r}, expected one of {sorted(methods)}")
    color = require("skimage.color", extra="metrics")
    filters = require("skimage.filters", extra="metrics")
    smooth = filters.gaussian(frame, _SIGMA_PX, channel_axis=-1)
    return methods[method](color.rgb2lab(smooth))


def _grow(lab: Lab) -> Regions:
    """Grow regions one by one from where the frame is smoothest.

    Source: Adams and Bischof 1994, "Seeded Region Growing", with a bound in place of a queue.
    """
    filters = require("skimage.filters", extra="metrics")
    segmentation = require("skimage.segmentation", extra="metrics")
    steepness = np.linalg.norm([filters.sobel(lab[..., k]) for k in range(3)], axis=0)
    regions = np.zeros(lab.shape[:2], np.int64)
    count = 0
    for seed in _smoothest_of_cells(steepness):
        if regions[seed]:
            continue
        unlike = np.square(lab - lab[seed]).sum(-1)
        grown = segmentation.flood(
            (unlike <= _GROW_WITHIN**2) & (regions == 0), seed, connectivity=1
        )
        if np.count_nonzero(grown) >= _SMALLEST_PX:
            count += 1
            regions[grown] = count
    return _filled(regions)


def _smoothest_of_cells(steepness: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """Find the flattest pixel of each cell of a grid, the flattest of all first."""
    places = []
    for top in range(0, steepness.shape[0], _SEED_CELL_PX):
        for left in range(0, steepness.shape[1], _SEED_CELL_PX):
            cell = steepness[top : top + _SEED_CELL_PX, left : left + _SEED_CELL_PX]
            row, column = divmod(int(cell.argmin()), cell.shape[1])
            places.append((top + row, left + column))
    return sorted(places, key=lambda place: (float(steepness[place]), place))


def _split_and_merge(lab: Lab) -> Regions:
    """Quarter blocks until each is of one colour, then join neighbours that are alike.

    Source: Horowitz and Pavlidis 1976, "Picture Segmentation by a Tree Traversal Algorithm".
    """
    graph = require("skimage.graph", extra="metrics")
    height, width = lab.shape[:2]
    largest = _BLOCK_SIDES_PX[0]
    padded = np.pad(lab, ((0, -height % largest), (0, -width % largest), (0, 0)), mode="edge")
    rows, columns = padded.shape[:2]
    blocks = np.full((rows, columns), -1, np.int64)
    for side in _BLOCK_SIDES_PX:
        grid = padded.reshape(rows // side, side, columns // side, side, 3)
        alike = np.sqrt(grid.var((1, 3)).sum(-1)) <= _SPLIT_ABOVE
        if side == _BLOCK_SIDES_PX[-1]:
            alike[:] = True
        numbers = blocks.max() + 1 + np.arange(alike.size).reshape(alike.shape)
        whole = np.where(alike, numbers, -1).repeat(side, 0).repeat(side, 1)
        blocks = np.where(blocks < 0, whole, blocks)
    blocks = _numbered(blocks[:height, :width])
    if not blocks.any():
        return blocks  # scikit-image wants two blocks or more.
    neighbours = graph.rag_mean_color(lab, blocks)
    return _numbered(graph.cut_threshold(blocks, neighbours, _MERGE_WITHIN))


def _along_edges(lab: Lab) -> Regions:
    """Flood the frame from the middles of what Canny's edges enclose.

    Source: Canny 1986, "A Computational Approach to Edge Detection"; Vincent and Soille 1991,
    "Watersheds in Digital Spaces".
    """
    feature = require("skimage.feature", extra="metrics")
    segmentation = require("skimage.segmentation", extra="metrics")
    ndimage = require("scipy.ndimage", extra="metrics")
    edges = np.any(
        [
            feature.canny(lab[..., k], low_threshold=_EDGE_ABOVE / 2, high_threshold=_EDGE_ABOVE)
            for k in range(3)
        ],
        axis=0,
    )
    inside = ndimage.distance_transform_edt(~edges) if edges.any() else np.ones(edges.shape)
    peaks = (inside == ndimage.maximum_filter(inside, 7)) & ~edges
    markers, _ = ndimage.label(peaks, np.ones((3, 3)))
    return _numbered(segmentation.watershed(-inside, markers))


def _filled(regions: Regions) -> Regions:
    """Give the pixels of no region (0) to the nearest one."""
    ndimage = require("scipy.ndimage", extra="metrics")
    if regions.any():
        nearest = ndimage.distance_transform_edt(
            regions == 0, return_distances=False, return_indices=True
        )
        regions = regions[tuple(nearest)]
    return _numbered(regions)


def _numbered(regions: npt.NDArray[np.integer]) -> Regions:
    _, numbers = np.unique(regions, return_inverse=True)
    return np.asarray(numbers.reshape(regions.shape), np.int64)


def _bins(frame: Frame) -> npt.NDArray[np.int64]:
    """Number each pixel's colour and band, `int64[H, W]`."""
    level = frame.astype(np.int64) >> (8 - _LEVEL_BITS)
    band = np.arange(len(frame)) * _BANDS // len(frame)
    bins = band[:, np.newaxis]
    for channel in range(3):
        bins = bins << _LEVEL_BITS | level[..., channel]
    return bins


def _check(frame: Frame) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        raise ValueError(f"frame: got {frame.dtype}{list(frame.shape)}, expected uint8[H, W, 3]")

"""What outputs are compared as: each task its own way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgevision.bundle.parity import ParityReport, Tolerance, compare
from edgevision.tasks.matching import MATCHED, caption_distances, distances


def compare_outputs(
    reference: Mapping[str, npt.NDArray[np.generic]],
    candidate: Mapping[str, npt.NDArray[np.generic]],
    tolerances: Mapping[str, Tolerance],
    *,
    task: str,
    name: str,
) -> list[ParityReport]:
    """Hold every output that has a tolerance against its reference.

    Detections (task "instance") are paired first, and captions taken whole (task "caption"): the
    distances are those of `matching`.

    Raises:
        ValueError: shapes differ, or nothing was detected that could be compared.
    """
    if task == "instance":
        found = distances(reference, candidate)
        if not found["labels"].size:
            raise ValueError(f"{name}: neither side detects anything on the golden samples")
        zeros = np.zeros_like(found["labels"])
        return [compare(zeros, found[k], tolerances[k], name=f"{name}/{k}") for k in MATCHED]
    if task == "caption":
        apart = caption_distances(reference, candidate)
        return [
            compare(np.zeros_like(apart[k]), apart[k], bar, name=f"{name}/{k}")
            for k, bar in tolerances.items()
        ]
    return [
        compare(reference[output], candidate[output], tolerance, name=f"{name}/{output}")
        for output, tolerance in tolerances.items()
    ]

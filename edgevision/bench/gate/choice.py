"""The gate's statistics for `finish --choose`: two precisions of one bundle, side by side."""

from __future__ import annotations

from pathlib import Path

from edgevision.bench.gate.compare import Comparison, compare
from edgevision.bench.gate.sides import of_bundle
from edgevision.bundle.directory import Bundle
from edgevision.progress import Progress


def side_by_side(
    bundle: Bundle, target: str, first: Path, second: Path, progress: Progress
) -> Comparison:
    """Measure the engines of `target` in the folder `second` against those in `first`.

    Raises:
        RunError: a worker failed, or the machine changed meanwhile.
    """
    sides = [of_bundle(bundle.root, finished=(folder, target)) for folder in (first, second)]
    return compare(*sides, progress=progress)

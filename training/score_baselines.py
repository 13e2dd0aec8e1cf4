"""Score classical segmentation on a folder in CamVid layout, for a net to be held against.

    DATA/{train,val}/images/NAME.jpg   photos, RGB
    DATA/{train,val}/labels/NAME.png   class indices, one byte a pixel; others than these are void

    python training/score_baselines.py --data DATA --classes 11

Colours are learnt from all of train; the table is over all of val.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from edgevision.metrics.baselines import ClassMap, ColourVotes, Frame, Method
from edgevision.metrics.segmentation import ConfusionMatrix, boundary_f_scores


def main() -> None:
    """Parse the arguments, learn the colours and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in CamVid layout")
    parser.add_argument("--classes", type=int, required=True, help="labels from here on are void")
    options = parser.parse_args()
    votes = ColourVotes(options.classes)
    for frame, labels in read(options.data / "train"):
        votes.add(frame, labels)
    print("| regions | mIoU | pixel accuracy | outlines |\n|---|---|---|---|")
    for method in (None, *get_args(Method)):
        score, outlines = ConfusionMatrix(options.classes), []
        for frame, labels in read(options.data / "val"):
            found = votes.classify(frame, method)
            score.add(labels, found)
            outlines.append(boundary_f_scores(labels, found, options.classes))
        name, accuracy = method or "single pixels", score.pixel_accuracy()
        print(f"| {name} | {score.miou():.4f} | {accuracy:.4f} | {mean_by_class(outlines):.4f} |")


def mean_by_class(scores: list[np.ndarray]) -> float:
    """Average over the frames where a class occurs, then over the classes that occur at all."""
    table = np.stack(scores)
    return float(np.mean([row[~np.isnan(row)].mean() for row in table.T if (row >= 0).any()]))


def read(part: Path) -> Iterator[tuple[Frame, ClassMap]]:
    """Yield each photo with its class map, sorted by name."""
    paths = sorted((part / "images").glob("*.jpg"))
    if not paths:
        raise SystemExit(f"{part / 'images'}: found no .jpg, expected photos")
    for path in paths:
        labels = np.array(Image.open(part / "labels" / f"{path.stem}.png"))
        yield np.array(Image.open(path).convert("RGB")), labels


if __name__ == "__main__":
    main()

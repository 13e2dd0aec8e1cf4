"""Folders of labelled objects: what is read, what is scored, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgevision.errors import FileReadError
from edgevision.runtime.coco import read_objects
from edgevision.runtime.evaluate import evaluate_instances
from edgevision.runtime.tasks.camera import ClassLabel
from edgevision.runtime.tasks.instance import InstanceResult
from edgevision.runtime.timing import Timings

CLASSES = ("dog", "cat")
LABELS = tuple(ClassLabel(name, "#102030") for name in CLASSES)
SQUARE = {"image_id": 7, "category_id": 3, "bbox": [10, 5, 20, 10],
          "segmentation": [[10, 5, 30, 5, 30, 15, 10, 15]], "iscrowd": 0}  # fmt: skip
CROWD = {"image_id": 7, "category_id": 5, "bbox": [0, 0, 60, 20], "iscrowd": 1,
         "segmentation": {"size": [40, 60], "counts": [0, 40 * 60]}}  # fmt: skip
OTHER = {
    "image_id": 7,
    "category_id": 9,
    "bbox": [0, 0, 1, 1],
    "segmentation": [[0, 0, 1, 1, 0, 1]],
}


def folder(path: Path, annotations: list[dict[str, Any]], **changes: Any) -> Path:
    (path / "images").mkdir()
    Image.new("RGB", (60, 40)).save(path / "images" / "a.png")
    content = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}, {"id": 9, "name": "x"}],
        "annotations": annotations,
    } | changes
    (path / "instances.json").write_text(json.dumps(content))
    return path


def test_objects_are_read_by_the_names_of_their_classes(tmp_path: Path) -> None:
    truth = read_objects(folder(tmp_path, [SQUARE, CROWD, OTHER]), CLASSES)
    assert [path.name for path in truth.images] == ["a.png"]
    objects = truth.objects(0, (40, 60))
    np.testing.assert_array_equal(objects.boxes, [[10, 5, 30, 15], [0, 0, 60, 20]])
    np.testing.assert_array_equal(objects.labels, [1, 0])
    assert objects.masks is not None
    assert objects.masks[0].sum() == 200
    assert objects.masks[0, 5:15, 10:30].all()
    assert objects.masks[1].all()
    assert objects.crowd is not None
    assert objects.crowd.tolist() == [False, True]


def test_what_is_found_is_scored_in_the_picture_s_own_pixels(tmp_path: Path) -> None:
    def detect(frame: np.ndarray) -> InstanceResult:
        assert frame.shape == (20, 30, 3)
        masks = np.zeros((1, 20, 30), np.uint8)
        masks[0, 3:7, 5:15] = 1
        return InstanceResult(
            np.array([[5, 2.5, 15, 7.5]], np.float32), np.array([1], np.int32),
            np.array([0.9], np.float32), masks, LABELS, (20, 30), True, True, Timings(0, 0, 0),
        )  # fmt: skip

    def blind(frame: np.ndarray) -> InstanceResult:
        return detect(frame).above(1.0)

    truth = folder(tmp_path, [SQUARE])
    good, none = evaluate_instances(
        {"good": detect, "none": blind}, truth, classes=CLASSES, frame_size=(20, 30)
    )
    assert good.form == "good"
    assert good.box_ap == pytest.approx(1)
    assert good.mask_ap50 == pytest.approx(1)
    assert np.isnan(good.class_mask_ap[0])
    assert (none.box_ap, none.mask_ap) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 3, "name": "bird"}]}, "none of the classes dog, cat"),
        ({"images": [{"id": 7, "file_name": "b.png"}]}, "1 of 1 pictures are missing"),
        ({"images": [{"id": 8, "file_name": "a.png"}]}, "not in COCO's format"),
        ({"images": [{"id": float("inf"), "file_name": "a.png"}]}, "not in COCO's format"),
        ({"categories": [{"id": float("inf"), "name": "cat"}]}, "not in COCO's format"),
        ({"licenses": 3, "categories": 3}, "not in COCO's format"),
    ],
)
def test_other_files_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(FileReadError, match=message):
        read_objects(folder(tmp_path, [SQUARE], **changes), CLASSES)


def test_a_folder_without_truth_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(FileReadError, match=r"with images/ and COCO's instances\.json"):
        read_objects(tmp_path, CLASSES)


@pytest.mark.parametrize(
    "changes",
    [{"bbox": [1, 2]}, {"segmentation": [[1, 2]]}, {"segmentation": "x"}, {"bbox": None},
     {"segmentation": {"size": [4, 6], "counts": [0, 24]}},
     {"segmentation": {"size": [40, 60], "counts": [0, 24]}},
     {"segmentation": {"size": [40, 60], "counts": "P~~~~~~"}},
     {"segmentation": [[0, 0, 9e9, 1, 0, 1]]}, {"segmentation": [[0, 0, "a", 1, 0, 1]]},
     {"segmentation": [[0, 0, 60, 40] * 9000 + [0, 0]]},  # once around is 200 pixels
     {"segmentation": [[0, 0, 60, 40, 0, 40]] * 20_000},
     {"segmentation": {"size": [40, 60], "counts": [0, *[1 << 62] * 3, (1 << 62) + 2400]}},
     {"segmentation": {"size": [40, 60], "counts": [1 << 70]}},
     {"bbox": [0, 0, 1, float("inf")]}, {"bbox": [0, 0, 1, 10**400]},
     {"category_id": [3]}],
)  # fmt: skip
def test_damaged_regions_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    truth = read_objects(folder(tmp_path, [SQUARE | changes]), CLASSES)
    with pytest.raises(FileReadError, match=r"a\.png: "):
        truth.objects(0, (40, 60))


def test_an_annotation_without_a_category_is_refused(tmp_path: Path) -> None:
    entry = {key: value for key, value in SQUARE.items() if key != "category_id"}
    with pytest.raises(FileReadError, match=r"a\.png: .*category_id"):
        read_objects(folder(tmp_path, [entry]), CLASSES).objects(0, (40, 60))


def test_small_annotations_of_a_large_picture_have_a_budget(tmp_path: Path) -> None:
    size = (8000, 8000)
    crowd = CROWD | {"segmentation": {"size": list(size), "counts": [0, 64_000_000]}}
    truth = read_objects(folder(tmp_path, [crowd] * 17), CLASSES)
    with pytest.raises(FileReadError, match=r"17 masks of \[8000, 8000\], which are too many"):
        truth.objects(0, size)


def test_compressed_runs_are_the_mask_that_the_package_encoded(tmp_path: Path) -> None:
    codec = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    for share in (0.5, 0.02, 1.0, 0.0):
        mask = random.uniform(size=(40, 60)) < share
        packed = codec.encode(np.asfortranarray(mask, np.uint8))
        region = {"size": [40, 60], "counts": packed["counts"].decode()}
        shutil.rmtree(tmp_path / "images", ignore_errors=True)
        truth = read_objects(folder(tmp_path, [SQUARE | {"segmentation": region}]), CLASSES)
        found = truth.objects(0, (40, 60)).masks
        assert found is not None
        np.testing.assert_array_equal(found[0], mask)


def test_a_picture_outside_the_folder_is_not_reached(tmp_path: Path) -> None:
    outside = [{"id": 7, "file_name": "../../a.png"}]
    truth = read_objects(folder(tmp_path, [SQUARE], images=outside), CLASSES)
    assert truth.images == (tmp_path / "images" / "a.png",)

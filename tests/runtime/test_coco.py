"""Folders of labelled objects: what is read, what is scored, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgevision.errors import FileReadError
from edgevision.metrics.coco import read_captions, read_objects
from edgevision.metrics.instance import InstanceMetric
from edgevision.metrics.metric import score_folder
from edgevision.tasks.camera import ClassLabel
from edgevision.tasks.instance import InstanceResult
from edgevision.tasks.timings import Timings

CLASSES = ("dog", "cat")
LABELS = tuple(ClassLabel(name, "#102030") for name in CLASSES)
SQUARE = {"id": 41, "image_id": 7, "category_id": 3, "bbox": [10, 5, 20, 10],
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
            np.array([0.9], np.float32), LABELS, (20, 30), True, True, Timings(0, 0, 0), masks,
        )  # fmt: skip

    def blind(frame: np.ndarray) -> InstanceResult:
        return detect(frame).above(1.0)

    truth = folder(tmp_path, [SQUARE])
    forms = {"good": detect, "none": blind}
    good, none = score_folder(InstanceMetric(CLASSES), forms, truth, (20, 30))
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
        (
            {"images": [{"id": 8, "file_name": "a.png"}]},
            "is left: 1 annotation of pictures that are not listed, the first is annotation 41",
        ),
        (
            {"annotations": []},
            "no annotation of the classes dog, cat is left: there is none of them",
        ),
        (
            {"annotations": [SQUARE | {"segmentation": []}]},
            "is left: 1 annotation without an outline",
        ),
        ({"annotations": [OTHER]}, "there is none of them"),
        ({"licenses": 3, "categories": 3}, "not in COCO's format: categories: a value in it"),
        ({"annotations": 3}, "not in COCO's format: a value in it is not of the kind"),
        ({"annotations": [None]}, "one annotation has image_id None, expected a whole number"),
        ({"annotations": [SQUARE | {"image_id": "x"}]}, "annotation 41 has image_id 'x'"),
        ({"annotations": [SQUARE | {"category_id": None}]}, "41 has category_id None"),
        ({"annotations": [SQUARE | {"category_id": [3]}]}, r"41 has category_id \[3\]"),
        (
            {"annotations": [{k: v for k, v in SQUARE.items() if k != "category_id"}]},
            "41 has category_id None",
        ),
        ({"images": [3]}, "one picture has id None"),
        ({"images": [{"id": float("inf"), "file_name": "a.png"}]}, "one picture has id inf"),
        ({"categories": [{"id": float("inf"), "name": "cat"}]}, "not in COCO's format: categories"),
        ({"images": [{"id": 7}]}, "picture 7 has no file_name"),
        ({"images": [{"id": 7, "file_name": "a.png"}] * 2}, "two pictures have the id 7"),
        (
            {"images": [{"id": k, "file_name": "a.png"} for k in (6, 7)]},
            "two pictures are of 'images/a.png'",
        ),
    ],
)
def test_other_files_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(FileReadError, match=message):
        read_objects(folder(tmp_path, **{"annotations": [SQUARE], **changes}), CLASSES)


def test_a_folder_without_truth_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(FileReadError, match=r"with images/ and COCO's instances\.json"):
        read_objects(tmp_path, CLASSES)


@pytest.mark.parametrize(
    "changes",
    [{"bbox": [1, 2]}, {"bbox": [1, 2, float("nan"), 4]}, {"bbox": [1, 2, -3, 4]},
     {"segmentation": [[1, 2, 3, 4, 5]]}, {"segmentation": "x"}, {"bbox": None},
     {"segmentation": {"size": [4, 6], "counts": [0, 24]}},
     {"segmentation": {"size": [40, 60], "counts": [0, 24]}},
     {"segmentation": {"size": [40, 60], "counts": "P~~~~~~"}},
     {"segmentation": {"size": [40, 60], "counts": [10**30]}}, {"segmentation": {}},
     {"segmentation": [[0, 0, 9e9, 1, 0, 1]]}, {"segmentation": [[0, 0, "a", 1, 0, 1]]},
     {"segmentation": [[0, 0, 60, 40] * 9000 + [0, 0]]},  # once around is 200 pixels
     {"segmentation": [[0, 0, 60, 40, 0, 40]] * 20_000},
     {"segmentation": {"size": [40, 60], "counts": [0, *[1 << 62] * 3, (1 << 62) + 2400]}},
     {"bbox": [0, 0, 1, float("inf")]}, {"bbox": [0, 0, 1, 10**400]}],
)  # fmt: skip
def test_damaged_regions_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    truth = read_objects(folder(tmp_path, [SQUARE | changes]), CLASSES)
    with pytest.raises(FileReadError, match=r"a\.png: annotation 41 is damaged: ") as told:
        truth.objects(0, (40, 60))
    assert "Error" not in str(told.value)


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


@pytest.mark.parametrize("name", ["../../a.png", "/a.png", "C:\\a.png", "https://a.org/a.png", "."])
def test_a_picture_outside_the_folder_is_not_reached(name: str, tmp_path: Path) -> None:
    outside = [{"id": 7, "file_name": name}]
    with pytest.raises(FileReadError, match=r"picture 7: file_name '.*' leads out of the folder"):
        read_objects(folder(tmp_path, [SQUARE], images=outside), CLASSES)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("cam0/a.png", "images/cam0/a.png"),
        ("cam0\\a.png", "images/cam0/a.png"),
        ("images/cam0/a.png", "images/cam0/a.png"),
        ("12:30.png", "images/12:30.png"),
    ],
)
def test_a_picture_is_found_where_its_name_says(name: str, place: str, tmp_path: Path) -> None:
    path = folder(tmp_path, [SQUARE], images=[{"id": 7, "file_name": name}])
    with pytest.raises(FileReadError, match="1 of 1 pictures are missing"):
        read_objects(path, CLASSES)  # images/a.png is a namesake
    (path / place).parent.mkdir(exist_ok=True)
    Image.new("RGB", (60, 40)).save(path / place)
    assert read_objects(path, CLASSES).images == (path / place,)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"segmentation": []}, "without an outline"),
        ({"segmentation": None}, "without an outline"),
        ({"segmentation": [[1, 2]]}, "without an outline"),
        ({"segmentation": [[1, 2, 3, 4]]}, "without an outline"),
        ({"image_id": 99}, "of pictures that are not listed"),
    ],
)
def test_what_cannot_be_scored_is_left_out_and_counted(
    entry: dict[str, Any], why: str, tmp_path: Path
) -> None:
    path = folder(tmp_path, [SQUARE, SQUARE | {"id": 42} | entry, SQUARE | {"id": 43} | entry])
    with pytest.warns(UserWarning, match=rf"2 annotations {why}.* the first is annotation 42"):
        truth = read_objects(path, CLASSES)
    assert len(truth.objects(0, (40, 60)).boxes) == 1


def test_one_bad_item_is_counted_and_is_not_the_end_of_the_set(tmp_path: Path) -> None:
    bad, good = SQUARE | {"id": 42, "bbox": [1, 2]}, SQUARE | {"id": 43, "image_id": 9}
    names = {7: "a.png", 8: "gone.png", 9: "b.png", 10: "torn.png"}
    images = [{"id": number, "file_name": name} for number, name in names.items()]
    path = folder(tmp_path, [SQUARE, bad, good, SQUARE | {"image_id": 8}], images=images)
    Image.new("RGB", (60, 40)).save(path / "images" / "b.png")
    (path / "images" / "torn.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"1 of 4 pictures are missing, the first 'images/gone"):
        truth = read_objects(path, CLASSES)
    with pytest.warns(UserWarning, match="left out") as told:
        truth = truth.readable()
    assert [path.name for path in truth.images] == ["a.png", "b.png"]
    assert [len(truth.objects(i, (40, 60)).boxes) for i in range(2)] == [1, 1]
    said = [str(warning.message) for warning in told]
    assert re.search(r"left out 1 of 3, the first: .*torn\.png", said[0])
    assert re.search(r"left out 1 of 3, the first: a\.png: annotation 42 is damaged", said[1])


def test_polygons_that_tools_write_are_read(tmp_path: Path) -> None:
    (polygon,) = SQUARE["segmentation"]  # type: ignore[misc]
    with_click = SQUARE | {"segmentation": [[3, 3, 3, 3], polygon]}
    without_list = SQUARE | {"segmentation": polygon, "category_id": "3"}
    truth = read_objects(folder(tmp_path, [with_click, without_list]), CLASSES)
    masks = truth.objects(0, (40, 60)).masks
    assert masks is not None
    assert [int(mask.sum()) for mask in masks] == [200, 200]


def captions(path: Path, annotations: list[Any]) -> Path:
    folder(path, [])
    images = [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "gone.png"}]
    content = {"images": images, "annotations": annotations}
    (path / "captions.json").write_text(json.dumps(content))
    return path


def test_captions_are_read_and_odd_ones_told(tmp_path: Path) -> None:
    said = {"id": 1, "image_id": 7, "caption": "a dog"}
    path = captions(tmp_path, [said, said | {"id": 2, "image_id": 99}])
    with pytest.warns(UserWarning, match="left out: 1 annotation of pictures that are not listed"):
        assert read_captions(path) == [(tmp_path / "images" / "a.png", ["a dog"])]
    for odd, message in (
        ([said | {"caption": None}], "annotation 1 has no text 'caption'"),
        ([], "2 pictures and no caption"),
        ([said | {"image_id": 8}], r"1 of 1 pictures are missing, the first 'images/gone\.png'"),
    ):
        content = json.loads((path / "captions.json").read_text()) | {"annotations": odd}
        (path / "captions.json").write_text(json.dumps(content))
        with pytest.raises(FileReadError, match=message):
            read_captions(path)

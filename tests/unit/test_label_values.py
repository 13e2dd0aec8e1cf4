"""Labels looked at before they are scored: a net that finds nothing is never told to be perfect."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from edgevision.metrics.labels import LabelValues, renumbered_reason
from edgevision.metrics.segmentation import ConfusionMatrix

Labels = npt.NDArray[np.uint8]


def looked_at(labels: Labels, class_count: int) -> LabelValues:
    values = LabelValues(class_count)
    values.add(labels)
    return values


def square(background: int, thing: int) -> Labels:
    labels = np.full((8, 8), background, np.uint8)
    labels[2:6, 2:6] = thing
    return labels


@given(
    hnp.arrays(np.uint8, (4, 4), elements=st.sampled_from([0, 1, 2, 3, 17, 34, 128, 255])),
    st.integers(2, 20),
    st.integers(0, 3),
)
def test_a_net_that_says_one_class_is_not_perfect_unless_it_is_told(
    labels: Labels, class_count: int, says: int
) -> None:
    matrix = ConfusionMatrix(class_count)
    matrix.add(labels, np.full_like(labels, says))
    values = looked_at(labels, class_count)
    if not matrix.miou() < 1:
        assert values.refusal_reason() or values.doubt_reason()


@pytest.mark.parametrize(
    ("labels", "class_count", "message"),
    [
        (square(0, 255), 2, "of 2 classes only 0 occurs, .* If 255 is the object"),
        (square(0, 2), 2, "only 0 occurs, .* If 2 is the object"),
        (square(255, 255), 2, r"no pixel holds a class: found the values 255 \(100\.00%\)"),
        (square(0, 34), 5, "If they are 4-bit indices spread to 8 bits"),
        (square(7, 26), 4, "no pixel holds a class: .* have other numbers in the files"),
        (square(1, 3), 3, "only 1 occurs, .* If classes are counted from 1"),
        (square(0, 1), 2, None),
    ],
)
def test_labels_that_no_score_can_be_made_of(
    labels: Labels, class_count: int, message: str | None
) -> None:
    reason = looked_at(labels, class_count).refusal_reason()
    assert (not reason) == (message is None)
    assert re.search(message or "", reason)


@pytest.mark.parametrize(
    ("labels", "class_count", "message"),
    [
        (square(0, 1), 2, None),
        (np.array([[0, 1, 1, 255]], np.uint8), 2, None),
        (np.array([[0, 1, 1, 2]], np.uint8), 2, None),
        (square(0, 0), 3, "of 3 classes 1, 2 never occur, and a net that never says them is right"),
        (np.array([[0, 1, 255, 255, 255]], np.uint8), 2, r"60\.0% of the pixels are void"),
        (np.array([[0, 1, 1, 1, 5, 6]], np.uint8), 2, r"33\.3% of the pixels are void"),
        (np.array([[1, 2, 3]], np.uint8), 3, "If classes are counted from 1"),
    ],
)
def test_labels_that_may_not_be_meant_so(
    labels: Labels, class_count: int, message: str | None
) -> None:
    values = looked_at(labels, class_count)
    assert values.refusal_reason() == ""
    doubt = values.doubt_reason()
    assert (not doubt) == (message is None)
    assert re.search(message or "", doubt)


@pytest.mark.parametrize(
    ("pairs", "flag"),
    [
        (np.array([[0, 9, 0, 0], [0, 0, 8, 0], [7, 0, 0, 0]]), "--label-map 0=1,1=2,2=0 "),
        (np.array([[9, 1, 0, 0], [0, 8, 0, 0], [0, 0, 7, 0]]), None),
        (np.array([[0, 9, 0, 0], [0, 8, 0, 0], [0, 9, 0, 0]]), None),
    ],
)
def test_a_net_that_is_right_by_other_numbers_is_told(
    pairs: npt.NDArray[np.int64], flag: str | None
) -> None:
    reason = renumbered_reason(pairs)
    assert (not reason) == (flag is None)
    assert (flag or "") in reason


@pytest.mark.parametrize(
    ("labels", "flag"),
    [
        (square(0, 255), "--label-map 0=0,255=1 (label_map=)"),
        (square(1, 2), "--label-map 1=0,2=1 (label_map=)"),
        (square(7, 9), "--label-map FOUND=CLASS,... (label_map=)"),
    ],
)
def test_the_flag_that_says_so_is_named(labels: Labels, flag: str) -> None:
    assert flag in looked_at(labels, 2).refusal_reason()


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (square(0, 255), square(0, 1)),
        (square(0, 3), square(0, 1)),
        (square(1, 2), square(0, 1)),
    ],
)
@pytest.mark.parametrize("mode", ["L", "P"])
def test_what_is_told_to_type_mends_it(
    tmp_path: Path, labels: Labels, wanted: Labels, mode: str
) -> None:
    values = looked_at(labels, 2)
    reason = values.refusal_reason() or values.doubt_reason()
    told = re.search(r"Image\.open\(OLD\)\..*\.save\(NEW\)", reason)
    assert told is not None
    old, new = tmp_path / "old.png", tmp_path / "new.png"
    picture = Image.fromarray(labels)
    if mode == "P":
        picture.putpalette([value % 256 for value in range(768)])
    picture.save(old)
    exec(told[0], {"Image": Image, "OLD": old, "NEW": new})
    mended = np.asarray(Image.open(new))
    np.testing.assert_array_equal(mended, wanted)
    assert looked_at(mended, 2).doubt_reason() == ""

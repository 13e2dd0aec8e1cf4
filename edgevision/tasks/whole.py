"""A float output as a whole: its noise, and which class comes first where it looks like classes.

Of a softmax over 4,000 classes hardly any element is ever far off, though each character may be
read otherwise: a share of elements says nothing of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgevision.bundle.parity import ParityReport, Tolerance, compare

# Both grow with the share of elements that may be off, which says how narrow the form is.
_NOISE, _MIN_NOISE, _MAX_NOISE = 10.0, 1e-4, 0.5
"""Energy of what is off over that of the output: 10 dB for INT8, 20 for FP16, 40 for FP32. Above
half of it, which no wider bar allows, the answer is another one."""
_OTHERS, _MIN_OTHERS = 5.0, 1e-4
"""Places where another class comes first: 5 % for INT8, 0.5 % for FP16."""
# Nearer than this share of what an element may be off, two classes are tied.
_TIED = 0.1
_SUM = 1e-2


def as_a_whole(
    reference: npt.NDArray[np.generic],
    candidate: npt.NDArray[np.generic],
    bar: Tolerance,
    *,
    name: str,
) -> list[ParityReport]:
    """Hold a float output against its reference, samples first; nothing where none is finite.

    Args:
        reference: the answers of the model itself.
        candidate: those in question.
        bar: how far an element may be off, and how many may.
        name: what is compared.
    """
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    reports = []
    finite = np.isfinite(a) & np.isfinite(b)
    energy = float((a[finite] ** 2).sum())
    if energy > 0 and bar.max_abs > 0:
        noise = float(((a - b)[finite] ** 2).sum()) / energy
        most = Tolerance(min(_NOISE * bar.max_mismatch_share + _MIN_NOISE, _MAX_NOISE))
        reports.append(compare(np.zeros(1), np.array([noise]), most, name=f"{name} (noise)"))
    axis = class_axis(a)
    if axis is not None:
        first, other = (x.argmax(axis, keepdims=True) for x in (a, b))
        lost = np.take_along_axis(a, first, axis) - np.take_along_axis(a, other, axis)
        share = min(_OTHERS * bar.max_mismatch_share + _MIN_OTHERS, 1.0)
        most = Tolerance(_TIED * bar.max_abs, share)
        reports.append(compare(np.zeros_like(lost), lost, most, name=f"{name} (likeliest class)"))
    return reports


def class_axis(values: npt.NDArray[np.float64]) -> int | None:
    """Return the axis along which an output holds probabilities of classes, samples first."""
    for axis in (-1, 2):
        if axis >= values.ndim or values.ndim < 3 or values.shape[axis] < 2:
            continue
        if (values >= 0).all() and (abs(values.sum(axis) - 1) < _SUM).all():
            return axis
        # Their logarithms, as torch.log_softmax gives them.
        if (values <= 0).all() and (abs(np.exp(values).sum(axis) - 1) < _SUM).all():
            return axis
    return None

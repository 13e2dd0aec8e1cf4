"""How the outputs of a graph are held against its reference: element by element, with two bars.

The bars are against a broken graph and are no measure of accuracy: that is the task's metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from edgevision.bundle.forms import Form
from edgevision.bundle.parity import ParityReport, Tolerance, compare
from edgevision.bundle.tensors import Arrays


@dataclass(frozen=True, slots=True)
class Bars:
    """One figure for each precision; the forms of a precision share it."""

    fp32: float
    fp16: float
    int8: float

    def __getitem__(self, form: Form) -> float:
        """Return the figure of a form."""
        found: float = getattr(self, form.precision)
        return found


# Share of label elements that may differ from FP32. Labels differ where two classes are nearly as
# likely.
_LABEL_SHARES = Bars(1e-4, 5e-3, 0.05)
# Distance of float elements, relative to the largest magnitude of the output.
_FLOAT_DISTANCES = Bars(1e-3, 2e-2, 0.2)
_FLOAT_SHARES = Bars(0.0, 1e-3, 1e-2)


class Proof:
    """Element by element: labels may rarely differ, floats by a share of their range.

    A task that pairs its outputs before it compares them overrides `distances`, and says how far
    what it pairs may be apart.

    Attributes:
        paired: how far the outputs that it pairs may be apart, by name; empty where it pairs none.
        shares: how many of the pairs may be further.
        min_end_snr_db: signal over noise that INT8 leaves at a net's last layers, where one answer
            is of the whole frame; None where each layer is judged by its own noise.
        wide_ends: whether the first layer and the last never become INT8.
    """

    paired: Mapping[str, Bars] = MappingProxyType({})
    shares: Bars = Bars(0.0, 0.0, 0.0)
    min_end_snr_db: float | None = None
    wide_ends: bool = False

    def tolerances(self, form: Form, golden: Arrays) -> dict[str, Tolerance]:
        """Return how far each output of `form` may be from `golden`, samples first."""
        if self.paired:
            bars = {name: bars for name, bars in self.paired.items() if name in golden}
            return {name: Tolerance(far[form], self.shares[form]) for name, far in bars.items()}
        return {name: element_tolerance(form, array) for name, array in golden.items()}

    def distances(
        self, reference: Arrays, candidate: Arrays
    ) -> Mapping[str, npt.NDArray[np.float64]] | None:
        """Return how far what belongs together is apart, by output; None to compare elements."""
        return None

    def compare(
        self,
        reference: Arrays,
        candidate: Arrays,
        tolerances: Mapping[str, Tolerance],
        *,
        name: str,
    ) -> list[ParityReport]:
        """Hold every output that has a tolerance against its reference.

        Raises:
            ValueError: shapes differ, or there is nothing that could be compared.
        """
        if (found := self.distances(reference, candidate)) is not None:
            if unknown := sorted(tolerances.keys() - found.keys()):
                raise ValueError(f"there are bars for {unknown}; held are {sorted(found)}")
            return [
                compare(np.zeros_like(found[output]), found[output], bar, name=f"{name}/{output}")
                for output, bar in tolerances.items()
            ]
        return [
            compare(reference[output], candidate[output], tolerance, name=f"{name}/{output}")
            for output, tolerance in tolerances.items()
        ]

    def compare_corners(
        self, reference: Arrays, candidate: Arrays, form: Form, *, name: str
    ) -> list[ParityReport]:
        """Hold answers at the ends of the inputs: what of them hangs on no order among equals."""
        bars = self.tolerances(form, reference)
        return self.compare(reference, candidate, bars, name=name)

    def golden_reason(self, golden: Arrays) -> str:
        """Return why samples with these answers would prove nothing; empty if they do."""
        return ""


def element_tolerance(form: Form, golden: npt.NDArray[np.generic]) -> Tolerance:
    """Return the bar of one output, compared element by element."""
    if golden.dtype.kind != "f":
        return Tolerance(0.0, _LABEL_SHARES[form])
    largest = float(np.abs(golden[np.isfinite(golden)]).max(initial=0))
    return Tolerance(max(largest, 1e-6) * _FLOAT_DISTANCES[form], _FLOAT_SHARES[form])

"""The exception tree, and that each error keeps what it carries."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

from edgevision import errors
from edgevision.bundle.parity import Tolerance, compare

ERRORS = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, Exception)
}


def test_one_root() -> None:
    assert all(issubclass(error, errors.EdgeVisionError) for error in ERRORS.values())
    assert issubclass(errors.MissingDependencyError, ImportError)


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn, parents = {}, {}
    for line in (errors.__doc__ or "").splitlines():
        words = line.strip("│├└─ ").split()
        if words and words[0] in ERRORS:
            depth = line.index(words[0]) // 4
            drawn[words[0]] = parents.get(depth - 1)
            parents[depth] = words[0]
    assert drawn == {
        name: error.__bases__[0].__name__ if name != "EdgeVisionError" else None
        for name, error in ERRORS.items()
    }


def test_errors_carry_what_they_found() -> None:
    report = compare(np.zeros(2), np.ones(2), Tolerance(), name="y")
    assert errors.ParityError("no", report=report).report is report
    assert errors.ParityError("no").report is None
    assert errors.BuildError("no", log="[E] unsupported").log == "[E] unsupported"
    assert errors.BuildError("no").log == ""
    for kind in (errors.PendingError, errors.UnverifiedError):
        assert kind("no", command="edgevision finish").command == "edgevision finish"
    assert errors.MissingDependencyError("no", name="torch").name == "torch"


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_survive_pickle_and_copy(name: str) -> None:
    parameters = inspect.signature(ERRORS[name].__init__).parameters.values()
    carried: dict[str, object] = {p.name: 719 for p in parameters if p.kind is p.KEYWORD_ONLY}
    if issubclass(ERRORS[name], ImportError):
        carried = {"name": "torch"}
    error = ERRORS[name]("what happened", **carried)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == "what happened"
        assert {key: getattr(again, key) for key in carried} == carried

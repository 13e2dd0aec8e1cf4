"""Whether shape profiles fit the inputs of a network, asked before a builder sees them.

TensorRT takes some bad profiles silently and calls others by numbers of axes.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgevision.bundle.tensors import Profiles, TensorSpec
from edgevision.errors import BuildError


def check_profiles(inputs: Iterable[TensorSpec], profiles: Profiles) -> None:
    """Check that every dynamic input has a profile within its shape.

    Raises:
        BuildError: a profile is missing, names no input, or does not fit its shape.
    """
    specs = {spec.name: spec for spec in inputs}
    if unknown := sorted(set(profiles) - set(specs)):
        raise BuildError(f"profiles: no input is called {unknown}; the inputs are {sorted(specs)}")
    if missing := [str(s) for s in specs.values() if s.is_dynamic and s.name not in profiles]:
        raise BuildError(
            f"dynamic inputs need a profile: {', '.join(missing)}. Give a ShapeProfile with the "
            "minimum, optimum and maximum of each '?'"
        )
    for name, profile in profiles.items():
        bounds = (profile.minimum, profile.optimum, profile.maximum)
        if not all(map(specs[name].accepts, bounds)):
            raise BuildError(
                f"the profile {bounds} does not fit {specs[name]}: it may differ from the shape "
                "only where that has '?'"
            )

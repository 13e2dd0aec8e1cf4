"""What a frame costs in things that are counted, not timed: the gate that never flakes.

Calls into Python and libraries, bytes allocated and moved, and the engine's size are the same in
every run of the same code, on a busy machine as on an idle one. More of them is not yet slower, but
it is how a runtime becomes slow, a percent at a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from edgevision.bench.gate.process import Side, workers

_SLACK = {"allocated_bytes": 1024, "python_calls": 1, "library_calls": 1}


@dataclass(frozen=True, slots=True)
class Counted:
    """What one frame of each side costs.

    Attributes:
        first: by what is counted, e.g. "python_calls".
        second: the same of the second side.
        grown: what the second needs more of, by more than the gate.
    """

    first: Mapping[str, int]
    second: Mapping[str, int]
    grown: tuple[str, ...]


def count(first: Side, second: Side, *, gate: float = 0.05) -> Counted:
    """Count both sides' frames.

    Raises:
        RunError: a worker failed.
    """
    with workers([first, second]) as started:
        one, other = (json.loads(worker.ask("counts")) for worker in started)
    return judge(one, other, gate=gate)


def judge(first: Mapping[str, int], second: Mapping[str, int], *, gate: float) -> Counted:
    """Say what grew by more than `gate`, and by more than its smallest step."""
    grown = tuple(
        name
        for name, was in first.items()
        if second[name] > was * (1 + gate) and second[name] > was + _SLACK.get(name, 0)
    )
    return Counted(first, second, grown)


def sentence(found: Counted) -> str:
    """Return what grew, or that nothing did."""
    if not found.grown:
        return "Counts per frame: nothing grew."
    payload = (
        f"{name} from {found.first[name]:,} to {found.second[name]:,}" for name in found.grown
    )
    return f"Counts per frame GREW: {'; '.join(payload).replace('_', ' ')}."

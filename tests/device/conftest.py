"""The devices that the contract suite runs over: those of this process, named by an option.

In a child process with a stand-in driver, or on a machine with a GPU, `EDGEVISION_TEST_BINDINGS`
names the bindings to use besides the host and the simulated device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from edgevision.runtime.device.cuda.device import cuda_device
from edgevision.runtime.device.device import Device
from edgevision.runtime.device.host import HostDevice
from edgevision.testing import SimulatedDevice

SIMULATED = {
    "simulated-eager": {"order": "eager"},
    "simulated-lazy": {"order": "lazy"},
    "simulated-seed-1": {"order": 1},
    "simulated-seed-2": {"order": 2},
    "simulated-integrated": {"order": "lazy", "integrated": True},
    "simulated-no-graphs": {"order": "lazy", "graphs": False},
}
BINDINGS = [name for name in os.environ.get("EDGEVISION_TEST_BINDINGS", "").split(",") if name]
ALL = BINDINGS or ["host", *SIMULATED]


@pytest.fixture(params=ALL)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Return each device in turn, active on this thread."""
    name = request.param
    if name == "host":
        made: Device = HostDevice()
    elif name in SIMULATED:
        made = SimulatedDevice(**SIMULATED[name])  # type: ignore[arg-type]
    else:
        made = cuda_device(binding=name)
    with made.active():
        yield made
    if isinstance(made, SimulatedDevice):
        assert not any(made.live.values()), f"left behind: {made.live}"


@pytest.fixture
def graphs(device: Device) -> Device:
    """Return devices that can capture graphs."""
    if not device.capabilities.graphs:
        pytest.skip("no graphs: " + device.capabilities.reasons["graphs"])
    return device


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """Return how often a test goes round that asks whether something is left behind.

    These devices count to the byte: what every round leaves shows in a hundred. A thousand are gone
    where work is done as late as it may be, and on what has a memory of its own.
    """
    names = request.node.name, os.environ.get("STANDIN_ORDER", "lazy")
    return 1000 if all("eager" not in name and "seed" not in name for name in names) else 100

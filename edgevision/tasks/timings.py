"""How long each part of one inference took."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Timings(NamedTuple):
    """Times of one inference in milliseconds: the host's clock, and device events where there are.

    Attributes:
        copy_in_ms: into the slot's memory, and from there to the device.
        compute_ms: the engine; on a device without events, everything between the host's copies.
        copy_out_ms: from the device, and into the caller's arrays.
        wait_ms: in a slot, before the device had room.
    """

    copy_in_ms: float
    compute_ms: float
    copy_out_ms: float
    wait_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """The whole inference."""
        return self.wait_ms + self.copy_in_ms + self.compute_ms + self.copy_out_ms


class _Timed(Protocol):
    def device_ms(self) -> list[float] | None: ...


def timings(slot: _Timed, fill_ns: int, run_ns: int, copy_ns: int, *, wait_ns: int = 0) -> Timings:
    """Join the host's clock with the slot's device events, where it has them."""
    fill_ms, copy_ms, wait_ms = fill_ns / 1e6, copy_ns / 1e6, wait_ns / 1e6
    device = slot.device_ms()
    if device is None:
        return Timings(fill_ms, run_ns / 1e6, copy_ms, wait_ms)
    return Timings(fill_ms + device[0], device[1], device[2] + copy_ms, wait_ms)

"""Energy, where the machine counts it: NVIDIA's own counter on a desktop, the rails of a Jetson.

On a Jetson the INA3221 chips tell each rail's voltage and current through hwmon ("Software-Based
Power Consumption Modeling", Jetson Linux Developer Guide); they are sampled, so a run should take
some seconds. Elsewhere NVML counts the GPU's energy, all that runs on it together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

_RAILS = Path("/sys/bus/i2c/drivers/ina3221")
_WHOLE_MODULE = ("VDD_IN", "VIN")
_PERIOD_S = 0.05
_MIN_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Energy:
    """What a run used.

    Attributes:
        joules: None where nothing counts it.
        source: of what, by which counter; or why there is none.
    """

    joules: float | None
    source: str

    def per_frame_mj(self, frames: int) -> float | None:
        """Return millijoules per frame, the machine's idle use included."""
        return None if self.joules is None or not frames else self.joules * 1e3 / frames


class EnergyMeter:
    """Counts from its start to its end; a context manager.

    Attributes:
        energy: what was used, once it ended.
    """

    def __init__(self, *, on_gpu: bool, rails: Path = _RAILS) -> None:
        self.energy = Energy(None, "not ended")
        self._rails = _readers(rails)
        self._gpu = None if self._rails or not on_gpu else _nvml_counter()
        self._on_gpu = on_gpu
        self._watts: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="edgevision-energy", daemon=True)
        self._start_mj: float | None = None
        self._start_s = 0.0

    def __enter__(self) -> EnergyMeter:
        """Begin."""
        self._start_s = perf_counter()
        if self._rails:
            self._thread.start()
        elif self._gpu is not None:
            self._start_mj = self._gpu()
        return self

    def __exit__(self, *error: object) -> None:
        """End, also after an error."""
        seconds = perf_counter() - self._start_s
        if self._rails:
            self._stop.set()
            self._thread.join()
            self.energy = self._from_rails(seconds)
        elif self._gpu is not None and self._start_mj is not None:
            end_mj = self._gpu()
            self.energy = (
                Energy(None, "the GPU has no energy counter")
                if end_mj is None
                else Energy((end_mj - self._start_mj) / 1e3, "the whole GPU, NVML's counter")
            )
        else:
            self.energy = Energy(None, self._why_not())

    def _from_rails(self, seconds: float) -> Energy:
        if len(self._watts) < _MIN_SAMPLES:
            return Energy(None, f"too short: {len(self._watts)} samples, wants {_MIN_SAMPLES}")
        watts = sum(self._watts) / len(self._watts)
        return Energy(watts * seconds, f"INA3221, {' + '.join(self._rails)}")

    def _why_not(self) -> str:
        if not self._on_gpu:
            return "no counter: it ran on the host, and there is no INA3221"
        return "no counter: NVML tells none, and there is no INA3221"

    def _sample(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            try:
                self._watts.append(sum(read() for read in self._rails.values()))
            except (OSError, ValueError):  # a rail that is asleep answers nothing
                continue


def _readers(folder: Path) -> Mapping[str, Callable[[], float]]:
    """Return, by rail, what reads its power in W: of the whole module where one rail is that."""
    found: dict[str, Callable[[], float]] = {}
    for label in sorted(folder.glob("*/hwmon/hwmon*/in*_label")):
        number = label.name[2 : -len("_label")]
        volts, amperes = (label.with_name(f"{kind}{number}_input") for kind in ("in", "curr"))
        name = label.read_text().strip()
        if volts.exists() and amperes.exists() and "sum" not in name.lower():
            found[name] = lambda v=volts, a=amperes: int(v.read_text()) * int(a.read_text()) / 1e6  # type: ignore[misc]
    for name in _WHOLE_MODULE:
        if name in found:
            return {name: found[name]}
    return found


def _nvml_counter() -> Callable[[], float | None] | None:
    """Return what reads the first GPU's energy in mJ, None without NVML."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle: Any = pynvml.nvmlDeviceGetHandleByIndex(0)
    except ImportError:
        return None
    except pynvml.NVMLError:
        return None

    def read() -> float | None:
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except pynvml.NVMLError:
            return None

    return read

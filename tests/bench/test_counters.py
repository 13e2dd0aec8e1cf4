"""Energy: a Jetson's rails as files, and why there is none elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgevision.bench.counters import Energy, EnergyMeter


def rail(folder: Path, number: int, name: str, millivolts: int, milliamperes: int) -> None:
    """Write a rail as the kernel's hwmon shows it."""
    at = folder / "1-0040" / "hwmon" / "hwmon3"
    at.mkdir(parents=True, exist_ok=True)
    (at / f"in{number}_label").write_text(f"{name}\n")
    (at / f"in{number}_input").write_text(f"{millivolts}\n")
    (at / f"curr{number}_input").write_text(f"{milliamperes}\n")


def measured(folder: Path, seconds: float = 0.5) -> tuple[Energy, float]:
    """Measure for a while; returns the seconds that it took, too."""
    start = time.perf_counter()
    with EnergyMeter(on_gpu=False, rails=folder) as meter:
        time.sleep(seconds)
    return meter.energy, time.perf_counter() - start


def test_the_whole_module_is_one_rail_if_it_has_one(tmp_path: Path) -> None:
    rail(tmp_path, 1, "VDD_IN", 5000, 2000)  # 10 W
    rail(tmp_path, 2, "VDD_CPU_GPU_CV", 5000, 1000)
    energy, seconds = measured(tmp_path)
    assert energy.source == "INA3221, VDD_IN"
    assert energy.joules is not None
    assert 10 * 0.5 <= energy.joules <= 10 * seconds
    assert energy.per_frame_mj(100) == pytest.approx(energy.joules * 10)


def test_else_the_rails_are_added_up_without_their_sum(tmp_path: Path) -> None:
    rail(tmp_path, 1, "VDD_GPU_SOC", 5000, 1000)
    rail(tmp_path, 2, "VDD_CPU_CV", 5000, 600)
    rail(tmp_path, 3, "Sum of shunt voltages", 9999, 9999)
    energy, seconds = measured(tmp_path)
    assert energy.source == "INA3221, VDD_GPU_SOC + VDD_CPU_CV"
    assert energy.joules is not None
    assert 8 * 0.5 <= energy.joules <= 8 * seconds


def test_a_run_too_short_for_the_rails_says_so(tmp_path: Path) -> None:
    rail(tmp_path, 1, "VDD_IN", 5000, 2000)
    energy, _ = measured(tmp_path, 0.01)
    assert energy.joules is None
    assert "too short" in energy.source


def test_a_rail_that_is_asleep_is_no_crash(tmp_path: Path) -> None:
    rail(tmp_path, 1, "VDD_IN", 5000, 2000)
    (tmp_path / "1-0040/hwmon/hwmon3/curr1_input").write_text("")
    energy, _ = measured(tmp_path)
    assert energy.joules is None
    assert "0 samples" in energy.source


def test_a_machine_without_counters_says_why(tmp_path: Path) -> None:
    energy, _ = measured(tmp_path, 0)
    assert energy == Energy(None, "no counter: it ran on the host, and there is no INA3221")
    assert energy.per_frame_mj(10) is None


def test_it_ends_after_an_error_as_well(tmp_path: Path) -> None:
    rail(tmp_path, 1, "VDD_IN", 5000, 2000)
    meter = EnergyMeter(on_gpu=False, rails=tmp_path)
    with pytest.raises(RuntimeError, match="stopped"), meter:
        raise RuntimeError("stopped")
    assert not meter._thread.is_alive()

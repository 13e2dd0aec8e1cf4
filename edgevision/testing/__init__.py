"""Shipped fakes: a device that finds every race, programs and a stopwatch that do as told."""

from edgevision.testing.scripted import ScriptedProgram, ScriptedStopwatch
from edgevision.testing.simulated import SimulatedDevice

__all__ = ["ScriptedProgram", "ScriptedStopwatch", "SimulatedDevice"]

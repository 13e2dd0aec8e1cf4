"""Shipped fakes: a device that finds every race, and a program that does what it is told."""

from edgevision.testing.scripted import ScriptedProgram
from edgevision.testing.simulated import SimulatedDevice

__all__ = ["ScriptedProgram", "SimulatedDevice"]

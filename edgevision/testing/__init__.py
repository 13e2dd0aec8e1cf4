from edgevision.testing.scripted import ScriptedProgram
from edgevision.testing.simulated import SimulatedDevice

__all__ = ["ScriptedProgram", "SimulatedDevice"]

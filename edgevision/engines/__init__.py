"""From a graph to an engine, on a workstation or on the device; needs no torch."""

"""Precision as a property of the graph: FP16, INT8, calibration, sensitivity."""

"""Graphs as such: capture, observe, rewrite, and what TensorRT says of them."""

"""Memory, streams and events: the seam to CUDA, and the host in its place."""

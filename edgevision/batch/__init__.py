"""Very many frames: shared out, scored anywhere, resumed and merged."""

from edgevision.batch.runner import Runner

__all__ = ["Runner"]

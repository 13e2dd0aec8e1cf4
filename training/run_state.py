"""What every training script writes so that it can go on: the state of its parts, and its rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def save_state(path: Path, parts: Mapping[str, Any], history: list[dict[str, float]]) -> None:
    """Write the state of all `parts` and the rows of the epochs done, atomically."""
    partial = path.with_suffix(".partial")
    torch.save({k: v.state_dict() for k, v in parts.items()} | {"history": history}, partial)
    os.replace(partial, path)


def load_state(path: Path, parts: Mapping[str, Any]) -> list[dict[str, float]]:
    """Restore what `save_state` wrote; return the rows of the epochs done."""
    saved = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    history: list[dict[str, float]] = saved["history"]
    return history

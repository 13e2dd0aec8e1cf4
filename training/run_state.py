"""What every training script writes: the state of its parts, to go on with; rows; weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


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


def save_rows(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON line for each epoch."""
    path.write_text("".join(json.dumps(row) + "\n" for row in history))


def save_weights(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write a module's state as a safetensors file, atomically."""
    partial = path.with_name(f"{path.name}.partial")
    save_file({name: values.contiguous() for name, values in state.items()}, partial)
    os.replace(partial, path)

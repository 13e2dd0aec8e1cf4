"""Weights as training scripts write them are found, or the names on both sides are told."""

from __future__ import annotations

import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgevision.errors import ExportError, FileReadError
from edgevision.export.checkpoint import load_into, load_weights


def net(classes: int = 2) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, classes, 1))


def filled(value: float) -> dict[str, Any]:
    return {name: torch.full_like(held, value) for name, held in net().state_dict().items()}


def prefixed(prefix: str, value: float = 1.0) -> dict[str, Any]:
    return {prefix + name: held for name, held in filled(value).items()}


@pytest.mark.parametrize(
    "content",
    [
        filled(1),
        {"state_dict": filled(1), "epoch": 3},
        {"model": filled(1), "optimizer": {"state": {}}, "epoch": 3},
        {"model_state_dict": filled(1)},
        {"ema": filled(1)},
        {"model": {"state_dict": filled(1)}},
        {"model": filled(1), "args": Namespace(lr=0.1), "best": np.float64(0.7)},
        prefixed("module."),
        prefixed("_orig_mod."),
        prefixed("module._orig_mod."),
        {"state_dict": prefixed("model."), "hyper_parameters": {"lr": 0.1}},
        {n: v for n, v in filled(1).items() if "num_batches" not in n},
        {n: v.half() if v.is_floating_point() else v for n, v in filled(1).items()},
        {n: v.bfloat16() if v.is_floating_point() else v for n, v in filled(1).items()},
    ],
    ids=(
        "plain state_dict model model_state_dict ema nested arguments module. _orig_mod. "
        "both-prefixes lightning no-counters half bfloat16"
    ).split(),
)
def test_a_layout_of_a_training_script_is_taken(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    module = net()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load_into(module, tmp_path / "w.pt")
    assert len(told) == ("0.weight" not in content), "where the weights lie is told in one line"
    assert all((value == 1).all() for value in module.parameters())
    assert all(value.dtype is torch.float32 for value in module.parameters())


def test_safetensors_with_metadata_and_a_prefix(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(prefixed("model."), tmp_path / "w.safetensors", metadata={"format": "pt"})
    module = net()
    with pytest.warns(UserWarning, match="took 'model.' from the front of every name"):
        load_into(module, tmp_path / "w.safetensors")
    assert (module.state_dict()["0.weight"] == 1).all()


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    torch.save({**prefixed("model."), "loss.weight": torch.ones(2)}, tmp_path / "head.pt")
    with pytest.warns(UserWarning, match=r"left out 'loss\.weight'"):
        load_into(net(), tmp_path / "head.pt")
    torch.save({"model": filled(1), "ema": filled(2)}, tmp_path / "both.pt")
    with pytest.warns(UserWarning, match="took the weights under 'model'; left 'ema'"):
        load_into(net(), tmp_path / "both.pt")
    torch.save({**filled(1), "aux.weight": torch.ones(1)}, tmp_path / "aux.pt")
    with pytest.warns(UserWarning, match=r"left out 'aux\.weight'"):
        load_into(net(), tmp_path / "aux.pt")


def test_two_nets_in_one_file_are_not_chosen_between(tmp_path: Path) -> None:
    torch.save({**prefixed("student."), **prefixed("teacher.", 2)}, tmp_path / "w.pt")
    with pytest.raises(ExportError, match=r"begin to fit: 'student\.', 'teacher\.'\. Keep"):
        load_into(net(), tmp_path / "w.pt")


def test_a_misfit_names_the_first_keys_of_both_sides(tmp_path: Path) -> None:
    torch.save({"backbone.a": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ExportError, match=r"lacks '0\.weight', .*7 more.*has no 'backbone\.a'"):
        load_into(nn.Sequential(*net(), nn.Linear(1, 1)), tmp_path / "w.pt")
    torch.save(net(classes=5).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ExportError, match=r"'2\.weight' is \[5, 4, 1, 1\] in the file and \[2"):
        load_into(net(), tmp_path / "w.pt")
    torch.save({**filled(1), "0.3.weight": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ExportError, match=r"no .0\.3\.weight.\. Drop what the module"):
        load_into(net(), tmp_path / "w.pt")


def test_what_holds_no_weights_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "w.pt")
    with pytest.raises(FileReadError, match="but a dict with 'epoch', 'optimizer'"):
        load_weights(tmp_path / "w.pt")
    torch.save([torch.ones(1)], tmp_path / "w.pt")
    with pytest.raises(FileReadError, match="but one object of type list"):
        load_weights(tmp_path / "w.pt")
    torch.save(net(), tmp_path / "w.pt")
    with pytest.raises(FileReadError, match=r"torch\.save\(module\.state_dict\(\), path\)"):
        load_weights(tmp_path / "w.pt")

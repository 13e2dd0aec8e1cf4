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
        {"model": filled(1), "args": Namespace(out=Path("runs")), "losses": np.zeros(3)},
        {"best_model": filled(1), "discriminator": {"w": torch.ones(1)}, "seed": torch.ones(1)},
        {**filled(1), "epoch": 3},
        {n.replace("0.", "0._orig_mod."): v for n, v in filled(1).items()},
        prefixed("module."),
        prefixed("_orig_mod."),
        prefixed("module._orig_mod."),
        {"state_dict": prefixed("model."), "hyper_parameters": {"lr": 0.1}},
        {n: v for n, v in filled(1).items() if "num_batches" not in n},
        {n: v.half() if v.is_floating_point() else v for n, v in filled(1).items()},
        {n: v.bfloat16() if v.is_floating_point() else v for n, v in filled(1).items()},
    ],
    ids=(
        "plain state_dict model model_state_dict ema nested arguments paths-and-arrays "
        "a-key-that-nobody-knows with-epoch a-part-compiled module. _orig_mod. "
        "both-prefixes lightning no-counters half bfloat16"
    ).split(),
)
def test_a_layout_of_a_training_script_is_taken(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    module = net()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load_into(module, tmp_path / "w.pt")
    is_told = bool(content.keys() & {"model", "ema", "state_dict", "model_state_dict"})
    is_told |= any(name.startswith(("module.", "best")) for name in content)
    assert len(told) == is_told, "where the weights lie is told in one line"
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


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_what_holds_no_weights_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "w.pt")
    with pytest.raises(FileReadError, match="but a dict with 'epoch', 'optimizer'"):
        load_weights(tmp_path / "w.pt")
    torch.save([torch.ones(1)], tmp_path / "w.pt")
    with pytest.raises(FileReadError, match="but one object of type list"):
        load_weights(tmp_path / "w.pt")
    torch.save(net(), tmp_path / "w.pt")
    with pytest.raises(
        FileReadError, match=r"a torch\.nn\.modules\.con.*held\.state_dict\(\), NEW"
    ):
        load_weights(tmp_path / "w.pt")
    torch.jit.script(net()).save(str(tmp_path / "w.pt"))
    with pytest.raises(FileReadError, match=r"TorchScript archive.*torch\.jit\.load\(PATH\)"):
        load_weights(tmp_path / "w.pt")


def test_of_several_nets_the_one_that_fits_is_taken_and_of_two_that_fit_none(
    tmp_path: Path,
) -> None:
    torch.save({"D": net(5).state_dict(), "G": filled(1)}, tmp_path / "w.pt")
    with pytest.warns(UserWarning, match="took the weights under 'G'"):
        load_into(net(), tmp_path / "w.pt")
    torch.save({"G": filled(1), "G_ema": filled(2)}, tmp_path / "w.pt")
    with pytest.raises(ExportError, match=r"fit: 'G', 'G_ema'.*torch\.load\(PATH\)\['G'\], NEW"):
        load_into(net(), tmp_path / "w.pt")


@pytest.mark.parametrize("kind", [torch.int8, torch.complex64])
def test_other_numbers_than_weights_are_no_weights(kind: torch.dtype, tmp_path: Path) -> None:
    torch.save({**filled(1), "0.weight": filled(1)["0.weight"].to(kind)}, tmp_path / "w.pt")
    with pytest.raises(ExportError, match=r"'0\.weight' holds .* and floats in the module"):
        load_into(net(), tmp_path / "w.pt")


def test_a_file_is_what_it_holds_and_not_what_its_name_says(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(filled(1), tmp_path / "w.pt")
    torch.save(filled(1), tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        module = net()
        load_into(module, tmp_path / name)
        assert (module.state_dict()["0.weight"] == 1).all()

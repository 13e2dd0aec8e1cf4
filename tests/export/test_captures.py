"""What captures are kept by: no two modules that differ share one."""

from __future__ import annotations

import torch
from torch import nn

from tests.parts.captures import key_of
from tests.parts.nets import small_net


class Scaled(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.by


def test_a_capture_is_kept_by_weights_attributes_and_ends() -> None:
    net, same, other = small_net(), small_net(), small_net(1)
    key = key_of(net, ("frame",))
    assert key == key_of(same, ("frame",))
    assert key not in (key_of(other, ("frame",)), key_of(net, ("image",)), "")
    with torch.no_grad():
        same.head.bias[0] += 1e-6
    assert key != key_of(same, ("frame",))
    assert key_of(Scaled(1.0), ()) != key_of(Scaled(2.0), ())


def test_what_only_one_test_knows_is_not_kept() -> None:
    class Local(nn.Module): ...

    hooked = small_net()
    hooked.register_forward_hook(lambda *_: None)
    assert key_of(Local(), ()) == key_of(hooked, ()) == ""
    assert key_of(nn.Linear(3000, 3000), ()) == ""

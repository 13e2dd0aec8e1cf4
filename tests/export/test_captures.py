"""What captures are kept by: no two modules that differ share one."""

from __future__ import annotations

import torch
from torch import nn

from tests.parts.captures import shape_key
from tests.parts.nets import small_net


class Scaled(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.by


def test_a_capture_is_kept_by_weights_attributes_and_ends() -> None:
    net, same, other = small_net(), small_net(), small_net(1)
    key = shape_key(net, ("frame",))
    assert key == shape_key(same, ("frame",))
    assert key not in (shape_key(other, ("frame",)), shape_key(net, ("image",)), "")
    with torch.no_grad():
        same.head.bias[0] += 1e-6
    assert key != shape_key(same, ("frame",))
    assert shape_key(Scaled(1.0), ()) != shape_key(Scaled(2.0), ())


def test_what_only_one_test_knows_is_not_kept() -> None:
    class Local(nn.Module): ...

    hooked = small_net()
    hooked.register_forward_hook(lambda *_: None)
    assert shape_key(Local(), ()) == shape_key(hooked, ()) == ""
    assert shape_key(nn.Linear(3000, 3000), ()) == ""

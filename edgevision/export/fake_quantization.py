"""Fake quantisation in a torch module, where the INT8 pass would place it, to train with.

What comes out is trained like any module and exported like any module; its graph then carries the
Q/DQ that it was trained with, and a build takes it as INT8. Batch norms are folded first, as they
are in a graph: a layer is trained with the weights that are rounded.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from edgevision.errors import ExportError
from edgevision.export.graph.capture import evaluating
from edgevision.export.precision.scales import LEVELS, half_up

_aten = torch.ops.aten
# Which axis of their weights has the output channels.
_OUTPUT_AXIS = {
    **dict.fromkeys((_aten.conv1d, _aten.conv2d, _aten.conv3d, _aten.linear), 0),
    **dict.fromkeys((_aten.conv_transpose1d, _aten.conv_transpose2d, _aten.conv_transpose3d), 1),
    _aten.matmul: -1,
}
_ADDS = (_aten.add, _aten.add_)


class FakeQuantized(nn.Module):
    """Rounds a tensor to int8 steps and back; gradients pass where a value was within reach.

    Attributes:
        scale: the size of a step, float32[], or float32[C] along `axis`; training keeps it.
        axis: of the output channels of weights; None for an activation, which has one scale.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, scale: Tensor, axis: int | None) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros_like(scale, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` in whole steps."""
        scale, zero, ends = self.scale, self.zero, (-LEVELS - 1, LEVELS)
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(x, scale, zero, *ends)
        return torch.fake_quantize_per_channel_affine(x, scale, zero, self.axis, *ends)


def fake_quantize(
    module: nn.Module,
    samples: Sequence[Tensor | tuple[Tensor, ...]],
    *,
    percentile: float = 99.999,
    weight_steps: int = LEVELS,
) -> fx.GraphModule:
    """Return a copy of `module` that computes as its INT8 graph will, to be fine-tuned.

    Every Conv, ConvTranspose, Linear and MatMul with weights of its own is given its input and its
    weights in int8 steps, and an Add its identity branch; batch norms behind layers are folded. The
    copy takes batches of any number, of the samples' size. Its parameters are named as the
    module's, so that `load_state_dict` brings them from a copy that was trained at another size.

    Args:
        module: takes tensors; it is not changed.
        samples: what it takes, typical: they set how far the activations' steps reach. Of several
            tensors a tuple; the first axis of each is the batch.
        percentile: of each sample's magnitudes, the largest within reach; 100 for all of them.
        weight_steps: from 0 to the largest weight of a channel; 127 are all that int8 has, 7 what 4
            bits would have.

    Raises:
        ExportError: torch cannot capture the module, or no layer in it has weights of its own.
        ValueError: there are no samples, or `percentile` makes no sense.
    """
    if not samples or not 0 < percentile <= 100:
        raise ValueError(
            f"got {len(samples)} samples and percentile {percentile}, expected at least one, and "
            "above 0 up to 100"
        )
    taken = [sample if isinstance(sample, tuple) else (sample,) for sample in samples]
    captured = _captured(copy.deepcopy(module), taken[0])
    _fold_batch_norms(captured)
    activations = _place(captured, weight_steps)
    if not activations:
        raise ExportError(
            f"{type(module).__name__}: nothing to quantise, for no Conv, ConvTranspose, Linear or "
            "MatMul in it has weights of its own"
        )
    _drop_unread(captured)
    captured.recompile()
    _set_scales(captured, activations, taken, percentile)
    return captured


def _captured(module: nn.Module, sample: tuple[Tensor, ...]) -> fx.GraphModule:
    # A batch of one would be taken for the only one.
    example = tuple(torch.cat((x, x)) for x in sample)
    batches = tuple({0: torch.export.Dim.AUTO} for _ in sample)
    with evaluating(module, f"a sample of {[list(x.shape) for x in sample]}"):
        exported = torch.export.export(module, example, dynamic_shapes=batches).module()
    assert isinstance(exported, fx.GraphModule)
    for node in _nodes(exported):
        if node.op == "call_module":  # it checks the input's shape
            exported.graph.erase_node(node)
    # What torch.export gives refuses train() and eval().
    return fx.GraphModule(exported, exported.graph)


def _fold_batch_norms(module: fx.GraphModule) -> None:
    """Fold batch norms into the layer before them, where nobody else reads either."""
    for norm in _nodes(module):
        if _operator(norm) is not _aten.batch_norm:
            continue
        layer = norm.args[0]
        axis = _layer_axis(layer)
        if axis in (None, -1) or len(layer.users) > 1 or len(layer.args[1].users) > 1:
            continue
        if axis == 1 and len(layer.args) > 6 and layer.args[6] != 1:  # groups
            continue
        weight, rest = layer.args[1], layer.args[3:]
        bias = layer.args[2] if len(layer.args) > 2 else None
        values = [n and _get(module, n.target) for n in (weight, bias, *norm.args[1:5])]
        weights, shift, gain, offset, mean, variance = values
        folded = fuse_conv_bn_weights(
            weights, shift, mean, variance, norm.args[7], gain, offset, transpose=axis == 1
        )
        stem = weight.target.rpartition(".")[0]
        _set(module, weight.target, folded[0])
        if bias is None:
            with module.graph.inserting_before(layer):
                _set(module, f"{stem}.bias", folded[1])
                bias = module.graph.get_attr(f"{stem}.bias")
        else:
            _set(module, bias.target, folded[1])
        layer.args = (layer.args[0], weight, bias, *rest)
        norm.replace_all_uses_with(layer)
        module.graph.erase_node(norm)


def _place(module: fx.GraphModule, weight_steps: int) -> list[FakeQuantized]:
    """Put fake quantisation at every layer; return that of the activations."""
    graph = module.graph
    # A vector of weights has no output channels to scale by.
    layers = [
        n for n in _nodes(module) if _layer_axis(n) is not None and _weights(module, n).ndim > 1
    ]
    done: dict[tuple[Any, int | None], Any] = {}

    def rounded(source: Any, scale: Tensor, axis: int | None) -> Any:
        if (source, axis) not in done:
            name = f"fake_quantized_{len(done)}"
            module.add_submodule(name, FakeQuantized(scale, axis))
            with graph.inserting_after(source):
                done[source, axis] = graph.call_module(name, (source,))
        return done[source, axis]

    for layer in layers:
        source, weight = layer.args[:2]
        weights = _weights(module, layer)
        axis = (_layer_axis(layer) or 0) % weights.ndim
        others = [i for i in range(weights.ndim) if i != axis]
        scales = _scale(weights.abs().amax(others), weight_steps)
        steps = rounded(weight, scales, axis)
        layer.args = (rounded(source, torch.ones(()), None), steps, *layer.args[2:])
    for add in _nodes(module):
        if _operator(add) in _ADDS and sum(n in layers for n in add.args[:2]) == 1:
            add.args = (*(done.get((n, None), n) for n in add.args[:2]), *add.args[2:])
    parts = [part for part in module.modules() if isinstance(part, FakeQuantized)]
    return [part for part in parts if part.axis is None]


@torch.no_grad()
def _set_scales(
    module: fx.GraphModule,
    activations: Sequence[FakeQuantized],
    samples: Sequence[tuple[Tensor, ...]],
    percentile: float,
) -> None:
    """Set the activations' steps by what they hold in float."""
    largest = dict.fromkeys(activations, torch.zeros(()))

    def watch(part: FakeQuantized, given: tuple[Tensor], found: Tensor) -> Tensor:
        if part in largest:
            values = given[0].abs().flatten()
            left_out = int(len(values) * (1 - percentile / 100))
            largest[part] = largest[part].maximum(values.topk(left_out + 1).values[-1])
        return given[0]

    parts = [part for part in module.modules() if isinstance(part, FakeQuantized)]
    hooks = [part.register_forward_hook(watch) for part in parts]
    for sample in samples:
        module(*sample)
    for hook in hooks:
        hook.remove()
    for part, reach in largest.items():
        part.scale.copy_(_scale(reach, LEVELS))


def _scale(largest: Tensor, steps: int) -> Tensor:
    """Return what `steps` need to reach `largest`, rounded up as the INT8 pass does."""
    return torch.from_numpy(np.asarray(half_up(largest.double().numpy() / steps)))


def _drop_unread(module: fx.GraphModule) -> None:
    """Drop what nothing reads any more, such as what was folded, so that an optimizer lacks it."""
    module.graph.eliminate_dead_code()
    read = {node.target for node in _nodes(module)}
    for name in dict([*module.named_parameters(), *module.named_buffers()]):
        owner, _, last = name.rpartition(".")
        if name not in read and owner not in read:
            delattr(module.get_submodule(owner), last)


def _nodes(module: fx.GraphModule) -> list[Any]:
    """Return the nodes as they are now; torch types their arguments as anything at all."""
    return list(module.graph.nodes)


def _operator(node: Any) -> Any:
    return getattr(node.target, "overloadpacket", None)


def _layer_axis(node: Any) -> int | None:
    """Return where the output channels are in a layer's weights; None for what has none."""
    axis = _OUTPUT_AXIS.get(_operator(node))
    return axis if axis is not None and node.args[1].op == "get_attr" else None


def _weights(module: nn.Module, layer: Any) -> Tensor:
    return _get(module, layer.args[1].target).detach()


def _get(module: nn.Module, name: str) -> Tensor:
    owner, _, last = name.rpartition(".")
    values: Tensor = getattr(module.get_submodule(owner), last)
    return values


def _set(module: nn.Module, name: str, values: nn.Parameter) -> None:
    owner, _, last = name.rpartition(".")
    module.get_submodule(owner).register_parameter(last, values)

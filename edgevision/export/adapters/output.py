"""The tensor that a user's net returns, however it is wrapped, and the first try of a net."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from edgevision.errors import ExportError
from edgevision.export.adapters.frame import CameraInput
from edgevision.export.graph.capture import evaluating

_NAMES = ("out", "logits")
# What nets give beside their answer, for training or to be looked at.
_OF_TRAINING = frozenset(
    "aux loss attentions hidden_states past_key_values cross_attentions encoder_last_hidden_state "
    "decoder_hidden_states decoder_attentions encoder_hidden_states encoder_attentions".split()
)


def first_tensor(output: object, *, names: tuple[str, ...] = _NAMES, what: str) -> Tensor:
    """Find the tensor in what a net returns.

    Args:
        output: a tensor, a dict or an object with one of `names`, or a tuple of which the first is
            taken.
        names: keys or attributes, looked for in this order.
        what: what it is called in the message, e.g. "logits".

    Raises:
        ExportError: it is none of these.
    """
    found, left = output, list[str]()
    for name in names:
        if isinstance(output, Mapping) and name in output:
            found = output[name]
            left = [str(key) for key, value in output.items() if key != name and value is not None]
            break
        if hasattr(output, name):
            found = getattr(output, name)
            break
    if isinstance(found, tuple | list) and found:
        left += [f"output {i}" for i, x in enumerate(found) if i and isinstance(x, Tensor)]
        found = found[0]
    if left := [name for name in left if name not in _OF_TRAINING]:
        warnings.warn(
            f"of what the module gives only the {what} are taken, and {', '.join(left)} not: "
            "edgevision.export.MultiTask has an answer for each head",
            stacklevel=2,
        )
    if not isinstance(found, Tensor):
        raise ExportError(
            f"the module returns {type(output).__name__}, expected {what} as a tensor, a dict or "
            f"an object with {' or '.join(names)}, or a tuple that starts with them"
        )
    return found


def try_module(graph: nn.Module, call: Callable[[Tensor], Tensor], camera: CameraInput) -> Tensor:
    """Return what `call`, of a graph around a net, gives on a black frame.

    Raises:
        ExportError: it fails, or gives more or fewer answers than there are frames.
    """
    height, width = camera.size
    with evaluating(graph, f"a frame of {height}x{width}"):
        found = call(camera.zeros())
    if not found.ndim or found.shape[0] != camera.batch:
        raise ExportError(
            f"the module gives {list(found.shape)} of {camera.batch} frame(s); expected as many "
            "answers as frames, along the first axis"
        )
    return found

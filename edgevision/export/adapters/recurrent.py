"""Nets with a memory: a module that takes a state and gives it again, under any task's head."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgevision.bundle.tensors import NEXT, DType, TensorSpec
from edgevision.errors import ExportError
from edgevision.export.adapters.frame import CameraInput
from edgevision.export.graph.capture import evaluating


class Recurrent(nn.Module):
    """A module that is called with a picture and its state, and gives an answer and the new state.

    Give it to an adapter in place of a module. On the device the state stays where the engine uses
    it, and begins with zeros: see `Model.reset`. The module is used, never changed.

    Example:
        >>> net = SemanticSegmentation(  # doctest: +SKIP
        ...     Recurrent(gru, state={"memory": (1, 16, 45, 60)}), size=(360, 480), classes=names
        ... )
    """

    def __init__(self, module: nn.Module, *, state: Mapping[str, Sequence[int]]) -> None:
        """Wrap `module`.

        Args:
            module: `answer, *states = module(pixels, *states)`, or a tuple of states.
            state: the shape of each, float32, by a name of your choice, in the order in which the
                module takes and gives them. Of several cameras their number comes first.

        Raises:
            ValueError: there is none, or a name or shape makes no sense.
        """
        super().__init__()
        if not state:
            raise ValueError("state: got none; a module without one needs no Recurrent")
        self.module = module
        self.specs = tuple(
            TensorSpec(name, DType.FLOAT32, tuple(map(int, shape))) for name, shape in state.items()
        )
        if bad := [spec for spec in self.specs if spec.is_dynamic or spec.name == "frame"]:
            raise ValueError(f"state: got {bad[0]}, expected a shape of numbers, and another name")
        self._turn = _Turn()

    def give(self, state: Sequence[Tensor]) -> None:
        """Set the state that the next call takes."""
        self._turn.taken = tuple(state)

    def given(self) -> tuple[Tensor, ...]:
        """Return what the last call gave."""
        return self._turn.given

    def forward(self, x: Tensor) -> Any:
        """Return the answer; the state passes beside it.

        Raises:
            ExportError: the module gives no state, or one of another shape.
        """
        taken = self._turn.taken or tuple(torch.zeros(spec.shape) for spec in self.specs)
        found = self.module(x, *taken)
        if not isinstance(found, tuple | list) or len(found) < 2:
            raise ExportError(
                f"{type(self.module).__name__} returns {type(found).__name__}, expected an answer "
                f"and the new state: (answer, {', '.join(spec.name for spec in self.specs)})"
            )
        answer, *given = found
        if len(given) == 1 and isinstance(given[0], tuple | list):
            given = list(given[0])
        for spec, new in zip(self.specs, given, strict=False):
            shape = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            if shape != spec.shape or new.dtype != torch.float32:
                raise ExportError(
                    f"state '{spec.name}': the module takes {spec} and gives {shape}; what one "
                    "frame gives is what the next takes, of one shape"
                )
        if len(given) != len(self.specs):
            raise ExportError(f"the module gives {len(given)} states and takes {len(self.specs)}")
        self._turn.given = tuple(given)
        return answer


class _Turn:
    """What one call takes and gives beside the picture; an object that torch does not look into."""

    taken: tuple[Tensor, ...] = ()
    given: tuple[Tensor, ...] = ()


class Carrying(nn.Module):
    """A fused graph with its state beside the frame, and beside the answers."""

    def __init__(
        self, graph: nn.Module, recurrent: Collection[Recurrent], camera: CameraInput
    ) -> None:
        super().__init__()
        if camera.profiles:
            raise ValueError(
                f"cameras: got {camera.cameras}, and the net has a state of each camera, which "
                "must know whose frame comes next. Give one number"
            )
        if len(recurrent) != 1:
            raise ValueError(f"the net has {len(recurrent)} Recurrent modules, at most one fits")
        (self.recurrent,) = recurrent
        self.fused, self.specs = graph, self.recurrent.specs
        for spec in self.specs:
            if not spec.shape or spec.shape[0] % camera.batch:
                raise ValueError(
                    f"state: got {spec}, and {camera.batch} cameras have one each: their number "
                    "comes first"
                )
        self.state = {spec.name: spec.name + NEXT for spec in self.specs}
        with evaluating(self):
            self(camera.zeros(), *(torch.zeros(spec.shape) for spec in self.specs))

    def forward(self, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Return what the graph gives, then the state."""
        self.recurrent.give(state)
        found = self.fused(frame)
        answers = (found,) if isinstance(found, Tensor) else tuple(found)
        given = self.recurrent.given()
        self.recurrent.give(())
        return (*answers, *given)

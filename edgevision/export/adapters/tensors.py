"""A model with its own tensors as they are: any torch module, or any ONNX file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import Tensor, nn

from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Settings
from edgevision.bundle.tensors import DYNAMIC, Array, DType, ShapeProfile, TensorSpec
from edgevision.errors import (
    BundleFormatError,
    EdgeVisionError,
    EngineLoadError,
    ExportError,
    InsufficientMemoryError,
)
from edgevision.export.adapters.adapter import Feeds, ModelAdapter
from edgevision.export.adapters.flat import Flat, called, is_flat, keyword_names, named_tensors
from edgevision.export.adapters.registry import Given
from edgevision.export.graph.capture import (
    as_array,
    capture,
    evaluating,
    example,
    serialized,
)
from edgevision.export.graph.disputed import refuse_disputed
from edgevision.export.graph.onnx_file import (
    is_quantized,
    likely_ranges,
    plain,
    range_to_type,
    read_onnx,
    with_own_axes,
)
from edgevision.runtime.session import Session
from edgevision.tasks.decoders import check_state

_DEFAULT_MAX_BATCH = 8


class Tensors(ModelAdapter):
    """Adapter of a model whose inputs and outputs stay what they are.

    Example:
        >>> net = Tensors("depth.onnx")  # doctest: +SKIP
        >>> net = Tensors(module, inputs=[TensorSpec("x", DType.FLOAT32, (1, 8))])  # doctest: +SKIP
    """

    task = "tensors"

    def __init__(
        self,
        source: nn.Module | str | os.PathLike[str],
        *,
        inputs: Sequence[TensorSpec] = (),
        profiles: Mapping[str, ShapeProfile] | None = None,
        state: Mapping[str, str] | None = None,
    ) -> None:
        """Wrap `source`.

        Args:
            source: a torch module of tensors, or the path of an ONNX file. A module may give
                tuples, dicts and dataclasses of tensors, one inside the other.
            inputs: the module's arguments, in its order or by its names; an ONNX file says them
                itself.
            profiles: bounds of the dynamic inputs. Where only the first axis is dynamic, it may be
                left out: batches of 1 to 8 are allowed then.
            state: what each run hands on to the next, an input's name and an output's, as in
                {"h_in": "h_out"}: it stays on the device, is neither fed nor given, and begins with
                zeros. A module gives it last, in this order, or by these keys.

        Raises:
            ValueError: an argument makes no sense.
            FileReadError: the ONNX file cannot be read, or reaches outside its folder.
            ExportError: the model is not valid, or an axis is dynamic without bounds.
        """
        self._module = source if isinstance(source, nn.Module) else None
        self._original = b""
        self.ranges: Mapping[str, tuple[float, float]] = {}
        self.is_quantized = False
        if self._module is not None:
            if not inputs:
                raise ValueError("inputs: a module needs them, e.g. [TensorSpec('x', ...)]")
            self.inputs = tuple(inputs)
            self._keywords = keyword_names(self._module, [spec.name for spec in self.inputs])
        else:
            assert not isinstance(source, nn.Module)
            if inputs:
                raise ValueError("inputs: an ONNX file says them itself; leave them out")
            model = read_onnx(Path(source))
            self.inputs = graph_inputs(model)
        self.profiles: Mapping[str, ShapeProfile] = _profiles(self.inputs, profiles or {})
        if self._module is None:
            self._graph = with_own_axes(plain(model, source), self.profiles)
            for value, known in zip(model.graph.output, self._graph.graph.output, strict=True):
                if not value.type.tensor_type.HasField("shape"):  # ONNX Runtime takes it for none
                    value.type.CopyFrom(known.type)
            self._original = serialized(model)
            refuse_disputed(self._graph)
            self.ranges = likely_ranges(self._graph)
            self.is_quantized = is_quantized(self._graph)
        self.state: Mapping[str, str] = dict(state or {})
        if self.state:
            self._check_state()

    def settings(self) -> Settings:
        """Return the state: of all else the tensors say all."""
        return {"state": dict(self.state)} if self.state else {}

    def reference(self, feeds: Feeds) -> dict[str, Array]:
        """Return the answers of the module in eager PyTorch, or of the untouched ONNX file."""
        if self._module is None:
            try:
                with Session.open(self._original, flavour=ORT, profiles=self.profiles) as session:
                    return session.run(dict(feeds))
            except EngineLoadError as error:
                raise ExportError(f"the file does not run here: {error}") from error
            except MemoryError as error:
                raise InsufficientMemoryError(f"the file does not run here: {error}") from error
            except EdgeVisionError as error:
                given = ", ".join(map(str, self.inputs)) or "none"
                original = onnx.ModelProto.FromString(self._original)
                raise ExportError(
                    f"ONNX Runtime cannot run the file on these inputs ({given}): {error} If they "
                    "are what is wrong, give some that fit: --samples DIR of .npz files "
                    "(samples=), or the ends of what is drawn (ranges=). "
                    f"{range_to_type(original, str(error))}."
                ) from error
        arguments = [torch.from_numpy(np.array(feeds[spec.name])) for spec in self.inputs]
        return {name: as_array(name, x) for name, x in self._named(self._run(arguments))}

    def to_onnx(self) -> onnx.ModelProto:
        """Return the FP32 graph; see `ModelAdapter`."""
        if self._module is None:
            model = onnx.ModelProto()
            model.CopyFrom(self._graph)
            return model
        found = self._run([example(spec, self.profiles.get(spec.name)) for spec in self.inputs])
        names = [name for name, _ in self._named(found)]
        module = self._module
        if self._keywords or not is_flat(found):
            module = Flat(module, self._keywords)
        return capture(module, self.inputs, names, self.profiles)

    def _named(self, found: object) -> list[tuple[str, Tensor]]:
        """Name what a module gives; a state that it does not name itself comes last."""
        named = named_tensors(found, [spec.name for spec in self.inputs])
        given = list(self.state.values())
        if set(given) <= {name for name, _ in named}:
            return named
        if len(given) >= len(named):
            raise ExportError(
                f"the module gives {len(named)} tensors, expected an answer and then the state: "
                f"{', '.join(given)}"
            )
        answers = len(named) - len(given)
        last = [tensor for _, tensor in named[answers:]]
        return [*named[:answers], *zip(given, last, strict=True)]

    def _check_state(self) -> None:
        """Refuse a state that is not there, or cannot be handed on; ExportError says why."""
        if self._module is None:
            outputs = {spec.name: spec for spec in graph_outputs(self._graph)}
        else:
            zeros = {
                spec.name: example(spec, self.profiles.get(spec.name)).numpy()
                for spec in self.inputs
            }
            outputs = {
                name: TensorSpec(name, DType.from_numpy(array.dtype), array.shape)
                for name, array in self.reference(zeros).items()
            }
        inputs = {spec.name: spec for spec in self.inputs}
        for taken, given in self.state.items():
            if taken not in inputs or given not in outputs:
                raise ExportError(
                    f"state: '{taken}' to '{given}'; the model takes {', '.join(inputs)} and gives "
                    f"{', '.join(outputs)}"
                )
            try:
                check_state(inputs[taken], outputs[given])
            except BundleFormatError as error:
                raise ExportError(str(error)) from error
        if len(self.state) == len(inputs) or len(set(self.state.values())) == len(outputs):
            raise ExportError("state: every input or output is of it; a frame has one of its own")

    def _run(self, arguments: Sequence[Tensor]) -> object:
        assert self._module is not None
        given = ", ".join(map(str, self.inputs))
        with evaluating(self._module, f"({given}), its inputs=[TensorSpec(...)]"):
            return called(self._module, arguments, self._keywords)


def graph_inputs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Return the inputs of an ONNX graph, those with a stored value left out.

    Raises:
        ExportError: an input has a dtype or a shape that no target takes.
    """
    stored = {initializer.name for initializer in model.graph.initializer}
    return tuple(_spec(v) for v in model.graph.input if v.name not in stored)


def graph_outputs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Return the outputs of an ONNX graph.

    Raises:
        ExportError: an output has a dtype or a shape that no target takes.
    """
    return tuple(_spec(value) for value in model.graph.output)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ExportError(
            f"tensor '{value.name}': how many axes it has is not said in the file. Export it again "
            "with shapes, or without branches that give different ones"
        )
    kind = TensorProto.DataType.Name(tensor.elem_type)
    try:
        dtype = DType.from_numpy(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        shape = tuple(d.dim_value if d.dim_value > 0 else DYNAMIC for d in tensor.shape.dim)
        return TensorSpec(value.name, dtype, shape)
    except (ValueError, KeyError) as error:
        raise ExportError(f"tensor '{value.name}' ({kind}): no target takes it: {error}") from error


def _profiles(
    inputs: Sequence[TensorSpec], given: Mapping[str, ShapeProfile]
) -> dict[str, ShapeProfile]:
    dynamic = {spec.name: spec for spec in inputs if spec.is_dynamic}
    if unknown := sorted(given.keys() - dynamic.keys()):
        raise ValueError(f"profiles: {unknown} are not dynamic inputs; those are {sorted(dynamic)}")
    found = {}
    for name, spec in dynamic.items():
        axes = [axis for axis, extent in enumerate(spec.shape) if extent == DYNAMIC]
        profile = given.get(name)
        if profile is None:
            if axes != [0]:
                raise ExportError(
                    f"input {spec} is dynamic on axes {axes}: say how far, with --shape "
                    f"'{name}=MINIMUM:MAXIMUM' such as 1x3x480x640:4x3x960x1280, in Python with "
                    f"profiles={{'{name}': ShapeProfile(minimum, optimum, maximum)}}"
                )
            rest = spec.shape[1:]
            profile = ShapeProfile((1, *rest), (1, *rest), (_DEFAULT_MAX_BATCH, *rest))
        if not (spec.accepts(profile.minimum) and spec.accepts(profile.maximum)):
            raise ValueError(f"profiles: {profile} does not fit {spec}")
        found[name] = profile
    return found


def from_card(module: nn.Module, card: Mapping[str, Any], given: Given) -> Tensors:
    """Return the adapter of a shipped net; see `registry`."""
    specs = [TensorSpec(i["name"], DType(i["dtype"]), tuple(i["shape"])) for i in card["inputs"]]
    return Tensors(module, inputs=specs)


ADAPTER = Tensors
MODULE_REASON = (
    "a module with its own tensors needs their shapes; let the factory return "
    "edgevision.export.Tensors(module, inputs=[TensorSpec(...)])"
)

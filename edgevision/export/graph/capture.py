"""Capture of a torch module as an FP32 ONNX graph, the same bytes for the same module."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence

import onnx
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from edgevision.bundle.tensors import DYNAMIC, Array, ShapeProfile, TensorSpec
from edgevision.errors import EdgeVisionError, ExportError
from edgevision.export.graph.simplify import simplify

OPSET = 20
"""19 brought float16 scales of Q/DQ; TensorRT 10.3 parses up to 20."""

# Without these torch 2.13 exports fake quantisation of fixed sizes only.
_SHAPES = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
for _name in (
    "fake_quantize_per_tensor_affine_cachemask",
    "fake_quantize_per_channel_affine_cachemask",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
):
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{_name}", "Meta"):
        _SHAPES.impl(  # type: ignore[no-untyped-call]
            _name,
            lambda x, *_: (torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)),
            "Meta",
        )

# What torch's exporter says, and what helps against it.
_REMEDIES = (
    (
        re.compile("only 4D query"),
        "Give scaled_dot_product_attention four axes, q[:, None] and so on, and take [:, 0] of "
        "what it gives.",
    ),
    (
        re.compile("adaptive_max_pool"),
        "Of a size n that m does not divide take, for each i of m, the amax of "
        "x[..., i * n // m : -(-(i + 1) * n // m)], and torch.stack them.",
    ),
    (
        re.compile(r"data-dependent|Unbacked|GuardOnData|dynamic control flow", re.IGNORECASE),
        "Rewrite what it names without shapes or branches that depend on values: torch.where, "
        "torch.cond, a fixed number with topk.",
    ),
    (
        re.compile("ONNX allows only|values for the zero_point"),
        "Fake-quantise with quant_min=-128, quant_max=127 and an int32 zero_point of 0: TensorRT "
        "takes symmetric int8.",
    ),
    (
        re.compile(r"No (?:ONNX function|decompositions?) |No ONNX function found|DispatchError"),
        "ONNX has no such operator: write it with others, or leave it to the host.",
    ),
)

CHANNEL_SCALES = "edgevision_channel_scales"
"""The note of a graph that was equalised: of each tensor, what its channels are multiplied by."""


def capture(
    module: nn.Module,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[str],
    profiles: Mapping[str, ShapeProfile],
) -> onnx.ModelProto:
    """Export `module` with positional `inputs` and named `outputs`.

    Raises:
        ExportError: torch cannot export the module; the message holds the exporter's last words.
            Or a number in it is none.
    """
    _refuse_script(module)
    _check_weights(module)
    examples = tuple(example(spec, profiles.get(spec.name)) for spec in inputs)
    dynamic = tuple(_dynamic(spec, profiles.get(spec.name)) for spec in inputs)
    with evaluating(module), quiet():
        try:
            program = torch.onnx.export(
                module,
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in inputs],
                output_names=list(outputs),
                dynamic_shapes=_by_parameter(module, dynamic) if any(dynamic) else None,
                external_data=False,
                verbose=False,
                optimize=False,
            )
            assert program is not None
            simplify(program.model)
            # An output that is an input, or another output, had taken its name from it.
            for value, spec in zip(program.model.graph.inputs, inputs, strict=True):
                value.name = spec.name
            for value, name in zip(program.model.graph.outputs, outputs, strict=True):
                value.name = name
        except Exception as error:  # the exporter raises whatever the user's code makes it hit
            raise ExportError(
                f"torch cannot export {_title(module)}: {_last_words(error)}{_advice(error)}"
            ) from error
    return anonymous(program.model_proto)


def _refuse_script(module: nn.Module) -> None:
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise ExportError(
            f"{_title(module)} is TorchScript, which torch no longer exports. Give the Python "
            "module that it was scripted or traced from, or an ONNX file."
        )


def _advice(error: BaseException) -> str:
    """Return what may help against a failure of torch's exporter; empty where nothing is known."""
    said = []
    cause: BaseException | None = error
    while cause is not None:
        said.append(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__
    text = "\n".join(said)
    for words, remedy in _REMEDIES:
        if words.search(text):
            return f" {remedy}"
    return ""


def _check_weights(module: nn.Module) -> None:
    """Refuse NaN and infinity: labels of NaN are 0 everywhere, in every graph alike."""
    buffers = dict(module.named_buffers())
    for name, values in (*module.named_parameters(), *buffers.items()):
        if not values.is_floating_point():
            continue
        # Minus infinity in a buffer masks; in a weight it is a run that diverged.
        broken = values.isnan() | (values == math.inf)
        if name not in buffers:
            broken |= values == -math.inf
        if broken.any():
            raise ExportError(
                f"'{name}' holds {int(broken.sum())} of {values.numel()} values that are NaN or "
                "infinite. Take a checkpoint from before the training diverged."
            )


def example(spec: TensorSpec, profile: ShapeProfile | None) -> torch.Tensor:
    """Return a tensor of zeros that fits `spec`, at the usual shape of its profile."""
    shape = profile.optimum if profile is not None else spec.shape
    # An extent of 1 would be taken for a constant.
    shape = tuple(
        max(2, have) if want == DYNAMIC else have
        for want, have in zip(spec.shape, shape, strict=True)
    )
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype.value))


@contextlib.contextmanager
def evaluating(module: nn.Module, given: str = "") -> Iterator[None]:
    """Put the module into evaluation mode, and every part back as it was.

    Args:
        module: what runs in the block.
        given: what it is given there, for the message.

    Raises:
        ExportError: the module raised in the block; its first words, and what to type where that is
            known.
    """
    training = {part: part.training for part in module.modules()}
    try:
        module.eval()
        with torch.no_grad():
            yield
    except (EdgeVisionError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        words = (str(error).strip() or "no reason given").split("\n", 1)[0][:300]
        raise ExportError(
            f"{_title(module)} fails{given and f' on {given}'}: {type(error).__name__}: "
            f"{words.rstrip('.')}.{_of_types(module)}"
        ) from error
    finally:
        for part, was_training in training.items():
            part.training = was_training


@contextlib.contextmanager
def refusing_nan() -> Iterator[None]:
    """Refuse a user's module that gives NaN in the block, which no class map or box shows any more.

    Raises:
        ExportError: names the module.
    """
    running: list[nn.Module] = []

    def begin(module: nn.Module, _: object) -> None:
        if not type(module).__module__.startswith("edgevision.export."):
            running.append(module)

    def end(module: nn.Module, _: object, found: object) -> None:
        if not running or module is not running[-1]:
            return
        running.pop()
        if running:  # what is inside may hide its NaN, as masked attention does
            return
        for tensor in tree_leaves(found):
            is_float = isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
            if is_float and (count := int(tensor.isnan().sum())):
                raise ExportError(
                    f"{type(module).__name__} gives NaN in {count} of {tensor.numel()} values on a "
                    "sample. Look at that sample, at mean= and std=, and at what divides, takes a "
                    "root or a logarithm in the module."
                )

    handles = [
        torch.nn.modules.module.register_module_forward_pre_hook(begin),
        torch.nn.modules.module.register_module_forward_hook(end),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def as_array(name: str, tensor: torch.Tensor) -> Array:
    """Return what a module gives as numbers that an engine may give.

    Raises:
        ExportError: numpy has no such type.
    """
    try:
        found: Array = tensor.detach().cpu().numpy()
    except (TypeError, RuntimeError) as error:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ExportError(
            f"output '{name}' is {kind}, which no target gives. Return it as float32, by "
            f"tensor.float(): {error}"
        ) from error
    return found


def _title(module: nn.Module) -> str:
    """Return what the user calls a module that may stand inside one of ours."""
    while type(module).__module__.startswith("edgevision.export."):
        inner = getattr(module, "module", None)
        if not isinstance(inner, nn.Module):
            break
        module = inner
    return type(module).__name__


def _of_types(module: nn.Module) -> str:
    weights = (*module.parameters(), *module.buffers())
    others = {w.dtype for w in weights if w.is_floating_point()} - {torch.float32}
    if not others:
        return ""
    found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in others))
    return f" It has weights of {found}: give it in float32, as module.float() makes it."


def anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes, which hold source lines and paths, in place."""
    graphs = [model.graph, *model.functions]
    model.doc_string = ""
    ours = [entry for entry in model.metadata_props if entry.key == CHANNEL_SCALES]
    del model.metadata_props[:]
    model.metadata_props.extend(ours)
    for graph in graphs:
        graph.doc_string = ""
        del graph.metadata_props[:]
        for value in graph.value_info:
            value.doc_string = ""
            del value.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
            for attribute in node.attribute:
                # Grows the list that is walked: subgraphs have notes too.
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs
        if isinstance(graph, onnx.GraphProto):
            for value in (*graph.input, *graph.output, *graph.initializer):
                value.doc_string = ""
                del value.metadata_props[:]
    return model


def serialized(model: onnx.ModelProto) -> bytes:
    """Return the model's bytes, equal for equal models."""
    return bytes(model.SerializeToString(deterministic=True))


def _dynamic(spec: TensorSpec, profile: ShapeProfile | None) -> dict[int, object]:
    if profile is None:
        return {}
    return {
        axis: torch.export.Dim.DYNAMIC(
            min=max(1, profile.minimum[axis]), max=max(2, profile.maximum[axis])
        )
        for axis, extent in enumerate(spec.shape)
        if extent == DYNAMIC
    }


def _by_parameter(module: nn.Module, dynamic: tuple[dict[int, object], ...]) -> tuple[object, ...]:
    """Gather what `*arguments` takes into one tuple, as torch counts parameters."""
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return dynamic
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*dynamic[:named], dynamic[named:])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep chatter off the terminal; what matters comes in the exception."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    sink = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _last_words(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:3])[:400]}"

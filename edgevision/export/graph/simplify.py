"""Simplifies a captured graph: what torch's exporter would do, less what changes its values.

The exporter's optimiser takes `x + 1e-8` for `x + 0` (onnxscript matches constants to 1e-8, and to
five digits): an epsilon vanishes, and a pixel without features becomes 0/0.
"""

from __future__ import annotations

import numpy as np
import onnx_ir.passes.common as passes
from onnxscript import ir, optimizer, rewriter
from onnxscript.rewriter import pattern
from onnxscript.rewriter.rules import common

from edgevision.export.graph.replace import replace_refused

# In the exporter's order: some rules wait for what others leave.
_RULES = (
    "two_reshapes_matmul_reshape one_reshape_matmul_reshape cast_constant_of_shape "
    "cast_constant_of_shape_without_value collapse_slice collapse_slice2 "
    "materialize_reshape_shape min_min max_max min_max max_min successive_clip_relu "
    "successive_relu_clip successive_relu successive_clip cast_cast no_op_cast no_op_expand "
    "flatten_to_reshape reshape_reshape slice_split no_op_transpose transpose_transpose "
    "unsqueeze_unsqueeze squeeze_reshape_1d no_op_dynamic_scatter_nd no_op_static_scatter_nd "
    "normalize_pad_format_conv fuse_pad_into_conv fuse_batchnorm_into_conv "
    "fuse_batchnorm_into_conv_transpose fuse_batchnorm_into_gemm remove_optional_bias_from_conv "
    "remove_optional_bias_from_conv_transpose remove_optional_bias_from_gemm"
).split()
# Operators that do nothing with one number on the right, and whether it may stand on the left.
_IDLE = {"Add": (0.0, True), "Sub": (0.0, False), "Mul": (1.0, True), "Div": (1.0, False)}
# What lies between stored weights and the layer that reads them; none makes them larger.
_OF_WEIGHTS = frozenset("Cast Identity Mul Reshape Squeeze Transpose Unsqueeze".split())
_ROUNDS = 2


def simplify(model: ir.Model, *, with_weights: bool = False) -> None:
    """Fold constants and batch norms, and drop what does nothing, in place.

    Args:
        model: what is simplified.
        with_weights: fold what stands between stored weights and their layer, too, as files of
            other exporters have it. In a module's own graph they stay apart: with them folded
            style_generator_64 missed its parity in INT8.
    """

    def should_fold(node: ir.Node) -> bool | None:
        return _is_of_weights(node) if with_weights else None

    passes.InlinePass()(model)
    rules = [rule for name in _IDLE for rule in _idle_rules(name)]
    rules += [common.dropout_zero_rule, common.dropout_inference_rule]
    rules += [getattr(common, f"{name}_rule") for name in _RULES]
    for _ in range(_ROUNDS):
        optimizer.fold_constants_ir(model, onnx_shape_inference=True, should_fold=should_fold)
        rewriter.rewrite(model, rules)
        if with_weights:
            _fold_extents(model)
    replace_refused(model)
    for tidy in (
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.LiftSubgraphInitializersToMainGraphPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        tidy(model)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        # TensorRT 10's parser knows opset 16's "bilinear" and reads any other word as nearest
        # (NVIDIA/TensorRT#4646). Without a word every version takes the default, which is linear.
        if node.op_type == "GridSample" and node.attributes.get_string("mode") == "linear":
            node.attributes.pop("mode")
        # Its importer of ScatterND refuses the word whatever it says (onnx-tensorrt 10.1).
        if node.op_type == "ScatterND" and node.attributes.get_string("reduction") == "none":
            node.attributes.pop("reduction")


def _fold_extents(model: ir.Model) -> None:
    """Make a constant of the size of an axis that is fixed where others are open.

    Older exporters of torch put a branch around each `squeeze` that asks whether it is 1.
    """
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type != "Gather" or node.inputs[0] is None or node.inputs[1] is None:
            continue
        made_by = node.inputs[0].producer()
        place = ir.convenience.get_const_tensor(node.inputs[1])
        if made_by is None or made_by.op_type != "Shape" or made_by.attributes or place is None:
            continue
        shape = made_by.inputs[0].shape if made_by.inputs[0] is not None else None
        if shape is None or place.shape or not -len(shape) <= int(place.numpy()) < len(shape):
            continue
        extent = shape[int(place.numpy())]
        if isinstance(extent, int):
            value = ir.AttrTensor("value", ir.tensor(np.array(extent, np.int64)))
            constant = ir.node("Constant", [], {"value": value})
            assert isinstance(node.graph, ir.Graph)
            node.graph.insert_before(node, constant)
            ir.convenience.replace_all_uses_with(node.outputs[0], constant.outputs[0])


def _is_of_weights(node: ir.Node) -> bool | None:
    """Fold what reshapes or scales stored weights whatever their size; the rest by its own rule."""
    if node.op_type in _OF_WEIGHTS and all(
        v is not None and ir.convenience.get_const_tensor(v) is not None for v in node.inputs
    ):
        return True
    return None


def _idle_rules(name: str) -> list[pattern.RewriteRule]:
    """Return the rules that drop operator `name` where its scalar is exactly the idle one."""
    number, commutes = _IDLE[name]

    def is_idle(context: object, constant: ir.Value, **_: object) -> bool:
        value = ir.convenience.get_const_tensor(constant)
        return value is not None and not value.shape and float(value.numpy()) == number

    def found(op: object, x: ir.Value, constant: ir.Value) -> object:
        return getattr(op, name)(x, constant)

    def kept(op: object, x: ir.Value, **_: object) -> object:
        return op.Identity(x)  # type: ignore[attr-defined]

    rule = pattern.RewriteRule(found, kept, is_idle)
    return list(rule.commute()) if commutes else [rule]

"""What each layer of an INT8 graph costs and why it is wide, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgevision.bundle.layer_report import LayerRow


@dataclass(frozen=True, slots=True)
class LayerSize:
    """What is known of a layer whatever becomes of it: operator, size, and its noise in INT8."""

    op_type: str
    macs: int
    snr_db: float


def rows_of(
    layers: Mapping[str, LayerSize],
    int8: Mapping[str, str],
    kept: Mapping[str, str],
    harm: Mapping[str, float],
) -> list[LayerRow]:
    """Return a row for each layer, in the graph's order.

    Args:
        layers: what can be INT8, by node.
        int8: the layers that are INT8.
        kept: why a node is wide.
        harm: of each layer, where a search measured it.
    """
    return [
        LayerRow(
            node,
            layer.op_type,
            layer.macs,
            layer.snr_db,
            harm.get(node),
            node in int8,
            # The decibels before it have a column of their own.
            "" if node in int8 else kept.get(node, "").rpartition("dB: ")[2],
        )
        for node, layer in layers.items()
    ]

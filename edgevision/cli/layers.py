"""What a bundle's report says of each layer of its INT8 graph, in lines for people."""

from __future__ import annotations

from collections.abc import Sequence

from edgevision.bundle.layer_report import LayerRow


def layer_lines(layers: Sequence[LayerRow], *, is_whole: bool) -> list[str]:
    """Return how much is INT8, and a line for each layer that is wide, or for all."""
    if not layers:
        return []
    total = max(1, sum(layer.macs for layer in layers))
    int8 = [layer for layer in layers if layer.is_int8]
    share = sum(layer.macs for layer in int8) / total
    lines = [
        f"INT8: {len(int8)} of {len(layers)} layers, {share:.1%} of their multiply-accumulates"
    ]
    for layer in layers if is_whole else [layer for layer in layers if not layer.is_int8]:
        harm = "" if layer.harm is None else f"  harm {layer.harm:.4f}"
        state = "INT8" if layer.is_int8 else f"wide: {layer.why}"
        lines.append(
            f"  {layer.node:28} {layer.op_type:14} {layer.macs / 1e6:9.2f} MMAC "
            f"{layer.macs / total:6.1%} {layer.snr_db:6.1f} dB{harm}  {state}"
        )
    return lines

"""What a bundle's report says of each layer of its INT8 graph, in lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from edgevision.bundle.reading import Reader, parse
from edgevision.errors import BundleFormatError

if TYPE_CHECKING:
    from edgevision.bundle.directory import Bundle

REPORT = "reports/layers.json"
_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, as the report has it; see `export.layer_report`."""

    node: str
    op_type: str
    macs: int
    snr_db: float
    harm: float | None
    is_int8: bool
    why: str


def read_layers(bundle: Bundle) -> list[Layer]:
    """Return what a bundle says of its layers; nothing where it has no such report.

    Raises:
        BundleFormatError: the report is something else.
    """
    sizes = {entry.path: entry.size_bytes for entry in bundle.manifest.files}
    if not 0 < sizes.get(REPORT, 0) <= _MAX_BYTES:
        return []
    try:
        report = Reader(parse(bundle.read(REPORT)), REPORT)
        if "layers" not in report.fields:  # of before there were any
            return []
        return list(report.array("layers", _layer))
    except ValueError as error:
        raise BundleFormatError(f"{error}. Build the bundle again") from error


def _layer(value: object, place: str) -> Layer:
    r = Reader(value, place, only=[field.name for field in fields(Layer)])
    return Layer(
        r.text("node"),
        r.text("op_type"),
        r.integer("macs"),
        r.number("snr_db"),
        None if r.fields["harm"] is None else r.number("harm"),
        r.boolean("is_int8"),
        r.text("why"),
    )


def layer_lines(layers: Sequence[Layer], *, is_whole: bool) -> list[str]:
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

"""What a bundle says of each layer that can be INT8: `reports/layers.json`."""

from __future__ import annotations

from dataclasses import dataclass

from edgevision.bundle.directory import Bundle
from edgevision.bundle.reading import Reader, parse, read_fields
from edgevision.errors import BundleFormatError

LAYER_REPORT = "reports/layers.json"
_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer that can be INT8.

    Attributes:
        node: its name.
        op_type: e.g. "Conv".
        macs: multiply-accumulates for a sample.
        snr_db: its own signal over its own INT8 noise.
        harm: how much less is lost of the figure on a few samples without it; None where no search
            looked.
        is_int8: whether it is INT8.
        why: why it is wide; empty where it is INT8.
    """

    node: str
    op_type: str
    macs: int
    snr_db: float
    harm: float | None
    is_int8: bool
    why: str


def read_layers(bundle: Bundle) -> list[LayerRow]:
    """Return what a bundle says of its layers; nothing where it has no such report.

    Raises:
        BundleFormatError: the report is something else.
    """
    sizes = {entry.path: entry.size_bytes for entry in bundle.manifest.files}
    if not 0 < sizes.get(LAYER_REPORT, 0) <= _MAX_BYTES:
        return []
    try:
        report = Reader(parse(bundle.read(LAYER_REPORT)), LAYER_REPORT)
        if "layers" not in report.fields:  # of before there were any
            return []
        rows: list[object] = report.read("layers", list)
        return [
            read_fields(LayerRow, row, f"layers[{i}]", exact=True) for i, row in enumerate(rows)
        ]
    except ValueError as error:
        raise BundleFormatError(f"{error}. Build the bundle again") from error

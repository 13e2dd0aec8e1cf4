"""The verb `compare-layers`: where two graphs of one net part, on one frame."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from edgevision._optional import require
from edgevision.cli.bench import percent
from edgevision.cli.exits import NO, OK
from edgevision.cli.terminal import progress_bar, put_json
from edgevision.cli.verbs import Verbs, add_trust, parse_trust, verb

_SHOWN = 10


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    compare = verb(
        verbs, "compare-layers", _compare, is_watched=True,
        example="compare-layers fp32.ev int8.ev frame.jpg --above 10%",
    )  # fmt: skip
    compare.add_argument("first", type=Path, metavar="A", help="a bundle or MODEL.onnx")
    compare.add_argument("second", type=Path, metavar="B", help="another form of the same net")
    compare.add_argument("frame", type=Path, metavar="FRAME", help="a picture, or .npz of inputs")
    compare.add_argument(
        "--above", type=percent, default=0.1, metavar="X%", help="how far off counts, e.g. 10%%"
    )
    compare.add_argument("--all", action="store_true", help="show every node, not only the worst")
    add_trust(compare)


def _compare(options: argparse.Namespace) -> int:
    """Say at which node two graphs of one net first differ by more than a bar, on one frame."""
    require("onnx", extra="export")
    from edgevision.export.layer_compare import compare_layers, frame_feeds, open_graph

    trust = parse_trust(options)
    first, second = (
        open_graph(source if source.suffix == ".onnx" else trust.open(source, is_measured=True))
        for source in (options.first, options.second)
    )
    feeds = frame_feeds([first, second], options.frame)
    with progress_bar() as progress:
        found = compare_layers(first, second, feeds, progress=progress)
    above = next((layer for layer in found if layer.exceeds(options.above)), None)
    rows = [
        {
            "node": layer.node,
            "op_type": layer.op_type,
            "off": None if math.isnan(layer.off) else layer.off,
        }
        for layer in found
    ]
    code = OK if above is None else NO
    document = {"above": options.above, "first": above and above.node, "layers": rows}
    if put_json(options, document):
        return code
    if above is None:
        print(f"no node of {len(found)} is off by more than {options.above:.1%}")
    else:
        print(f"first node off by more than {options.above:.1%}: {above}")
    worst = sorted(found, key=lambda layer: -math.inf if math.isnan(layer.off) else -layer.off)
    print("every node:" if options.all else "the worst:")
    for layer in found if options.all else worst[:_SHOWN]:
        print(f"  {layer}")
    return code

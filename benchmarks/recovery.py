"""What INT8 loses with every layer in it, and what each way to win accuracy back gives.

    python -m benchmarks.recovery [--json-file FILE] NET=CALIBRATION,EVALUATE ...

Every layer that can be INT8 is, but for the first and the last (of a generator: all). Each net is
quantised without recovery, with each way by itself, and with all; what is scored is the graph with
its rest in FP32, by ONNX Runtime on a CPU, against the FP32 graph. `gan-digits` takes no folders:
`gan-digits=`. The seconds are the processor time of calibration, all included.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import load_file

from benchmarks.script import arguments, record
from edgevision.bundle.flavours import ORT
from edgevision.bundle.manifest import Stage
from edgevision.bundle.parity import Tolerance
from edgevision.export.adapters.adapter import Feeds, ModelAdapter
from edgevision.export.adapters.tensors import graph_inputs, graph_outputs
from edgevision.export.figures import untimed
from edgevision.export.graph.capture import serialized
from edgevision.export.graph.observe import typed
from edgevision.export.precision.quantizer import RECOVERY, Quantizer, prepare
from edgevision.export.samples import calibration_samples
from edgevision.export.source import resolve
from edgevision.export.zoo import zoo_entry
from edgevision.metrics.images import psnr
from edgevision.metrics.metric import predictor, score_task
from edgevision.models.digit_classifier import DigitClassifier
from edgevision.progress import silent
from edgevision.runtime.session import Session
from edgevision.tasks.decoders import decoder_from
from edgevision.tasks.task import Decoder, get_task

WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "percentile, none": ("percentile", ()),
    "none": ("auto", ()),
    **{name: ("auto", (name,)) for name in RECOVERY},
    "equalise, correct": ("auto", RECOVERY[:2]),
    "all": ("auto", RECOVERY),
}
_PICTURES, _BATCH = 5000, 16
Run = Callable[[Mapping[str, Any]], dict[str, Any]]


def inner(quantizer: Quantizer, *, is_generator: bool) -> list[str]:
    """Return the layers that are INT8: all, but for the first and the last of the main graph."""
    order = [n.name for n in quantizer.source.graph.node if n.name in quantizer.layers]
    ends = set() if is_generator else {order[0], order[-1]}
    return [name for name in quantizer.layers if name not in ends]


def quantized(
    adapter: ModelAdapter, model: onnx.ModelProto, feeds: list[Feeds]
) -> tuple[dict[str, onnx.ModelProto], dict[str, dict[str, Any]]]:
    """Return a graph for each way, and what is known of it."""
    graphs, facts = {}, {}
    for way, (method, recover) in WAYS.items():
        start = process_time()
        quantizer = prepare(
            typed(model), feeds, method=method, profiles=dict(adapter.profiles),
            keep_float=adapter.kept_fp32(model), recover=recover,
        )  # fmt: skip
        assert quantizer is not None
        names = inner(quantizer, is_generator=adapter.task == "generated")
        graphs[way] = quantizer.graph(names)
        facts[way] = {
            "int8": len(names),
            "layers": len(quantizer.layers),
            "seconds": process_time() - start,
            "worst_db": min(quantizer.layers[name].snr_db for name in names),
            "recovery": list(quantizer.calibration.recovery),
        }
    return graphs, facts


def opened(adapter: ModelAdapter, graphs: Mapping[str, onnx.ModelProto]) -> dict[str, Run]:
    """Return what runs each graph."""
    return {
        way: Session.open(serialized(graph), flavour=ORT, profiles=dict(adapter.profiles)).run
        for way, graph in graphs.items()
    }


def decoder(adapter: ModelAdapter, model: onnx.ModelProto) -> Decoder[Any]:
    """Return the decoder that the run side would have."""
    outputs = graph_outputs(model)
    bars = {spec.name: Tolerance() for spec in outputs}
    stage = Stage("main", "model.onnx", graph_inputs(model), outputs, bars, adapter.profiles)
    read = adapter.files().__getitem__
    return decoder_from(get_task(adapter.task), adapter.settings(), (stage,), read)


def pictures(runs: Mapping[str, Run], made: Any) -> dict[str, dict[str, float]]:
    """Return how a generator's pictures compare with FP32's, and what a classifier says of them."""
    classifier = DigitClassifier().eval()
    weights = zoo_entry("gan-digits").folder.parent / "digit-classifier/model.safetensors"
    classifier.load_state_dict(load_file(weights))
    found, labels = {}, {}
    for way, run in runs.items():
        parts = [next(iter(run(feeds).values())) for feeds in made.batches(range(_PICTURES), {})]
        found[way] = np.concatenate(parts)
        tensor = torch.from_numpy(found[way]).float().permute(0, 3, 1, 2) / 127.5 - 1
        with torch.inference_mode():
            labels[way] = classifier(tensor).argmax(1).numpy()
    first = next(iter(runs))
    return {
        way: {
            "label agreement": float((labels[way] == labels[first]).mean()),
            "median PSNR, dB": float(np.median(psnr(found[first], found[way]))),
        }
        for way in runs
        if way != first
    }


def row(net: str, calibration: Path | None, evaluate: Path | None) -> dict[str, Any]:
    """Quantise a net in each way, and score what comes out."""
    adapter = resolve(
        net, task=None, weights=None, size=None, classes=None, front={}, shapes=None
    ).adapter
    model = adapter.to_onnx()
    graphs, facts = quantized(adapter, model, list(calibration_samples(adapter, calibration)))
    runs, made = opened(adapter, {"fp32": model, **graphs}), decoder(adapter, model)
    figures: dict[str, dict[str, Any]]
    if evaluate is None:
        figures = pictures(runs, made)
    else:
        forms = {way: predictor(made, untimed(run)) for way, run in runs.items()}
        task = get_task(adapter.task)
        scores = score_task(task, made, forms, evaluate, silent)
        figures = {score.form: score.figures() for score in scores}
    return {"net": net, "figures": figures, "facts": facts}


def parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__)
    parser.add_argument("nets", nargs="+", help="NET=CALIBRATION,EVALUATE; gan-digits=")
    return parser


def main() -> int:
    options = parser().parse_args()
    torch.set_num_threads(1)
    rows = []
    for given in options.nets:
        net, _, folders = given.partition("=")
        first, _, second = folders.partition(",")
        rows.append(row(net, Path(first) if first else None, Path(second) if second else None))
        print(rows[-1], flush=True)
        if options.json_file:
            record(options.json_file, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

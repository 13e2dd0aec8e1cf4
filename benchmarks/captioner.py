"""Captions a second: one call against the host loops that people write.

    python -m benchmarks.captioner [--json-file FILE] [--rounds 30] [--captions 500] \
        [--nets NET ...]

One run, one machine, ONNX Runtime on the CPU, the same frames, each way in a process of its own, in
turns. "naive" is the
loop of most examples: two sessions with as many threads as there are cores, which spin, numpy in
and out, all logits on the host; "plain" is the same with ONNX Runtime's own number of threads.
"tuned" has the search in the step and no spinning. "step" is `edgevision.load_streaming`: the state
stays where it is. "unrolled", "loop" and "beam" are one call for each caption.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import edgevision
from benchmarks.rows import Row, keep, row
from benchmarks.script import arguments
from edgevision.bench.pairs import Call, measure
from edgevision.bundle.flavours import ORT
from edgevision.bundle.tensors import NEXT
from edgevision.export import Captioner
from edgevision.export.checkpoint import load_weights
from edgevision.export.graph.capture import capture, serialized
from edgevision.export.zoo import card_size, zoo_entry
from edgevision.models import captioner as models
from edgevision.models.mobilenet_v2 import MobileNetV2
from edgevision.runtime.session import Session
from edgevision.tasks.frames import list_images, read_image

Frame = np.ndarray[Any, Any]
Way = Callable[[Frame], list[int]]
Net = tuple[nn.Module, list[str], tuple[int, int], int, list[Frame]]
NAIVE, LOOPS, ONE_CALL = "naive", ("plain", "tuned", "step"), ("unrolled", "loop")
LEAST_FOR_P99 = 459
BEAMS = {"loop": 1, "beam": 3}
HOST_LOOPS: dict[str, dict[str, Any]] = {
    "naive": {"threads": os.cpu_count() or 1},
    "plain": {},
    "tuned": {"tuned": True},
}
WAYS = (*HOST_LOOPS, "step", "unrolled", *BEAMS)


class AllLogits(nn.Module):
    """A step as most people export it: logits out, the search on the host."""

    def __init__(self, module: Any, states: int) -> None:
        super().__init__()
        self.module, self.states = module, states

    def forward(self, token: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Return logits and state."""
        state, features = others[: self.states], others[self.states :]
        logits, made, _ = self.module.step(token, state, features)
        return (logits, *made)


def host_loop(
    net: nn.Module,
    adapter: Captioner,
    *,
    end: int,
    steps: int,
    threads: int = 0,
    tuned: bool = False,
) -> Any:
    """Return a loop over an encoder and a step, numpy in and out."""
    encode, step = (adapter.stages[name] for name in ("encode", "step"))
    carried = [spec.name for spec in step.inputs if spec.name.startswith(("token", "state"))]
    if tuned:
        graph, outputs = step.to_onnx(), [f"{name}{NEXT}" for name in carried]
    else:
        outputs = ["logits", *(f"{name}{NEXT}" for name in carried[1:])]
        graph = capture(AllLogits(net, len(carried) - 1), step.inputs, outputs, {})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if tuned:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    first, second = (
        onnxruntime.InferenceSession(serialized(m), options, providers=["CPUExecutionProvider"])
        for m in (encode.to_onnx(), graph)
    )
    names = [spec.name for spec in step.inputs]

    def caption(frame: Frame) -> list[int]:
        feeds = dict(zip(names, first.run(names, {"frame": frame[None]}), strict=True))
        words: list[int] = []
        for _ in range(steps):
            word, *state = second.run(outputs, feeds)
            token = word if tuned else word.argmax(-1)
            if token[0] == end:
                break
            words.append(int(token[0]))
            feeds |= dict(zip(carried, (token, *state), strict=True))
        return words

    return caption


def way_of(name: str, net: nn.Module, words: list[str], size: tuple[int, int], steps: int) -> Way:
    """Return what captions a frame in the way called `name`; it lives as long as the process."""

    def adapter(form: str, beams: int = 1) -> Captioner:
        return Captioner(net, words, size=size, max_length=steps, form=form, beams=beams)

    if name in HOST_LOOPS:
        end = words.index("<end>")
        return host_loop(net, adapter("step"), end=end, steps=steps, **HOST_LOOPS[name])
    if name == "step":
        folder = Path(tempfile.mkdtemp()) / "step.ev"
        edgevision.build(adapter("step"), folder)
        model = edgevision.load_streaming(folder)
        shutil.rmtree(folder.parent)
        return lambda frame: [word.token for word in model.words(frame)]
    graph = adapter("unrolled") if name == "unrolled" else adapter("loop", BEAMS[name])
    session = Session.open(serialized(graph.to_onnx()), flavour=ORT)

    def whole(frame: Frame) -> list[int]:
        outputs = session.run({"frame": frame[None]})
        tokens: list[int] = outputs["tokens"][0, 0, : int(outputs["lengths"][0, 0])].tolist()
        return tokens

    return whole


def serve(pipe: Connection, title: str, name: str) -> None:
    """Caption the frame of each number that comes: the work of one process."""
    net, words, size, steps, frames = NETS[title]()
    caption = way_of(name, net, words, size, steps)
    pipe.send(len(frames))
    while (index := pipe.recv()) is not None:
        pipe.send(caption(frames[index % len(frames)]))


@contextmanager
def processes(title: str) -> Iterator[tuple[dict[str, Callable[[int], list[int]]], int]]:
    """Give each way in a process of its own, as users run it, and the number of frames."""
    context = multiprocessing.get_context("spawn")
    running, found, count = [], {}, 0
    try:
        for name in WAYS:
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, title, name), daemon=True)
            process.start()
            running.append((process, ours))
            count = ours.recv()

            def call(index: int, pipe: Connection = ours) -> list[int]:
                pipe.send(index)
                words: list[int] = pipe.recv()
                return words

            found[name] = call
        yield found, count
    finally:
        for process, pipe in running:
            pipe.send(None)
            process.join(10)


def next_of(caption: Callable[[int], list[int]]) -> Call:
    numbers = itertools.count()
    return lambda: caption(next(numbers))


def tails(found: dict[str, Callable[[int], list[int]]], count: int) -> dict[str, float | None]:
    """Return each way's 99th percentile in ms over `count` captions, in shuffled order."""
    if count < LEAST_FOR_P99:
        return dict.fromkeys(found)
    times: dict[str, list[int]] = {name: [] for name in found}
    shuffle = random.Random(0).shuffle
    for index in range(count):
        order = list(found)
        shuffle(order)
        for name in order:
            start_ns = perf_counter_ns()
            found[name](index)
            times[name].append(perf_counter_ns() - start_ns)
    return {name: float(np.percentile(ns, 99)) / 1e6 for name, ns in times.items()}


def compared(title: str, options: argparse.Namespace) -> tuple[list[Row], dict[str, float | None]]:
    """Check that all say the same, measure them, and return rows and 99th percentiles in ms."""
    with processes(title) as (found, count):
        for index in range(count):
            said = {name: caption(index) for name, caption in found.items() if name != "beam"}
            if len({tuple(words) for words in said.values()}) != 1:
                raise SystemExit(f"{title}: the ways say different things: {said}")
        calls = {name: next_of(caption) for name, caption in found.items()}
        times = measure(calls, rounds=options.rounds)
        worst = tails(found, options.captions)
    best = min(LOOPS, key=times.median_us)
    rows = []
    for name in ONE_CALL:
        bar = 1.0 if name == "loop" else None
        rows.append(row(f"{name} over {best}, {title}", times.ratio(name, over=best), bar, times))
        bar = 2.0 if name == "loop" else None
        ratio = times.ratio(NAIVE, over=name)
        rows.append(row(f"{NAIVE} over {name}, {title}", ratio, bar, times, at_least=True))
    rows.append(row(f"beam over loop, {title}", times.ratio("beam", over="loop"), None, times))
    rate = {name: f"{1e6 / times.median_us(name):.1f}/s" for name in calls}
    print(title, rate)
    print(title, "p99 in ms", worst)
    return rows, worst


def shipped() -> Net:
    """Return captioner-digits and its own scenes."""
    entry = zoo_entry("captioner-digits")
    card = entry.card
    net = models.captioner_mobilenet_v2(**entry.arguments)
    net.load_state_dict(load_weights(entry.weights))
    assert entry.samples is not None
    frames = [read_image(path) for path in list_images(entry.samples / "images")]
    return net.eval(), list(card["vocabulary"]), card_size(card), card["max_length"], frames


def typical() -> Net:
    """Return a net of the size that papers have: 7x7 places of 512, an LSTM of 512, 8,000 words."""
    torch.manual_seed(0)
    backbone = MobileNetV2(output_stride=32)
    encoder = models.FeatureMap(backbone, backbone.channels[-1], 512)
    net = models.Captioner(encoder, models.RecurrentDecoder(8000, 512, embedding=256, hidden=512))
    with torch.no_grad():
        net.decoder.head.bias[1] -= 100  # no caption ends early
    words = ["<start>", "<end>", *(f"w{i}" for i in range(7998))]
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (224, 224, 3), np.uint8) for _ in range(8)]
    return net.eval(), words, (224, 224), 20, frames


NETS: dict[str, Callable[[], Net]] = {"captioner-digits": shipped, "8,000 words": typical}


def parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, rounds=30)
    parser.add_argument("--captions", type=int, default=500, help="captions that a p99 is of")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), metavar="NET")
    return parser


def main() -> int:
    options = parser().parse_args()
    rows: list[Row] = []
    p99_ms = {}
    for title in options.nets:
        more, p99_ms[title] = compared(title, options)
        rows += more
    print(*rows, sep="\n")
    if options.json_file:
        keep(options.json_file, rows, rounds=options.rounds, p99_ms=p99_ms)
    return 0 if all(found.passed for found in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

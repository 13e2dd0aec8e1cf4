"""The shipped nets on a GPU: torch in its usual ways, and our bundles where an engine runs.

A row has a median time, or says why there is none. Same weights, same frames in, same answers out.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

import edgevision
from edgevision.bench.measure import golden_frames
from edgevision.bundle.directory import Bundle
from edgevision.errors import EdgeVisionError

SECONDS = 2.0
LEAST_CALLS = 20
NETS = ("unet-camvid", "deeplabv3-camvid", "fcn-camvid", "captioner-digits", "gan-digits")
# Engines of our own, in the order in which a user would want them.
TARGETS = ("local", "rtx", "host-cpu")


def run() -> list[dict[str, Any]]:
    """Measure every net in every way that works here."""
    return [row for name in NETS for row in (*torch_rows(name), *our_rows(name))]


def timed(name: str, call: Callable[[], object], note: str = "") -> dict[str, Any]:
    """Return the median and the slowest of the calls of two seconds."""
    for _ in range(5):
        call()
    times_ms: list[float] = []
    end_ns = perf_counter_ns() + int(SECONDS * 1e9)
    while len(times_ms) < LEAST_CALLS or perf_counter_ns() < end_ns:
        start_ns = perf_counter_ns()
        call()
        times_ms.append((perf_counter_ns() - start_ns) / 1e6)
    return {"name": name, "median_ms": float(np.median(times_ms)), "max_ms": max(times_ms),
            "calls": len(times_ms), "note": note}  # fmt: skip


def torch_rows(net: str) -> Iterator[dict[str, Any]]:
    """Eager FP16, the same channels last, and compiled: frames in host memory, answers back."""
    try:
        import torch

        from edgevision.export.adapters.semantic import SemanticSegmentation
        from edgevision.export.source import resolve
    except ImportError as error:
        yield {"name": f"{net}, torch", "note": f"not measured: {error}"}
        return
    if not torch.cuda.is_available():
        yield {"name": f"{net}, torch", "note": "not measured: this torch finds no GPU"}
        return
    adapter = resolve(net).adapter
    if not isinstance(adapter, SemanticSegmentation):
        return
    frame = torch.zeros(adapter.inputs[0].shape, dtype=torch.uint8).pin_memory()
    module = adapter.fused.cuda().eval()
    ways: dict[str, Any] = {"eager FP16": module, "channels last": module}
    if shutil.which("gcc"):
        ways["compiled"] = torch.compile(module, mode="max-autotune-no-cudagraphs")
    for way, run_net in ways.items():
        if way == "channels last":
            module.to(memory_format=torch.channels_last)

        def call(run_net: Any = run_net) -> object:
            with torch.inference_mode(), torch.autocast("cuda", torch.float16):
                return run_net(frame.cuda(non_blocking=True)).cpu()

        try:
            yield timed(f"{net}, torch {way}", call)
        except RuntimeError as error:
            yield {"name": f"{net}, torch {way}", "note": f"not measured: {str(error)[:200]}"}


def our_rows(net: str) -> Iterator[dict[str, Any]]:
    """Return our bundle's time on the first engine that runs here, FP16."""
    reasons = []
    with tempfile.TemporaryDirectory() as folder:
        for target in TARGETS:
            path = Path(folder) / f"{target}.ev"
            try:
                edgevision.build(net, path, precision="fp16", targets=[target])
                with edgevision.load(path, device="cuda") as model:
                    frame = golden_frames(Bundle.open(path))[0]
                    yield timed(f"{net}, ours", lambda m=model, f=frame: m(f), model.explain())
                    return
            except (EdgeVisionError, ImportError) as error:
                reasons.append(f"{target}: {str(error).splitlines()[0][:200]}")
    yield {"name": f"{net}, ours", "note": f"not measured: {'; '.join(reasons)}"}

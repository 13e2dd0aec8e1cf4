"""A stranger's bundle verified in a process with limits: nobody signed for what its graphs do.

A graph is a program: a loop in it may never end, and a node of three numbers may ask for all the
memory that there is. The limits are of memory and time; this is not a sandbox of what it may read.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from edgevision import errors
from edgevision.bundle.directory import Bundle
from edgevision.bundle.parity import ParityReport, Tolerance
from edgevision.engines.child import serve
from edgevision.engines.process import run_child
from edgevision.errors import BuildError, BundleIntegrityError, EdgeVisionError, RunError
from edgevision.machine.gpu import compute_capability
from edgevision.progress import Progress, silent
from edgevision.runtime.verify import verify

_MEMORY_BYTES = 4 << 30
_TIMEOUT_S = 600.0


def verify_stranger(
    bundle: Bundle,
    *,
    device: str,
    engines: Path | None,
    memory_bytes: int = _MEMORY_BYTES,
    timeout_s: float = _TIMEOUT_S,
) -> list[ParityReport]:
    """Do what `verify` does in a process that ends when it takes too much memory or time.

    With a GPU only time is limited: its driver reserves more addresses than there is memory.

    Raises:
        EdgeVisionError: what `verify` raises; RunError if a limit was reached, or it crashed.
    """
    is_limited = device == "cpu" or compute_capability() is None
    request = {
        "root": str(bundle.root),
        "manifest_sha256": bundle.manifest_sha256,
        "device": device,
        "engines": None if engines is None else os.path.abspath(engines),
        "memory_bytes": memory_bytes if is_limited else None,
    }
    try:
        answer, _ = run_child(__name__, json.dumps(request), silent, timeout_s=timeout_s)
    except BuildError as error:
        raise RunError(
            f"'{bundle.root}' is not verified: nobody vouches for it, so it ran in a process of "
            f"its own with {memory_bytes >> 20} MB and {timeout_s:g} s at most, and {error}. What "
            "you know who signed, verify with --key NAME.pub: then there are no limits"
        ) from error
    if "refused" in answer:
        kind, message = answer["refused"]
        raise getattr(errors, kind)(message)
    return [
        ParityReport(**{**r, "tolerance": Tolerance(**r["tolerance"])}) for r in answer["reports"]
    ]


def _answer(text: str, _: Progress) -> Mapping[str, object]:
    asked = json.loads(text)
    if asked["memory_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (asked["memory_bytes"],) * 2)
    try:
        bundle = Bundle.open(asked["root"], check_hashes=False)
        if bundle.manifest_sha256 != asked["manifest_sha256"]:
            raise BundleIntegrityError(f"'{bundle.root}' was replaced while it was verified")
        reports = verify(bundle, device=asked["device"], engines=asked["engines"])
    except MemoryError:
        return {"refused": ["RunError", "its graphs ask for more memory than a stranger's get"]}
    except EdgeVisionError as error:
        return {"refused": [type(error).__name__, str(error)]}
    return {"reports": [asdict(report) for report in reports]}


if __name__ == "__main__":
    sys.exit(serve(_answer))

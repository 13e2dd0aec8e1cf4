"""Where an engine shall run: the table of known targets and what each can do.

Sources, all read in November 2026: NVIDIA's TensorRT support matrix and release notes (10.3 to
11.4.1), the TensorRT-RTX support matrix (1.0 to 1.5), JetPack release pages.
"""

from __future__ import annotations

import difflib
import enum
from dataclasses import dataclass


class Flavour(enum.Enum):
    """The runtime that executes an artifact."""

    ORT = "ort"
    TRT = "trt"
    TRT_RTX = "trt_rtx"


@dataclass(frozen=True, slots=True)
class TargetProfile:
    """A kind of machine that engines are built for.

    Attributes:
        name: what `--target` takes.
        title: the same for people.
        flavour: the runtime that executes the artifact there.
        versions: first and last supported version of that runtime, inclusive by prefix.
        sm: CUDA compute capabilities, e.g. "8.7"; empty where any (or none) will do.
        cuda: the CUDA version it ships with.
        python: the Python it ships with.
        built_here: whether a machine without that GPU can build its artifact.
        notes: what a user should know.
    """

    name: str
    title: str
    flavour: Flavour
    versions: tuple[str, str] | None = None
    sm: tuple[str, ...] = ()
    cuda: str = ""
    python: str = ""
    built_here: bool = False
    notes: str = ""


_TARGETS = (
    TargetProfile(
        "host-cpu",
        "this machine's CPU, by ONNX Runtime",
        Flavour.ORT,
        built_here=True,
        notes="Runs anywhere; the proof of accuracy is measured here.",
    ),
    TargetProfile(
        "rtx",
        "desktop RTX GPUs, by TensorRT for RTX",
        Flavour.TRT_RTX,
        versions=("1.5", "1.7"),
        sm=("8.0", "8.6", "8.9", "12.0", "12.1"),
        cuda="13",
        built_here=True,
        notes="One engine for Ampere, Ada and Blackwell, built without any GPU. Turing (7.5) is "
        "left out: with it the engine of a small U-Net grew from 37 to 137 MB.",
    ),
    TargetProfile(
        "jetson-orin-jp6",
        "Jetson Orin Nano, NX, AGX on JetPack 6.1 and 6.2",
        Flavour.TRT,
        versions=("10.3", "10.7"),
        sm=("8.7",),
        cuda="12.6",
        python="3.10",
        notes="A plan is bound to TensorRT's version and the GPU: finished on the device.",
    ),
    TargetProfile(
        "jetson-orin-jp7",
        "Jetson Orin on JetPack 7.2",
        Flavour.TRT,
        versions=("10.16", "11.4"),
        sm=("8.7",),
        cuda="13.2",
        python="3.12",
        notes="10.16 as shipped; 11.4.1 may be installed from 7.2.2 on.",
    ),
    TargetProfile(
        "jetson-thor",
        "Jetson Thor on JetPack 7.0 to 7.2",
        Flavour.TRT,
        versions=("10.13", "11.4"),
        sm=("11.0",),
        cuda="13.0",
        python="3.12",
        notes="10.13 on JetPack 7.0 and 7.1, 10.16 on 7.2.",
    ),
    TargetProfile(
        "local",
        "this machine's NVIDIA GPU, by the TensorRT installed here",
        Flavour.TRT,
        versions=("10.3", "11.4"),
        notes="Needs a GPU and TensorRT here; else the artifact is recorded as pending.",
    ),
)


def known_targets() -> tuple[TargetProfile, ...]:
    """Return every known target."""
    return _TARGETS


def get_target(name: str) -> TargetProfile:
    """Return the target called `name`.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    for target in _TARGETS:
        if target.name == name:
            return target
    names = [target.name for target in _TARGETS]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"unknown target '{name}'.{hint} Known: {', '.join(names)}")

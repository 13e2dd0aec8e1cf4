"""Where an engine shall run: the table of known targets, and a user's own from a TOML file.

Sources, all read in November 2026: NVIDIA's TensorRT support matrix and release notes (10.3 to
11.4.1), the TensorRT-RTX support matrix (1.0 to 1.5), JetPack and DriveOS release pages, the Jetson
module data sheets. What a TensorRT on a GPU can is in `capabilities`.
"""

from __future__ import annotations

import difflib
import re
import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgevision.bundle.capabilities import dla_reason
from edgevision.bundle.flavours import OPENVINO, ORT, TRT, TRT_RTX, Flavour, flavour
from edgevision.bundle.printable import UNPRINTABLE
from edgevision.bundle.toml_file import read_toml
from edgevision.errors import FileReadError

_GIB = 1 << 30
_READ = "2026-11"
_MOST = 1 << 53
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"\d{1,3}(\.\d{1,4}){0,3}")
_SM = re.compile(r"\d{1,2}\.\d")


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
        portable: whether a machine without that GPU can build its artifact. What is not is bound
            to the machine that builds it: it is finished on the device, in its state directory.
        memory_bytes: what GPU and programs have there, 0 if not known.
        opset: the newest ONNX opset that its oldest parser reads, 0 if not known.
        dla_cores: of the module; whether its TensorRT can use them is another question.
        notes: what a user should know.
        source: where this was read, and when.
    """

    name: str
    title: str
    flavour: Flavour
    versions: tuple[str, str] | None = None
    sm: tuple[str, ...] = ()
    cuda: str = ""
    python: str = ""
    portable: bool = False
    memory_bytes: int = 0
    opset: int = 0
    dla_cores: int = 0
    notes: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name: got {self.name!r:.80}, expected small letters, digits, - . _")
        if self.versions and not all(map(_VERSION.fullmatch, self.versions)):
            raise ValueError(f"versions: got {self.versions}, expected two such as '10.3'")
        if bad := [sm for sm in self.sm if not _SM.fullmatch(sm)]:
            raise ValueError(f"sm: got {bad}, expected compute capabilities such as '8.7'")
        for field in ("title", "cuda", "python", "notes", "source"):
            if UNPRINTABLE.search(text := getattr(self, field)):
                raise ValueError(f"{field}: unprintable characters in {text!r:.80}")
        for field in ("memory_bytes", "opset", "dla_cores"):
            if not 0 <= getattr(self, field) <= _MOST:
                raise ValueError(
                    f"{field}: got {getattr(self, field)!r:.40}, expected 0 to {_MOST}"
                )

    @property
    def no_dla(self) -> str:
        """Why no layer can run on a DLA there; empty if some can."""
        if not self.dla_cores or not self.flavour.has_rules:
            return "the module has no DLA"
        reasons = [dla_reason(sm, v) for sm in self.sm for v in self.versions or ()]
        return "" if "" in reasons or not reasons else reasons[-1]


_BOUND = "A plan is bound to TensorRT's version and the GPU: finished on the device."
_ONE = "Only for these GPUs; 'rtx' runs on more."

_ORIN_JP6 = TargetProfile(
    "jetson-orin-jp6",
    "any Jetson Orin on JetPack 6.1 and 6.2",
    TRT,
    versions=("10.3", "10.7"),
    sm=("8.7",),
    cuda="12.6",
    python="3.10",
    memory_bytes=4 * _GIB,
    opset=20,
    notes=f"{_BOUND} Memory is the smallest module's: name the module for its own.",
    source=f"TensorRT support matrix, JetPack 6.1 and 6.2 release pages, {_READ}",
)
_ORIN_JP7 = TargetProfile(
    "jetson-orin-jp7",
    "any Jetson Orin on JetPack 7.2",
    TRT,
    versions=("10.16", "11.4"),
    sm=("8.7",),
    cuda="13.2",
    python="3.12",
    memory_bytes=4 * _GIB,
    notes="10.16 as shipped; 11.4.1 may be installed from 7.2.2 on. Memory is the smallest "
    "module's.",
    source=f"TensorRT 11.4.1 release notes, meta-tegra issue 2224, {_READ}",
)
_RTX = TargetProfile(
    "rtx",
    "desktop RTX GPUs, by TensorRT for RTX",
    TRT_RTX,
    versions=("1.5", "1.7"),
    sm=("8.0", "8.6", "8.9", "12.0", "12.1"),
    cuda="13",
    portable=True,
    notes="One engine for Ampere, Ada and Blackwell, built without any GPU. Turing (7.5) is left "
    "out: with it the engine of a small U-Net grew from 37 to 137 MB.",
    source=f"TensorRT-RTX support matrix; builds with 1.7, {_READ}",
)
_LOCAL = TargetProfile(
    "local",
    "this machine's NVIDIA GPU, by the TensorRT installed here",
    TRT,
    versions=("10.3", "11.4"),
    notes="Needs a GPU and TensorRT here; else the artifact is recorded as pending.",
    source=f"TensorRT support matrix, {_READ}",
)

_TARGETS = (
    TargetProfile(
        "host-cpu",
        "any machine's CPU, by ONNX Runtime",
        ORT,
        portable=True,
        notes="Runs anywhere; the proof of accuracy is measured here.",
        source="measured by this project",
    ),
    TargetProfile(
        "local-cpu",
        "this machine's CPU, by ONNX Runtime's optimised model",
        ORT,
        notes="Bound to ONNX Runtime's version and this CPU: finished on the device, as a plan is.",
        source="ONNX Runtime, graph optimizations, offline mode",
    ),
    TargetProfile(
        "openvino-cpu",
        "any x86 or Arm CPU, by OpenVINO",
        OPENVINO,
        portable=True,
        notes="Runs on any such CPU; load(target='openvino-cpu') where host-cpu is there as well.",
        source="measured by this project with OpenVINO 2026.4",
    ),
    _RTX,
    replace(_RTX, name="rtx-turing", title="RTX 20, by TensorRT for RTX", sm=("7.5",), notes=_ONE),
    replace(_RTX, name="rtx-ampere", title="RTX 30, by TensorRT for RTX", sm=("8.6",), notes=_ONE),
    replace(_RTX, name="rtx-ada", title="RTX 40, by TensorRT for RTX", sm=("8.9",), notes=_ONE),
    replace(
        _RTX, name="rtx-blackwell", title="RTX 50, by TensorRT for RTX", sm=("12.0",), notes=_ONE
    ),
    _ORIN_JP6,
    replace(
        _ORIN_JP6,
        name="jetson-orin-nano-jp6",
        title="Jetson Orin Nano 8 GB on JetPack 6.1 and 6.2",
        memory_bytes=8 * _GIB,
        notes=_BOUND,
    ),
    replace(
        _ORIN_JP6,
        name="jetson-orin-nx-jp6",
        title="Jetson Orin NX 16 GB on JetPack 6.1 and 6.2",
        memory_bytes=16 * _GIB,
        dla_cores=2,
        notes=_BOUND,
    ),
    replace(
        _ORIN_JP6,
        name="jetson-agx-orin-jp6",
        title="Jetson AGX Orin 64 GB on JetPack 6.1 and 6.2",
        memory_bytes=64 * _GIB,
        dla_cores=2,
        notes=_BOUND,
    ),
    _ORIN_JP7,
    replace(
        _ORIN_JP7,
        name="jetson-orin-nano-jp7",
        title="Jetson Orin Nano 8 GB on JetPack 7.2",
        memory_bytes=8 * _GIB,
        notes=_BOUND,
    ),
    replace(
        _ORIN_JP7,
        name="jetson-orin-nx-jp7",
        title="Jetson Orin NX 16 GB on JetPack 7.2",
        memory_bytes=16 * _GIB,
        notes="Its DLA cores are out of TensorRT's reach: 10.16 has none, 11.4.1 only AGX Orin's.",
    ),
    replace(
        _ORIN_JP7,
        name="jetson-agx-orin-jp7",
        title="Jetson AGX Orin 64 GB on JetPack 7.2",
        memory_bytes=64 * _GIB,
        dla_cores=2,
        notes="The DLA needs TensorRT 11.4.1, from JetPack 7.2.2 on; the stock 10.16 has none.",
    ),
    TargetProfile(
        "jetson-thor",
        "Jetson Thor on JetPack 7.0 to 7.2",
        TRT,
        versions=("10.13", "11.4"),
        sm=("11.0",),
        cuda="13.0",
        python="3.12",
        memory_bytes=64 * _GIB,
        notes="10.13 on JetPack 7.0 and 7.1, 10.16 on 7.2. Memory is the T4000's; the T5000 has "
        "twice that.",
        source=f"JetPack 7.0 to 7.2 release pages, TensorRT 11.4.1 release notes, {_READ}",
    ),
    TargetProfile(
        "drive-thor",
        "DRIVE AGX Thor on DriveOS 7.0.3",
        TRT,
        versions=("10.10", "10.10"),
        sm=("10.1",),
        cuda="12.8",
        python="3.12",
        notes=f"{_BOUND} DriveOS 6 has TensorRT 8, which takes no strongly typed network.",
        source=f"DriveOS 7.0.3 release notes, {_READ}",
    ),
    replace(
        _LOCAL,
        name="a100",
        title="NVIDIA A100, by TensorRT",
        sm=("8.0",),
        memory_bytes=40 * _GIB,
        notes=_BOUND,
    ),
    replace(
        _LOCAL,
        name="l4",
        title="NVIDIA L4 and L40, by TensorRT",
        sm=("8.9",),
        memory_bytes=24 * _GIB,
        notes=_BOUND,
    ),
    replace(
        _LOCAL,
        name="h100",
        title="NVIDIA H100 and H200, by TensorRT",
        sm=("9.0",),
        memory_bytes=80 * _GIB,
        notes=_BOUND,
    ),
    _LOCAL,
)


def typed_name(target: str) -> str:
    """Return what a person types for a target that a file names: a stranger may have written it.

    A target of one's own is typed as its file; what cannot be any target's name is left open.
    """
    if target.endswith(".toml") or target in {profile.name for profile in _TARGETS}:
        return target
    return f"{target}.toml" if _NAME.fullmatch(target) else "TARGET"


def known_targets() -> tuple[TargetProfile, ...]:
    """Return every known target."""
    return _TARGETS


def get_target(name: str) -> TargetProfile:
    """Return the target called `name`, or the one that a file ending in .toml describes.

    Raises:
        ValueError: there is none; the message lists the names.
        FileReadError: the file cannot be read, or describes no target; names the field.
    """
    if name.endswith(".toml"):
        return target_from_file(Path(name))
    for target in _TARGETS:
        if target.name == name:
            return target
    names = [target.name for target in _TARGETS]
    raise ValueError(
        f"unknown target '{name}'.{_nearest(name, names)} Known: {', '.join(names)}; or give a "
        ".toml file of your own"
    )


def target_from_file(path: Path) -> TargetProfile:
    """Return the target that a TOML file describes: the fields of `TargetProfile`, by name.

    Raises:
        FileReadError: it cannot be read, or describes no target; names the field.

    Example:
        >>> # name = "our-board"
        >>> # title = "our carrier board"
        >>> # flavour = "trt"
        >>> # versions = ["10.3", "10.7"]
        >>> # sm = ["8.7"]
        >>> target_from_file(Path("board.toml"))  # doctest: +SKIP
    """
    payload = read_toml(path, "a target file")
    try:
        return _from_fields(payload)
    except (TypeError, ValueError) as error:
        raise FileReadError(f"'{path}' describes no target: {error}") from error


def _from_fields(payload: dict[str, Any]) -> TargetProfile:
    if "built_here" in payload:
        warnings.warn(
            "a target's 'built_here' is now 'portable', and goes in 0.3",
            DeprecationWarning,
            stacklevel=2,
        )
        payload = {**payload, "portable": payload["built_here"]}
        del payload["built_here"]
    known = {field.name: field for field in fields(TargetProfile)}
    for key in payload:
        if key not in known:
            raise ValueError(f"unknown field {key!r:.80}.{_nearest(key, list(known))}")
    for key in ("name", "title", "flavour"):
        if key not in payload:
            raise ValueError(f"'{key}' is missing")
    kinds = {"memory_bytes": int, "opset": int, "dla_cores": int, "portable": bool}
    made: dict[str, Any] = {}
    for key, value in payload.items():
        if key in ("versions", "sm"):
            if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                raise ValueError(f"{key}: got {value!r}, expected a list of strings")
            if key == "versions" and len(value) != 2:
                raise ValueError(f"versions: got {value!r}, expected the first and the last")
            made[key] = tuple(value)
        elif type(value) is not kinds.get(key, str):
            wanted = kinds.get(key, str).__name__
            raise ValueError(f"{key}: got {value!r}, expected {wanted}")
        else:
            made[key] = value
    made["flavour"] = flavour(made["flavour"])
    if made["name"] in {target.name for target in _TARGETS}:
        raise ValueError(f"name: '{made['name']}' is a known target's; choose another")
    return TargetProfile(**made)


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""

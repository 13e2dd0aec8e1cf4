"""What a Jetson says of itself in files: release, module, power, clocks, memory, TensorRT.

Reads only, asks no tool and needs no root. `root` stands for `/`, so that a recorded tree can be
read on any machine. What the files look like was read in November 2026 from terminal output that
owners of boards published:

- `/etc/nv_tegra_release`: "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, ..." on
  an Orin Nano, "# R38 (release), REVISION: 2.0" on a Thor, "# R39 (release), REVISION: 2.1" with
  JetPack 7.2.1. Which JetPack that is: NVIDIA's JetPack archive, and rbonghi/jetson_stats#792.
- `/proc/device-tree/model` ends in a NUL.
- `/var/lib/nvpmodel/status`: "pmode:0002 fmode:quiet"; its names are lines such as
  "< POWER_MODEL ID=2 NAME=MAXN_SUPER >" in `/etc/nvpmodel.conf`.
- the GPU's clock: `/sys/class/devfreq/17000000.gpu` (Orin), `17000000.ga10b` (its older kernels),
  `gpu-gpc-0` (Thor). `jetson_clocks` raises min_freq to max_freq.
- dpkg: "Package: nvidia-jetpack", "Version: 6.2.1+b38".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgevision.errors import FileReadError

# A board's whole package list is about 3 MB.
_MAX_BYTES = 64 * 2**20
_GPU_CLOCKS = ("17000000.gpu", "17000000.ga10b", "gpu-gpc-0")
_JETPACKS = {
    "36.3": "6.0", "36.4.0": "6.1", "36.4": "6.2", "36.5": "6.2",
    "38.2": "7.0", "38.4": "7.1", "39.2": "7.2",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Jetson:
    """What one board says of itself; an empty string where its files do not tell.

    Attributes:
        model: the module and carrier, as its device tree names them.
        l4t: the release of Jetson Linux, e.g. "36.4.7".
        jetpack: the installed meta package's version, or what the release belongs to.
        is_jetpack_installed: whether the meta package is installed.
        power_mode: its name and number, e.g. "MAXN_SUPER (2)".
        power_modes: every mode that this board has, in order of their numbers.
        clocks_locked: whether the GPU's clock stands still; None where it is not told.
        tensorrt: the version that apt installed.
        tensorrt_python: the version of its Python bindings that apt installed.
    """

    model: str
    l4t: str
    jetpack: str
    is_jetpack_installed: bool
    power_mode: str
    power_modes: tuple[str, ...]
    clocks_locked: bool | None
    tensorrt: str
    tensorrt_python: str


@dataclass(frozen=True, slots=True)
class Memory:
    """How much memory there is; zram is memory compressed in place, counted in swap as well."""

    total_bytes: int
    available_bytes: int
    swap_bytes: int
    zram_bytes: int


def board_model(root: Path = Path("/")) -> str:
    """Return what the device tree calls this machine, or "" where there is none."""
    return _text(root / "proc/device-tree/model")


def read_jetson(root: Path = Path("/")) -> Jetson | None:
    """Return what the Jetson under `root` says of itself, or None if it is not a Jetson."""
    release = _text(root / "etc/nv_tegra_release")
    model = board_model(root)
    if not release and "Jetson" not in model:
        return None
    l4t = _l4t(release)
    packages = _packages(root / "var/lib/dpkg/status")
    modes = _power_modes(_text(root / "etc/nvpmodel.conf"))
    return Jetson(
        model=model,
        l4t=l4t,
        jetpack=packages.get("nvidia-jetpack", "") or _jetpack(l4t),
        is_jetpack_installed="nvidia-jetpack" in packages,
        power_mode=_power_mode(_text(root / "var/lib/nvpmodel/status"), modes),
        power_modes=tuple(f"{name} ({number})" for number, name in sorted(modes.items())),
        clocks_locked=_clocks_locked(root / "sys/class/devfreq"),
        tensorrt=packages.get("libnvinfer-bin", "") or packages.get("libnvinfer10", ""),
        tensorrt_python=packages.get("python3-libnvinfer", ""),
    )


def read_memory(root: Path = Path("/")) -> Memory:
    """Return how much memory and swap there is.

    Raises:
        FileReadError: the kernel does not tell.
    """
    payload = dict(
        re.findall(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo"), re.ASCII | re.MULTILINE)
    )
    try:
        total, available = int(payload["MemTotal"]), int(payload["MemAvailable"])
    except KeyError as missing:
        raise FileReadError(f"{root / 'proc/meminfo'}: no line {missing}") from None
    zram = sum(
        int(size)
        for size in re.findall(
            r"^/dev/zram\d+\s+\w+\s+(\d+)", _text(root / "proc/swaps"), re.ASCII | re.MULTILINE
        )
    )
    return Memory(
        total_bytes=total * 1024,
        available_bytes=available * 1024,
        swap_bytes=int(payload.get("SwapTotal", "0")) * 1024,
        zram_bytes=zram * 1024,
    )


def _l4t(release: str) -> str:
    found = re.match(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", release, re.ASCII)
    return f"{found[1]}.{found[2]}" if found else ""


def _jetpack(l4t: str) -> str:
    for release, jetpack in _JETPACKS.items():
        if l4t == release or (f"{l4t}.").startswith(f"{release}."):
            return jetpack
    return ""


def _power_modes(config: str) -> dict[int, str]:
    found = re.findall(
        r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", config, re.ASCII | re.MULTILINE
    )
    return {int(number): name for number, name in found}


def _power_mode(status: str, modes: dict[int, str]) -> str:
    found = re.search(r"pmode:(\d+)", status, re.ASCII)
    if not found:
        return status
    number = int(found[1])
    return f"{modes[number]} ({number})" if number in modes else f"mode {number}"


def _clocks_locked(devfreq: Path) -> bool | None:
    for name in _GPU_CLOCKS:
        least, most = (_text(devfreq / name / f"{end}_freq") for end in ("min", "max"))
        if least and most:
            return least == most
    return None


def _packages(status: Path) -> dict[str, str]:
    """Return name and version of every package that is installed (not only known of)."""
    found = {}
    for stanza in _text(status).split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version): (.+)$", stanza, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed") and {"Package", "Version"} <= set(
            fields
        ):
            found[fields["Package"]] = fields["Version"]
    return found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode(errors="replace").strip("\0 \n")
    except OSError:
        return ""

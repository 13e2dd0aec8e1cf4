"""What is read of a Jetson, on recorded trees of its files.

The lines are those of the sources that edgevision/machine/jetson.py names.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevision.cli.doctor import Finding, examine_jetson
from edgevision.errors import FileReadError
from edgevision.machine.jetson import board_model, read_jetson, read_memory

ORIN_JP62 = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: "
    "aarch64, DATE: Thu Sep 18 22:54:44 UTC 2025\n# KERNEL_VARIANT: oot\n"
    "TARGET_USERSPACE_LIB_DIR=nvidia\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "etc/nvpmodel.conf": "# MAXN is the NONE power model\n< POWER_MODEL ID=0 NAME=15W >\n"
    "CPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
    "< PM_CONFIG DEFAULT=1 >\n",
    "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "proc/meminfo": "MemTotal:        7802664 kB\nMemFree:          524440 kB\n"
    "MemAvailable:    1464440 kB\nSwapTotal:       3901328 kB\nSwapFree:        3901328 kB\n",
    "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    + "".join(f"/dev/zram{i}                  partition\t650220\t\t0\t\t5\n" for i in range(6)),
    "var/lib/dpkg/status": "Package: libnvinfer10\nStatus: install ok installed\n"
    "Architecture: arm64\nVersion: 10.3.0.30-1+cuda12.5\n\n"
    "Package: nvidia-jetpack\nStatus: install ok installed\nSource: nvidia-jetpack (6.2.1)\n"
    "Version: 6.2.1+b38\nDescription: NVIDIA Jetpack Meta Package\n\n"
    "Package: python3-libnvinfer\nStatus: deinstall ok config-files\n"
    "Version: 10.3.0.30-1+cuda12.5\n",
}  # fmt: skip
THOR_JP70 = {
    "etc/nv_tegra_release": "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: "
    "aarch64, DATE: Fri Aug 22 00:55:42 UTC 2025\n# KERNEL_VARIANT: oot\nINSTALL_TYPE=\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=120W >\n",
    "var/lib/nvpmodel/status": "pmode:0000 fmode:quiet\n",
    "sys/class/devfreq/gpu-gpc-0/min_freq": "1575000000\n",
    "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000\n",
    "proc/meminfo": "MemTotal:       128850884 kB\nMemAvailable:   120850884 kB\nSwapTotal: 0 kB\n",
    "var/lib/dpkg/status": "Package: libnvinfer-bin\nStatus: install ok installed\n"
    "Version: 10.13.3.9-1+cuda13.0\n\nPackage: python3-libnvinfer\n"
    "Status: install ok installed\nVersion: 10.13.3.9-1+cuda13.0\n",
}  # fmt: skip
ORIN_JP72 = {
    "etc/nv_tegra_release": "# R39 (release), REVISION: 2.1, GCID: 46758480, BOARD: generic, EABI: "
    "aarch64, DATE: Fri Aug 7 05:54:22 AM UTC 2026\n# KERNEL_VARIANT: oot\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable: 60000000 kB\nSwapTotal: 0 kB\n",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def test_an_orin_with_jetpack_6_2(tmp_path: Path) -> None:
    jetson = read_jetson(tree(tmp_path, ORIN_JP62))
    assert jetson is not None
    assert jetson.model == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert (jetson.l4t, jetson.jetpack) == ("36.4.7", "6.2.1+b38")
    assert jetson.power_mode == "25W (1)"
    assert jetson.power_modes == ("15W (0)", "25W (1)", "MAXN_SUPER (2)")
    assert jetson.clocks_locked is False
    assert jetson.tensorrt == "10.3.0.30-1+cuda12.5"
    assert jetson.tensorrt_python == "", "removed packages keep a stanza"
    memory = read_memory(tmp_path)
    assert memory.total_bytes == 7802664 * 1024
    assert memory.swap_bytes == 3901328 * 1024
    assert memory.zram_bytes == 6 * 650220 * 1024


def test_what_the_orin_is_told_to_type(tmp_path: Path) -> None:
    found = by_name(examine_jetson(tree(tmp_path, ORIN_JP62), sees_tensorrt=False))
    assert found["jetpack"].remedy == ""
    assert found["power mode"].remedy.startswith("sudo nvpmodel -m 2 ")
    assert found["gpu clock"].remedy.startswith("sudo jetson_clocks ")
    assert found["memory"].found == "1.5 of 8.0 GB free"
    assert "multi-user.target" in found["memory"].remedy
    assert found["swap"].found == "0.0 GB on disk, 4.0 GB zram"
    assert "mkswap /swap" in found["swap"].remedy
    assert found["tensorrt by apt"].remedy == ""
    assert "python3-libnvinfer" in found["its python part"].remedy
    assert "python3-libnvinfer" in found["this python"].remedy


def test_a_thor_that_lacks_nothing_but_the_venv(tmp_path: Path) -> None:
    root = tree(tmp_path, THOR_JP70)
    found = by_name(examine_jetson(root, sees_tensorrt=False))
    assert found["jetpack"].found.startswith("7.0, Jetson Linux 38.2.0; the package nvidia-jetpack")
    assert found["power mode"].found == "MAXN (0)"
    assert found["gpu clock"].found == "locked"
    assert "--system-site-packages" in found["this python"].remedy
    assert [what for what, finding in found.items() if finding.remedy] == ["this python"]
    assert not any(finding.remedy for finding in examine_jetson(root, sees_tensorrt=True))


def test_an_orin_with_jetpack_7_2_whose_files_tell_little(tmp_path: Path) -> None:
    found = by_name(examine_jetson(tree(tmp_path, ORIN_JP72), sees_tensorrt=True))
    assert found["jetpack"].found.startswith("7.2, Jetson Linux 39.2.1")
    assert (found["power mode"].found, found["power mode"].remedy) == (
        "not told",
        "sudo nvpmodel -q",
    )
    assert found["gpu clock"].found == "not told"


def test_a_jetpack_that_is_too_old(tmp_path: Path) -> None:
    release = "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64\n"
    root = tree(tmp_path, {**ORIN_JP72, "etc/nv_tegra_release": release})
    found = by_name(examine_jetson(root, sees_tensorrt=False))["jetpack"]
    assert found.found.startswith("unknown, Jetson Linux 35.4.1")
    assert "flash JetPack 6.1" in found.remedy


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [("3.0", "6.0"), ("4.0", "6.1"), ("4.3", "6.2"), ("4.4", "6.2"), ("5.0", "6.2"), ("40.1", "")],
)
def test_which_jetpack_a_release_of_36_belongs_to(tmp_path: Path, l4t: str, jetpack: str) -> None:
    found = read_jetson(
        tree(tmp_path, {"etc/nv_tegra_release": f"# R36 (release), REVISION: {l4t},"})
    )
    assert found is not None
    assert found.jetpack == jetpack


def test_other_machines_get_one_line(tmp_path: Path) -> None:
    assert examine_jetson(tmp_path) == [Finding("jetson", "not a Jetson")]
    tree(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    assert examine_jetson(tmp_path) == [Finding("jetson", "not a Jetson")]
    assert board_model(tmp_path) == "Raspberry Pi 5 Model B Rev 1.0"


@pytest.mark.parametrize("name", sorted(ORIN_JP62))
def test_a_file_full_of_noise_is_not_told(tmp_path: Path, name: str) -> None:
    root = tree(tmp_path, ORIN_JP62)
    (root / name).write_bytes(bytes(range(256)) * 8)
    if name == "proc/meminfo":
        with pytest.raises(FileReadError, match="no line 'MemTotal'"):
            examine_jetson(root, sees_tensorrt=True)
    else:
        assert len(examine_jetson(root, sees_tensorrt=True)) == 9

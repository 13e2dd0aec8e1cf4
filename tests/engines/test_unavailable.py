"""Why this machine cannot build for a target, with drivers that report other GPUs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgevision.bundle.flavours import Flavour, flavours
from edgevision.bundle.targets import known_targets
from edgevision.engines.registry import builder_for
from edgevision.engines.trt import within

# What cuda.h gives cuDeviceGetAttribute for the two halves of the compute capability.
DRIVER = """
int cuInit(unsigned flags) {{ return {failure}; }}
int cuDeviceGet(int *device, int ordinal) {{ *device = ordinal; return {failure}; }}
int cuDeviceGetAttribute(int *value, int attribute, int device) {{
    *value = attribute == 75 ? {major} : attribute == 76 ? {minor} : -1;
    return 0;
}}
"""
NO_DEVICE = 100
ASK = """
import json, sys
from edgevision.engines.registry import unavailable
from edgevision.bundle.targets import get_target
reason = unavailable(get_target(sys.argv[1]))
heavy = {"onnxruntime", "tensorrt", "tensorrt_rtx", "torch", "onnx"} & set(sys.modules)
print(json.dumps([reason, sorted(heavy)]))
"""
Ask = Callable[..., str | None]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Return a function that asks for the reason on a machine with a GPU and a TensorRT."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")

    def of(target: str, *, sm: str | None, tensorrt: str | None = None) -> str | None:
        major, minor = (sm or "0.0").split(".")
        source = tmp_path / "driver.c"
        failure = 0 if sm else NO_DEVICE
        source.write_text(DRIVER.format(failure=failure, major=major, minor=minor))
        library = tmp_path / "libcuda.so.1"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
        if tensorrt is not None:
            _install(tmp_path, tensorrt)
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(tmp_path),
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]),
        }
        done = subprocess.run(
            [sys.executable, "-c", ASK, target],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        reason, heavy = json.loads(done.stdout)
        assert heavy == []
        assert reason is None or isinstance(reason, str)
        return reason

    return of


def _install(folder: Path, version: str) -> None:
    """Lay out what pip leaves of a TensorRT that nobody may import."""
    (folder / "tensorrt").mkdir()
    (folder / "tensorrt" / "__init__.py").write_text("raise RuntimeError('imported')")
    metadata = folder / f"tensorrt_cu12-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Name: tensorrt_cu12\nVersion: {version}\n")
    (metadata / "top_level.txt").write_text("tensorrt\n")


@pytest.mark.parametrize("target", ["jetson-orin-jp6", "jetson-orin-jp7", "jetson-thor", "local"])
def test_without_a_gpu_nothing_else_matters(ask: Ask, target: str) -> None:
    assert ask(target, sm=None, tensorrt="10.3.0") == "no NVIDIA GPU on this machine"


def test_another_gpu_than_the_targets(ask: Ask) -> None:
    found = ask("jetson-orin-jp6", sm="8.9", tensorrt="10.3.0")
    assert found == "this machine's GPU is SM 8.9, the target's is 8.7"


def test_the_package_is_missing(ask: Ask) -> None:
    if (builder := ask("jetson-orin-jp6", sm="8.7")) is None:
        pytest.skip("a fitting TensorRT is installed")
    assert builder.startswith("TensorRT is not installed. On a Jetson use JetPack's")


@pytest.mark.parametrize(
    ("version", "target"), [("10.9.0.34", "jetson-orin-jp6"), ("8.6.2", "local")]
)
def test_another_tensorrt_than_the_targets(ask: Ask, version: str, target: str) -> None:
    found = ask(target, sm="8.7", tensorrt=version)
    assert found is not None
    assert found.startswith(f"TensorRT {version} is here, the target has 10.3 to ")


@pytest.mark.parametrize(
    ("target", "sm", "version"),
    [("jetson-orin-jp6", "8.7", "10.3.0"), ("jetson-thor", "11.0", "10.13.3.9"),
     ("local", "9.0", "11.4.0.106")],
)  # fmt: skip
def test_the_right_machine_builds(ask: Ask, target: str, sm: str, version: str) -> None:
    assert ask(target, sm=sm, tensorrt=version) is None


@pytest.mark.parametrize("target", ["host-cpu", "rtx"])
def test_targets_without_a_gpu_are_asked_lightly(ask: Ask, target: str) -> None:
    reason = ask(target, sm=None)
    assert reason is None or "is not installed; pip install" in reason


@pytest.mark.parametrize("flavour", flavours(), ids=str)
def test_every_flavour_has_its_builder(flavour: Flavour) -> None:
    assert builder_for(flavour).flavour is flavour
    assert flavour in {target.flavour for target in known_targets()}


@pytest.mark.parametrize(
    ("version", "fits"),
    [("10.3.0", True), ("10.7.1", True), ("10.2.9", False), ("10.8", False), ("11.0", False)],
)
def test_versions_within_a_range(version: str, fits: bool) -> None:
    assert within(version, "10.3", "10.7") is fits

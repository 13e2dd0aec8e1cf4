"""Every TensorRT name that our source uses exists in NVIDIA's bindings, 10.3 to 11.4 and RTX."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.contract.trt_names import names_used

VERSIONS = ("10.3.0", "10.7.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")
PACKAGE = Path(__file__).parents[2] / "edgevision"
PROBE = Path(__file__).with_name("trt_probe.py")

# Files handed any flavour's module, and those that see one alone.
COMMON = ["engines/tensorrt_network.py"]
FULL = [*COMMON, "engines/trt.py"]
RTX = [*COMMON, "engines/trt_rtx.py"]


def used_by(files: list[str]) -> set[str]:
    return set().union(*(names_used((PACKAGE / file).read_text()) for file in files))


@pytest.fixture(scope="session")
def wheels(pytestconfig: pytest.Config) -> Path:
    """A folder of unpacked binding wheels, kept between runs."""
    if missing := [tool for tool in ("gcc", "nm", "readelf") if shutil.which(tool) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    folder = Path(pytestconfig.cache.mkdir("tensorrt-bindings"))
    for version in VERSIONS:
        if (folder / version / "tensorrt_bindings").is_dir():
            continue
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                    "--only-binary=:all:", "--dest", str(folder),
                    f"tensorrt_cu12_bindings=={version}"]  # fmt: skip
        done = subprocess.run(download, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"TensorRT {version} bindings for this Python are out of reach")
        (wheel,) = folder.glob(f"*bindings-{version}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / version)
    return folder


def missing_in(folder: Path, names: set[str]) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, str(PROBE), str(folder)],
        input=json.dumps(sorted(names)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_full_tensorrt_has_every_name(wheels: Path, version: str) -> None:
    found = missing_in(wheels / version, used_by(FULL))
    assert str(found["version"]).startswith(version.rsplit(".post", 1)[0])
    assert found["missing"] == []


def test_tensorrt_rtx_has_every_name() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    assert missing_in(Path("tensorrt_rtx"), used_by(RTX))["missing"] == []


def test_the_source_is_really_read() -> None:
    names = used_by(FULL)
    assert {
        "Builder",
        "Builder.build_serialized_network",
        "IBuilderConfig.progress_monitor",
        "INetworkDefinition.get_input",
        "IOptimizationProfile.set_shape",
        "IProgressMonitor.step_complete",
        "ITensor.dtype",
        "ILogger.Severity.INTERNAL_ERROR",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.parse",
        "ParserError.node_operator",
    } <= names
    assert "ComputeCapability" in {name.split(".")[0] for name in used_by(RTX)}


PLANTED = [
    # (source, version that lacks the name, the name)
    ("config.build_route = route", "10.3.0", "IBuilderConfig.build_route"),
    ("x = trt.BuilderFlag.FP16", "11.4.0.106", "BuilderFlag.FP16"),
    ("config.int8_calibrator = c", "11.4.0.106", "IBuilderConfig.int8_calibrator"),
    ("if builder.platform_has_fast_int8: pass", "11.4.0.106", "Builder.platform_has_fast_int8"),
    ("x = trt.DataType.FP4", "10.3.0", "DataType.FP4"),
    (
        "class A(trt.IProgressMonitor):\n    def phase_begin(self): pass",
        "10.16.1.11",
        "IProgressMonitor.phase_begin",
    ),
]


@pytest.mark.parametrize(("source", "version", "name"), PLANTED)
def test_a_name_that_a_version_lacks_is_found(
    wheels: Path, source: str, version: str, name: str
) -> None:
    assert missing_in(wheels / version, names_used(source))["missing"] == [name]


def test_a_guarded_name_is_not_reported() -> None:
    source = "if hasattr(config, 'build_route'):\n    config.build_route = route\nconfig.flags"
    assert names_used(source) == {"IBuilderConfig.flags"}
    assert names_used("if hasattr(trt.DataType, 'FP4'): x = trt.DataType.FP4") == {"DataType"}

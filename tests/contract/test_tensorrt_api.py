"""Every TensorRT name that our source uses exists in NVIDIA's bindings, 10.3 to 11.4 and RTX."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.trt_names import modules_required, names_used, untold

VERSIONS = ("10.3.0", "10.7.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")
Wheel = Callable[[str], Path]
PACKAGE = Path(__file__).parents[2] / "edgevision"
PROBE = Path(__file__).with_name("trt_probe.py")

SEAMS = [
    path
    for room in ("engines", "runtime/backends")
    for path in sorted((PACKAGE / room).glob("*.py"))
    if names_used(path.read_text())
]


def used_with(module: str) -> set[str]:
    """Return the names used by the files that import this module, or are handed any."""
    sources = [path.read_text() for path in SEAMS]
    handed = [s for s in sources if module in (modules_required(s) or {module})]
    return set().union(*map(names_used, handed))


@pytest.fixture
def wheel(pytestconfig: pytest.Config) -> Wheel:
    """Return a function from a version to its unpacked binding wheel, kept between runs."""
    if missing := [tool for tool in ("gcc", "nm", "readelf") if shutil.which(tool) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    cache = Path(pytestconfig.cache.mkdir("tensorrt-bindings"))

    def of(version: str) -> Path:
        unpacked = cache / f"{version}-{sys.implementation.cache_tag}"
        if not unpacked.is_dir():
            _download(version, unpacked)
        return unpacked

    return of


def _download(version: str, unpacked: Path) -> None:
    with tempfile.TemporaryDirectory(dir=unpacked.parent) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries=1",
             "--timeout=10", "--only-binary=:all:", "--dest", folder,
             f"tensorrt_cu12_bindings=={version}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"TensorRT {version} bindings for this Python are out of reach")
        (file,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(file) as archive:
            archive.extractall(Path(folder) / "unpacked")
        # Whole or not at all: an interrupted run leaves nothing that the next one trusts.
        (Path(folder) / "unpacked").rename(unpacked)


def missing_in(folder: Path, names: set[str]) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, str(PROBE), str(folder)],
        input=json.dumps(sorted(names)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_full_tensorrt_has_every_name(wheel: Wheel, version: str) -> None:
    found = missing_in(wheel(version), used_with("tensorrt"))
    assert str(found["version"]).startswith(version.rsplit(".post", 1)[0])
    assert (found["missing"], found["unknown"]) == ([], [])


def test_tensorrt_rtx_has_every_name() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    found = missing_in(Path("tensorrt_rtx"), used_with("tensorrt_rtx"))
    assert (found["missing"], found["unknown"]) == ([], [])


START = """
import sys
from pathlib import Path
from edgevision.engines.request import BuildRequest
from edgevision.engines.tensorrt_network import build_plan, make_logger, make_monitor
from edgevision.errors import BuildError
from edgevision.progress import silent
from edgevision.bundle.targets import get_target
from tests.contract.trt_probe import load
trt = load(Path(sys.argv[1]))
make_monitor(trt, silent)
logger = make_logger(trt)
logger.log(trt.ILogger.Severity.ERROR, "a bad thing")
assert logger.errors == ["a bad thing"], logger.errors
try:
    build_plan(trt, BuildRequest(Path("x"), get_target("local"), Path("y")), silent)
except BuildError as error:
    print(error)
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_library_that_does_not_start_is_a_build_error(wheel: Wheel, version: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START, str(wheel(version))],
        cwd=PACKAGE.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "TensorRT does not start" in done.stdout


def test_the_source_is_really_read() -> None:
    assert {
        "Builder",
        "Builder().build_serialized_network",
        "Builder().create_builder_config().progress_monitor =",
        "Builder().create_builder_config().add_optimization_profile",
        "Builder().create_network().get_input",
        "IOptimizationProfile().set_shape",
        "IProgressMonitor.step_complete",
        "ITensor().dtype",
        "ILogger.Severity.INTERNAL_ERROR",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser().parse",
        "ParserError().node_operator",
    } <= used_with("tensorrt")
    assert "ComputeCapability" not in used_with("tensorrt")
    assert {
        "ComputeCapability",
        "IBuilderConfig().set_compute_capability",
        "Builder().build_serialized_network",
    } <= used_with("tensorrt_rtx")


@pytest.mark.parametrize("path", SEAMS, ids=lambda path: path.stem)
def test_no_parameter_hides_what_it_is(path: Path) -> None:
    assert untold(path.read_text()) == []


HEAD = """
def f(trt: ModuleType, config: tensorrt.IBuilderConfig, tensor: tensorrt.ITensor | None) -> None:
    builder = trt.Builder(logger)
    network = builder.create_network(1)
"""

PLANTED = [
    # (statement, version that lacks the name, the name)
    ("config.build_route = route", "10.3.0", "IBuilderConfig().build_route ="),
    ("x = config.build_route", "10.16.1.11", "IBuilderConfig().build_route"),
    ("x = trt.BuilderFlag.FP16", "11.4.0.106", "BuilderFlag.FP16"),
    ("config.int8_calibrator = c", "11.4.0.106", "IBuilderConfig().int8_calibrator ="),
    ("trt.Builder(l).platform_has_fast_int8", "11.4.0.106", "Builder().platform_has_fast_int8"),
    (
        "for i in range(9): other = network.get_input(i); other.dynamic_range = (0, 1)",
        "11.4.0.106",
        "Builder().create_network().get_input().dynamic_range =",
    ),
    ("tensor.dtype = trt.DataType.INT8", "11.4.0.106", "ITensor().dtype ="),
    ("c = builder.create_builder_config(); c.max_num_tactics", "10.3.0",
     "Builder().create_builder_config().max_num_tactics"),
    ("trt.Runtime(l).deserialize_cuda_engine(b).get_engine_stat", "10.13.3.9",
     "Runtime().deserialize_cuda_engine().get_engine_stat"),
    ("x = trt.DataType.FP4", "10.3.0", "DataType.FP4"),
    ("if not hasattr(config, 'build_route'): config.build_route", "10.3.0",
     "IBuilderConfig().build_route"),
    ("if hasattr(config, 'flags'): pass\n    config.build_route", "10.3.0",
     "IBuilderConfig().build_route"),
    ("class A(trt.IProgressMonitor):\n        def phase_begin(self): pass", "10.16.1.11",
     "IProgressMonitor.phase_begin"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "version", "name"), PLANTED)
def test_a_name_that_a_version_lacks_is_found(
    wheel: Wheel, statement: str, version: str, name: str
) -> None:
    assert missing_in(wheel(version), names_used(f"{HEAD}    {statement}"))["missing"] == [name]


@pytest.mark.parametrize(
    "statement",
    [
        "if hasattr(config, 'build_route'): config.build_route = route",
        "if ready and hasattr(config, 'build_route'): config.build_route.strip()",
        "x = config.build_route if hasattr(config, 'build_route') else None",
        "x = hasattr(config, 'build_route') and config.build_route",
        "other.build_route = route",
        "config = other; config.build_route",
    ],
)
def test_a_name_that_is_guarded_or_not_tensorrts_is_left_alone(statement: str) -> None:
    assert not [n for n in names_used(f"{HEAD}    {statement}") if "build_route" in n]

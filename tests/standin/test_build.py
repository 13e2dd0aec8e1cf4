"""What the builder does when it cannot build, and when two build at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.standin import build

BUILD = """
from tests.standin import build
try:
    print(build.driver())
except build.Unavailable as error:
    print("Unavailable:", error)
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that has the headers and nothing else."""
    try:
        root = build._cuda_root()
    except build.Unavailable as error:
        pytest.skip(str(error))
    (tmp_path / root.name).symlink_to(root)
    return tmp_path


def start(cache: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD],
        cwd=build.ROOT,
        env={**os.environ, "EDGEVISION_TEST_CACHE": str(cache), **variables},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_builders_agree_and_leave_nothing_else(cache: Path) -> None:
    both = [start(cache), start(cache)]
    said = {process.communicate(timeout=120)[0].strip() for process in both}
    assert len(said) == 1
    folder = Path(said.pop())
    assert {path.name for path in folder.iterdir()} == {"libcuda.so", "libcuda.so.1"}
    assert len(list(cache.iterdir())) == 2


def test_no_compiler_is_told(cache: Path) -> None:
    said, _ = start(cache, PATH=str(cache)).communicate(timeout=120)
    assert said == "Unavailable: cc is not installed\n"
    assert len(list(cache.iterdir())) == 1


def test_no_package_index_is_told(tmp_path: Path) -> None:
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    said, _ = start(tmp_path, **nothing).communicate(timeout=120)
    assert said.startswith("Unavailable: ")
    assert "nvidia-cuda-runtime" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("binding", "order"), [("cuda", "eager"), ("pycuda", "random"), ("pycuda", "seed:")]
)
def test_unknown_words_are_refused(binding: str, order: str) -> None:
    with pytest.raises(ValueError, match="eager"):
        build.environment(binding=binding, order=order)

"""Builds what tests run the real CUDA bindings on: the stand-in driver, and pycuda against it.

`python -m tests.standin.build` builds both and says what it does.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.standin import headers

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
HEADERS = ("nvidia-cuda-runtime==13.0.96", "nvidia-cuda-profiler-api==13.0.85")
BINDINGS = ("cuda-bindings", "pycuda")
ORDERS = re.compile(r"eager|lazy|seed:\d+")
PYCUDA = "pycuda==2026.1"
PYCUDA_NEEDS = ("pytools==2026.1.1", "siphash24==1.9", "mako==1.4.3", "platformdirs==4.14.7")

# Curand has no header here; nothing that is measured runs in this build.
AKSETUP = 'CUDA_ROOT = "{root}"\nCUDA_ENABLE_CURAND = False\nCXXFLAGS = ["-O0", "-g0"]\n'


class Unavailable(Exception):  # noqa: N818
    """This machine cannot build it: no compiler, or no package index."""


def environment(*, binding: str, order: str = "eager", integrated: bool = False) -> dict[str, str]:
    """Return the environment of a child process that finds the stand-in driver.

    Args:
        binding: "cuda-bindings" or "pycuda", which the child can then import.
        order: When asynchronous work runs: "eager", "lazy" or "seed:N".
        integrated: Whether the device shares its memory with the host.
    """
    if binding not in BINDINGS or not ORDERS.fullmatch(order):
        raise ValueError(f"binding {binding!r}, order {order!r}: {BINDINGS}, {ORDERS.pattern}")
    added = {"LD_LIBRARY_PATH": [driver()], "PYTHONPATH": [ROOT]}
    if binding == "pycuda":
        added["PYTHONPATH"].append(pycuda_site())
    merged = dict(os.environ, STANDIN_ORDER=order, STANDIN_INTEGRATED=str(int(integrated)))
    for name, folders in added.items():
        kept = [merged[name]] if merged.get(name) else []
        merged[name] = os.pathsep.join([*map(str, folders), *kept])
    return merged


@functools.cache
def driver() -> Path:
    """Return the folder of libcuda.so.1, built if it is not there."""
    sources = sorted([*HERE.glob("*.[ch]"), HERE / "headers.py", Path(__file__)])
    key = _key(*HEADERS, platform.machine(), *(path.read_text() for path in sources))
    return _built(f"driver-{key}", _build_driver)


@functools.cache
def pycuda_site() -> Path:
    """Return a folder for PYTHONPATH with pycuda in it, built if it is not there."""
    tag = sys.implementation.cache_tag
    key = _key(*HEADERS, PYCUDA, *PYCUDA_NEEDS, AKSETUP, platform.machine())
    return _built(f"pycuda-{tag}-{key}", _build_pycuda)


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _cache() -> Path:
    default = Path.home() / ".cache" / "edgevision-tests"
    return Path(os.environ.get("EDGEVISION_TEST_CACHE", default))


def _built(name: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of that name in the cache; of two builders at once the first one wins."""
    folder = _cache() / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(folder.parent) as made:
        build(made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


@contextmanager
def _temporary(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="building-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: str | Path, **variables: str) -> None:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-20:]
        raise Unavailable("\n".join([f"{' '.join(map(str, command))}: failed", *said]))


def _pip(*arguments: str | Path, **variables: str) -> None:
    _run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, **variables)


def _cuda_root() -> Path:
    """Return a folder whose include/ has the CUDA headers."""
    return _built(f"headers-{_key(*HEADERS, platform.machine())}", _fetch_headers)


def _fetch_headers(made: Path) -> None:
    with _temporary(made) as wheels:
        _pip("download", "--quiet", "--no-deps", "--dest", wheels, *HEADERS)
        for wheel in wheels.glob("*.whl"):
            shutil.unpack_archive(wheel, wheels / "unpacked", "zip")
        for folder in (wheels / "unpacked" / "nvidia").glob("*/include"):
            shutil.copytree(folder, made / "include", dirs_exist_ok=True)


def _build_driver(made: Path) -> None:
    include = _cuda_root() / "include"
    with _temporary(made) as work:
        options = ["-c", "-O1", "-g", "-fPIC", "-fvisibility=hidden", f"-I{HERE}", f"-I{include}"]
        objects = []
        for source in sorted(HERE.glob("*.c")):
            objects.append(work / f"{source.stem}.o")
            _run("cc", *options, source, "-o", objects[-1])
        for name, text in (
            ("tables", headers.tables(include)),
            ("stubs", headers.stubs(include, _defined(objects))),
        ):
            (work / f"{name}.c").write_text(text)
            objects.append(work / f"{name}.o")
            _run("cc", *options, work / f"{name}.c", "-o", objects[-1])
        target = made / "libcuda.so.1"
        soname = "-Wl,-soname,libcuda.so.1"
        _run("cc", "-shared", soname, "-pthread", *objects, "-Wl,-z,defs", "-o", target)
    # What -lcuda finds.
    (made / "libcuda.so").symlink_to(target.name)


def _defined(objects: list[Path]) -> set[str]:
    try:
        listed = subprocess.run(
            ["nm", "--defined-only", *objects], capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        raise Unavailable("nm is not installed") from None
    return {line.split()[-1] for line in listed.splitlines() if " T " in line}


def _build_pycuda(made: Path) -> None:
    with _temporary(made) as work:
        # pycuda reads its options from the home folder; without them it waits, and finds no curand.
        (work / ".aksetup-defaults.py").write_text(AKSETUP.format(root=_cuda_root()))
        where = {"HOME": str(work), "LIBRARY_PATH": str(driver())}
        _pip("wheel", "--no-deps", "--no-binary", "pycuda", "-w", work, PYCUDA, **where)
        wheel = next(work.glob("pycuda-*.whl"))
        _pip("install", "--no-deps", "--target", made, wheel, *PYCUDA_NEEDS)


def main() -> None:
    """Build both, saying what is made and where it lies."""
    for what, build in (("driver", driver), ("pycuda", pycuda_site)):
        print(f"{what}: ...", flush=True)
        print(f"{what}: {build()}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except Unavailable as error:
        sys.exit(f"not built: {error}")

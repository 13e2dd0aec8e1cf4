"""Builds edgevision and edgevision-zoo into dist/, and tries the wheels in empty environments.

python scripts/packages.py                              # with the interpreter that runs this
python scripts/packages.py python3.10 python3.13        # with these
python scripts/packages.py --environment DIR python3.10 # DIR has the dependencies already

It needs build and twine (`make packages` installs them). An environment is empty but for the wheels
and what they need; the folder in which the commands run is empty, too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
# What neither wheel nor sdist of edgevision may hold.
FOREIGN = ("tests/", "checkpoints/", "examples/", ".safetensors", ".onnx", ".jpg", ".key")
MAX_BYTES = {"edgevision": 2_000_000, "edgevision_zoo": 75_000_000}
# Each ends with code 0 in an empty folder; `demo` leaves what the others run.
COMMANDS = (
    "--help",
    "demo",
    "run edgevision-demo/int8.ev edgevision-demo/photos --out overlays",
    "bench edgevision-demo/int8.ev --duration 2 --quick",
    "check edgevision-demo/int8.ev --target jetson-orin-nx-jp6",
)


def build() -> tuple[Path, Path]:
    """Build both distributions into an empty dist/; return the two wheels."""
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        # A copy, because setuptools leaves build/ and *.egg-info where it works.
        for name, sdist in (("edgevision", ("--sdist",)), ("edgevision_zoo", ())):
            copy = Path(temporary) / name
            source = ROOT if name == "edgevision" else ROOT / "checkpoints"
            left_out = ".*", "dist", "build", "*.egg-info", "__pycache__", "*.ev"
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns(*left_out))
            run(
                [sys.executable, "-m", "build", *sdist, "--wheel", "--outdir", DIST, copy],
                quiet=True,
            )
    run([sys.executable, "-m", "twine", "check", "--strict", *DIST.iterdir()])
    (code,), (zoo,) = DIST.glob("edgevision-*.whl"), DIST.glob("edgevision_zoo-*.whl")
    return code, zoo


def check_contents() -> None:
    """Refuse distributions that hold what they should not, or are too large."""
    for file in sorted(DIST.iterdir()):
        if file.suffix == ".whl":
            names = zipfile.ZipFile(file).namelist()
        else:
            with tarfile.open(file) as archive:
                names = archive.getnames()
        package = file.name.partition("-")[0]
        foreign = [n for n in names if package == "edgevision" and any(f in n for f in FOREIGN)]
        if foreign:
            raise SystemExit(f"{file.name} holds {foreign[:5]}")
        if file.stat().st_size > MAX_BYTES[package]:
            raise SystemExit(f"{file.name}: {file.stat().st_size} bytes, over {MAX_BYTES[package]}")
        print(f"{file.name}: {len(names)} files, {file.stat().st_size / 1e6:.1f} MB")


def constraints(python: str) -> list[str]:
    """Return pip's options: the tested versions, where this Python has them."""
    said = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info >= (3, 11))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    if said == "True":
        return ["-c", str(ROOT / "constraints.txt")]
    # Several of them have left 3.10; torch is held, because pip would take the newest.
    pins = [line for line in (ROOT / "constraints.txt").read_text().split() if "torch==" in line]
    return pins


def try_wheels(python: str, wheels: Sequence[Path], environment: Path | None) -> None:
    """Install the wheels and run the commands, with nothing else in reach."""
    with tempfile.TemporaryDirectory() as temporary:
        home = environment or Path(temporary) / "environment"
        interpreter = home / "bin" / "python"
        if environment is None:
            run([python, "-m", "venv", home])
        pip = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        code, zoo = wheels
        if environment is None:
            run([*pip, *constraints(python), f"{code}[host]", zoo])
        else:
            run([*pip, "--force-reinstall", "--no-deps", code, zoo])
        empty = Path(temporary) / "empty"
        empty.mkdir()
        for command in COMMANDS:
            run([home / "bin" / "edgevision", *command.split()], cwd=empty, quiet=True)
            print(f"{python}: edgevision {command}: done")


def run(command: Sequence[object], cwd: Path = ROOT, *, quiet: bool = False) -> None:
    """Run a command that must end with code 0; PYTHONPATH would put a clone before the wheel."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=kept, capture_output=quiet, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: code {done.returncode}\n{done.stdout}{done.stderr}")


def main() -> None:
    """Build, check and try."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("python", nargs="*", default=[sys.executable])
    parser.add_argument("--environment", type=Path, help="that has the dependencies; one python")
    options = parser.parse_args()
    wheels = build()
    check_contents()
    for python in options.python:
        try_wheels(python, wheels, options.environment)


if __name__ == "__main__":
    main()

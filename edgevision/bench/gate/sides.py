"""What can be compared, as a worker's command: a bundle, a wheel, a git revision, an environment.

A wheel or a revision of edgevision gets a virtual environment of its own, which sees the packages
of this one below its own edgevision: only edgevision differs. An interpreter of another environment
brings its own packages.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Sequence
from pathlib import Path

from edgevision.bench.gate.process import Side
from edgevision.bundle.files import PathLike
from edgevision.bundle.trust import Trust
from edgevision.errors import FileReadError, RunError

_ANYBODY = Trust()
_WORKER = Path(__file__).with_name("worker.py")
# What would put another edgevision before the environment's own.
_MISLEADING = ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH")


def of_bundle(
    bundle: PathLike,
    *,
    device: str = "auto",
    python: str = sys.executable,
    trust: Trust = _ANYBODY,
    finished: tuple[PathLike, str] | None = None,
) -> Side:
    """Return a bundle, run by this edgevision or by another environment's interpreter.

    `finished` is a folder of engines that were finished for it, and the target whose they are.
    """
    command = (python, *_arguments(bundle, device, trust))
    if finished is not None:
        command = (*command, "--engines", os.fspath(finished[0]), "--target", finished[1])
    if python == sys.executable:
        return Side(Path(bundle).name, command)
    return Side(python, command, variables=_own_variables())


def of_package(
    source: str,
    bundle: PathLike,
    folder: Path,
    *,
    device: str = "auto",
    trust: Trust = _ANYBODY,
) -> Side:
    """Return an edgevision that runs `bundle`, made ready in `folder`, which must stay.

    Args:
        source: a wheel's file, an interpreter, or a git revision of the repository around here.
        bundle: what both sides run.
        folder: an empty folder.
        device: see `edgevision.load`.
        trust: what is asked of the bundle; only an edgevision that knows of it takes it.

    Raises:
        FileReadError: it is none of these.
        RunError: the wheel cannot be installed.
    """
    if source.endswith(".whl"):
        python = _environment(folder)
        _install(python, source)
        package = folder / "env"
    elif os.access(source, os.X_OK) and os.path.isfile(source):
        return of_bundle(bundle, device=device, python=os.path.abspath(source), trust=trust)
    else:
        package = folder / "tree"
        _extract(source, package)
        python = _environment(folder, first=package)
    command = (python, *_arguments(bundle, device, trust))
    return Side(Path(source).name, command, package=str(package), variables=_own_variables())


def _arguments(bundle: PathLike, device: str, trust: Trust) -> tuple[str, ...]:
    return (str(_WORKER), os.path.abspath(bundle), "--device", device, *trust.arguments())


def is_package(source: str) -> bool:
    """Whether `source` names an edgevision to compare, and not a bundle."""
    return source.endswith(".whl") or not os.path.isdir(source)


def _environment(folder: Path, *, first: Path | None = None) -> str:
    """Make a virtual environment over the packages of this one; return its interpreter."""
    home = folder / "env"
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    paths = [] if first is None else [str(first)]
    known = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "edgevision-bench.pth").write_text("\n".join([*paths, *sorted(known)]) + "\n")
    return str(home / "bin" / "python")


def _install(python: str, wheel: str) -> None:
    if not os.path.isfile(wheel):
        raise FileReadError(f"there is no wheel '{wheel}'")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    done = subprocess.run(
        [
            *pip,
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--ignore-installed",
            os.path.abspath(wheel),
        ],
        # `-m` imports from the working directory first: this one is ours.
        cwd=os.path.dirname(python),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RunError(f"'{wheel}' cannot be installed: {done.stderr.strip()}")


def _extract(revision: str, target: Path) -> None:
    """Write the package as it is in a git revision."""
    asked = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    commit = _git(asked)
    archived = _git(["archive", "--format=tar", commit.decode().strip(), "edgevision"])
    if not archived:
        raise FileReadError(
            f"'{revision}' is not a bundle, wheel, interpreter or git revision with an "
            "edgevision/ in it. For a revision stand in its repository"
        )
    with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
        archive.extractall(target, filter="data")


def _git(arguments: Sequence[str]) -> bytes:
    """Return what git says at the top of the repository around here, nothing if it fails."""
    asked = ["git", "rev-parse", "--show-toplevel"]
    try:
        top = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        payload = subprocess.run(
            ["git", *arguments], capture_output=True, check=False, cwd=top or None
        )
    except FileNotFoundError:
        raise FileReadError("git is not installed, so there are no revisions here") from None
    return b"" if payload.returncode else payload.stdout


def _own_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _MISLEADING}

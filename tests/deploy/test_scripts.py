"""The scripts in deploy/ci/ run as a CI runs them, from a checkpoint to a proven engine.

The x86 half runs in full. The device half runs with TARGET=local-cpu: no board is needed. Its speed
gate takes half a minute, and runs in full with EDGEVISION_TEST_SPEED_GATE=1; CI sees it refuse a
stranger's baseline. What a script does not run itself is called in this process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import project  # noqa: F401  # a fixture
from tests.parts.shell import Call, Outcome

CI = Path(__file__).parents[2] / "deploy" / "ci"
X86 = {
    "SOURCE": "nets:net",
    "BUILD_ARGS": "--size 32x48 --classes classes.txt",
    "CALIBRATION": "frames",
    "EVALUATE": "val",
    "INSTALL": "",
}


class Checkout:
    """A folder with a net and the scripts, as a CI checks it out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, **settings: str) -> Outcome:
        """Run a command there, with a cache of its own and our `edgevision` first in the path."""
        found = os.pathsep.join(filter(None, [".", os.environ.get("PYTHONPATH")]))
        own = {
            "PATH": self.path(),
            "EDGEVISION_CACHE": str(self.folder / "cache"),
            "EDGEVISION_STATE": str(self.folder / "state"),
            "PYTHONPATH": found,
        }
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **own, **settings},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    def script(self, name: str, **settings: str) -> Outcome:
        """Run a script of the CI's."""
        return self.run("bash", str(CI / name), **settings)

    def edgevision(self, *words: str, code: int = 0, state: str = "state") -> Outcome:
        """Call the command line in this process, with the state directory `state`."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EDGEVISION_STATE", str(self.folder / state))
            return Call(self.folder)(*words, code=code)

    def copy(self, bundle: str, name: str) -> str:
        """Copy a bundle to `name`, where an earlier test may have left one."""
        shutil.copytree(self.folder / bundle, self.folder / name, dirs_exist_ok=True)
        return name

    def path(self) -> str:
        """Return where commands are looked for."""
        return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def report(self, name: str) -> Any:
        """Return a report that a script wrote."""
        return json.loads((self.folder / name).read_text())


@pytest.fixture(scope="module")
def checkout(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:  # noqa: F811
    made = Checkout(tmp_path_factory.mktemp("checkout") / "repository")
    shutil.copytree(project, made.folder)
    for name in ("ours", "next", "theirs"):
        made.edgevision("keygen", name)
    return made


@pytest.fixture(scope="module")
def x86(checkout: Checkout) -> Outcome:
    """The x86 half, run once."""
    done = checkout.script("x86.sh", **X86)
    assert done.code == 0, done.out + done.err
    return done


@pytest.fixture(scope="module")
def release(checkout: Checkout, x86: Outcome) -> Outcome:
    """What the x86 half made, signed in a job of its own, of which model-signing is told to be."""
    tool = checkout.folder / "model_signing"
    tool.write_text('#!/bin/sh\necho "$@" >> model-signing.log\n')
    tool.chmod(0o755)
    secret = (checkout.folder / "ours.key").read_text()
    done = checkout.script(
        "sign.sh", SIGNING_KEY_PEM=secret, VERSION="7", SIGSTORE="true",
        EXPIRES="2999-12-31", PATH=f"{checkout.folder}:{checkout.path()}",
    )  # fmt: skip
    assert done.code == 0, done.out + done.err
    assert secret not in done.out + done.err
    return done


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_x86_half_leaves_a_bundle_that_waits_for_its_board(
    checkout: Checkout, x86: Outcome, precision: str
) -> None:
    states = {
        artifact["target"]: artifact["state"]
        for artifact in checkout.report(f"dist/model-{precision}.json")["artifacts"]
    }
    assert states == {"host-cpu": "built", "rtx": "built", "jetson-orin-jp6": "pending"}
    part = x86.out.split(f"== dist/model-{precision}.ev")[1].split("== dist/")[0]
    assert "mIoU: torch" in part
    assert "within the allowed loss of 0.01" in part
    assert "fit for 'jetson-orin-jp6'" in part
    assert "NOT" not in part.replace("NOT CHECKED", "")
    assert "files match their hashes; not signed" in part
    assert f"edgevision finish model-{precision}.ev --target jetson-orin-jp6" in part


def test_a_job_that_runs_nothing_of_the_nets_signs(checkout: Checkout, release: Outcome) -> None:
    for precision in ("fp16", "int8"):
        bundle = f"dist/model-{precision}.ev"
        assert f"{bundle}: version 7, signed by key" in release.out
        told = checkout.edgevision("verify", bundle, "--files-only", "--key", "ours.pub")
        assert "version 7 until 2999-12-31, signed by key" in told.out
        asked = f"sign sigstore {bundle} --use_ambient_credentials --signature {bundle}.sig\n"
        assert asked in (checkout.folder / "model-signing.log").read_text()
    lines = (CI / "sign.sh").read_text().partition("set -euo pipefail")[2].split("\n")
    body = "\n".join(line.strip() for line in lines).strip()
    for workflow in sorted(CI.glob("*.yml")):
        told_there = "\n".join(line.strip() for line in workflow.read_text().split("\n"))
        assert body in told_there, f"{workflow.name} signs otherwise than sign.sh"
        assert told_there.count("SIGNING_KEY_PEM=") == told_there.count('EDGEVISION_SIGNING_KEY"')


def test_the_next_run_takes_its_engines_from_the_cache_and_asks_the_board(
    checkout: Checkout, x86: Outcome
) -> None:
    # Without frames there is no INT8 and no score: the least that the script does.
    least = {**X86, "CALIBRATION": "", "EVALUATE": "", "OUT": "again", "CHECK": "jetson-nano"}
    again = checkout.script("x86.sh", **least)
    assert "not scored" in again.out
    assert again.code == 2, again.out + again.err
    assert "jetson-orin-nano" in again.err
    built = [
        artifact
        for artifact in checkout.report("again/model-fp16.json")["artifacts"]
        if artifact["state"] == "built"
    ]
    assert [artifact["cached"] for artifact in built] == [True, True]
    first = checkout.report("dist/model-fp16.json")["artifacts"]
    assert {a["sha256"] for a in built} == {a["sha256"] for a in first if a["path"]}


def test_a_form_that_lost_too_much_ends_it(checkout: Checkout, x86: Outcome) -> None:
    gate = ("python3", str(CI / "accuracy_gate.py"), "worse.json", "int8", "0.02")
    report = checkout.report("dist/model-int8.json")
    for row in report["accuracy"]:
        if row["form"] == "int8":
            row["figures"]["mIoU"] -= 0.03
    (checkout.folder / "worse.json").write_text(json.dumps(report))
    done = checkout.run(*gate)
    assert done.code == 1
    assert "MORE THAN" in done.out
    # Without a number the task's own allowance holds, and an undefined figure is not a pass.
    assert checkout.run(*gate[:-1]).code == 1
    for row in report["accuracy"]:
        row["figures"]["mIoU"] = None
    (checkout.folder / "worse.json").write_text(json.dumps(report))
    assert checkout.run(*gate).code == 2


@pytest.fixture(scope="module")
def strange(checkout: Checkout, release: Outcome) -> str:
    """A release that somebody else signed."""
    name = checkout.copy("dist/model-int8.ev", "strange.ev")
    checkout.edgevision("sign", name, "--key", "theirs.key", "--version", "9")
    return name


def test_the_device_half_finishes_proves_and_compares(checkout: Checkout, strange: str) -> None:
    in_full = bool(os.environ.get("EDGEVISION_TEST_SPEED_GATE"))
    candidate, baseline = "dist/model-int8.ev", strange
    if in_full:  # finished before, as a board keeps the last release
        baseline = checkout.copy(candidate, "last.ev")
        checkout.edgevision("finish", baseline, "--target", "local-cpu", "--key", "ours.pub")
    done = checkout.script(
        "jetson.sh", BUNDLE=candidate, TARGET="local-cpu", PUBLIC_KEY="next.pub ours.pub",
        MINIMUM_VERSION="7", EVALUATE="val", BASELINE=baseline, GATE="100%",
    )  # fmt: skip
    if in_full:
        assert done.code == 0, done.out + done.err
        assert "Counts per frame: nothing grew." in done.out
        assert "<testcase" in (checkout.folder / "reports" / "speed.xml").read_text()
    else:
        assert done.code == 1, done.out + done.err
        assert f"'{strange}' is signed by key" in done.err.replace(f"{checkout.folder}/", "")
    assert "proven on" in done.out
    assert "\nverified\n" in done.out
    assert (checkout.folder / "reports" / "doctor.txt").stat().st_size
    (record_file,) = (checkout.folder / "state/engines").glob("model-int8.ev-*/*/record.json")
    record = json.loads(record_file.read_text())
    assert record["passed"]
    assert 0 < record["score"]["mIoU"] < 1
    # The second boot finds what the first one proved.
    finish = ("finish", candidate, "--target", "local-cpu", "--key", "ours.pub")
    assert "was finished before, and is valid" in checkout.edgevision(*finish).out


def test_the_device_half_builds_nothing_of_a_stranger(checkout: Checkout, strange: str) -> None:
    done = checkout.script("jetson.sh", BUNDLE=strange, TARGET="local-cpu", PUBLIC_KEY="ours.pub")
    assert done.code == 1, done.out + done.err
    assert "signed by key" in done.err
    assert not list((checkout.folder / "state").glob("engines/strange.ev-*"))


def test_a_replayed_release_is_not_built(checkout: Checkout, release: Outcome) -> None:
    done = checkout.script(
        "jetson.sh", BUNDLE="dist/model-fp16.ev", TARGET="local-cpu",
        PUBLIC_KEY="ours.pub", MINIMUM_VERSION="8",
    )  # fmt: skip
    assert done.code == 1, done.out + done.err
    assert "is version 7, below the minimum 8" in done.err
    assert not list((checkout.folder / "state").glob("engines/model-fp16.ev-*"))


def test_a_release_older_than_what_ran_is_not_built(checkout: Checkout, release: Outcome) -> None:
    """Without MINIMUM_VERSION: the board itself keeps what ran on it."""
    newer = checkout.copy("dist/model-fp16.ev", "newer.ev")
    checkout.edgevision("sign", newer, "--key", "ours.key", "--version", "8")
    finish = ("finish", newer, "--target", "local-cpu", "--key", "ours.pub")
    checkout.edgevision(*finish, state="board")
    done = checkout.script(
        "jetson.sh", BUNDLE="dist/model-fp16.ev", TARGET="local-cpu", PUBLIC_KEY="ours.pub",
        EDGEVISION_STATE=str(checkout.folder / "board"),
    )  # fmt: skip
    assert done.code == 1, done.out + done.err
    assert "an older release does not come back" in done.err


def test_another_model_of_the_same_maker_is_not_built(checkout: Checkout, release: Outcome) -> None:
    done = checkout.script(
        "jetson.sh", BUNDLE="dist/model-fp16.ev", TARGET="local-cpu",
        PUBLIC_KEY="ours.pub", MODEL="other",
    )  # fmt: skip
    assert done.code == 1, done.out + done.err
    assert "expected 'other'" in done.err


def test_no_half_runs_without_what_it_trusts_by(checkout: Checkout) -> None:
    secret = (checkout.folder / "ours.key").read_text()
    unversioned = checkout.script("sign.sh", SIGNING_KEY_PEM=secret)
    assert unversioned.code != 0
    assert "set VERSION, too" in unversioned.err
    unsigned = checkout.script("sign.sh", SIGNING_KEY_PEM="", VERSION="7")
    assert unsigned.code != 0
    assert "set SIGNING_KEY_PEM" in unsigned.err
    keyless = checkout.script("jetson.sh", BUNDLE="any.ev", PUBLIC_KEY="")
    assert keyless.code != 0
    assert "set PUBLIC_KEY to the file" in keyless.err


def test_the_device_half_finds_what_the_start_page_installs(tmp_path: Path) -> None:
    program = tmp_path / "ev" / "bin" / "edgevision"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho found; exit 5\n")
    program.chmod(0o755)
    board = Checkout(tmp_path)
    done = board.script(
        "jetson.sh", PATH="/usr/bin:/bin", HOME=str(tmp_path), PUBLIC_KEY="ours.pub"
    )
    assert (done.code, done.out) == (5, "found\n"), done.err


def test_the_units_command_finishes_what_is_signed(checkout: Checkout, release: Outcome) -> None:
    unit = (CI.parent / "systemd" / "edgevision-finish.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    program_and_words = line.partition("=")[2].split()
    given = {
        "/opt/models/road.ev": "dist/model-int8.ev", "local": "local-cpu",
        "/etc/edgevision/road.pub": "ours.pub",
    }  # fmt: skip
    words = [given.get(word, word) for word in program_and_words[1:]]
    assert program_and_words[0] == "/opt/edgevision/bin/edgevision"
    checkout.edgevision(*words, state="unit")
    again = checkout.edgevision(*words, state="unit")
    assert "was finished before, and is valid" in again.out
    theirs = [word.replace("ours.pub", "missing.pub") for word in words]
    checkout.edgevision(*theirs, state="unit", code=2)

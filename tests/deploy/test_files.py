"""The files in deploy/ as the tools of their kind read them: schemas and linters."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
CI = DEPLOY / "ci"
IMAGES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
WORKFLOWS = [
    CI / "edgevision.github.yml",
    DEPLOY.parent / "examples" / "ci" / "smallest.github.yml",
]
NO_PULL_REQUEST = (
    "if: github.event_name != 'pull_request'",
    "if: github.ref == 'refs/heads/main'",  # a pull request's is refs/pull/N/merge
    'if: $CI_PIPELINE_SOURCE == "merge_request_event"\n      when: never',
)


def _passes(*command: str | Path) -> None:
    """Run a tool of this interpreter's environment, or of the system."""
    tool = Path(sys.executable).with_name(str(command[0]))
    program = str(tool) if tool.exists() else str(command[0])
    done = subprocess.run(
        [program, *map(str, command[1:])], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", sorted(CI.glob("*.sh")), ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    _passes("shellcheck", script)
    assert os.access(script, os.X_OK)


def test_the_github_workflows_fit_their_schema() -> None:
    _passes(
        "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS
    )  # fmt: skip


def test_the_gitlab_pipeline_fits_its_schema() -> None:
    _passes(
        "check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", "--data-transform",
        "gitlab-ci", CI / "edgevision.gitlab.yml",
    )  # fmt: skip


def test_a_misspelt_key_is_found(tmp_path: Path) -> None:
    text = (CI / "edgevision.github.yml").read_text()
    broken = tmp_path / "broken.yml"
    broken.write_text(text.replace("runs-on: ubuntu", "run-on: ubuntu"))
    with pytest.raises(AssertionError, match="run-on"):
        _passes("check-jsonschema", "--builtin-schema", "vendor.github-workflows", broken)


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(image: Path) -> None:
    _passes("hadolint", image)


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    units = []
    for unit in sorted((DEPLOY / "systemd").iterdir()):
        copy = tmp_path / unit.name
        # Only here: systemd looks whether the programs are there.
        text = unit.read_text().replace("/opt/edgevision/bin/edgevision", sys.executable)
        copy.write_text(text.replace("/opt/edgevision/bin/python", sys.executable))
        units.append(copy)
    _passes("systemd-analyze", "verify", "--recursive-errors=no", *units)


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").iterdir()), ids=lambda p: p.name)
def test_the_units_give_their_programs_no_more_than_they_need(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    # In tenths: 4.0 is what systemd itself calls OK.
    _passes("systemd-analyze", "security", "--offline=true", "--threshold=40", unit)


@pytest.mark.parametrize(
    "workflow", [*WORKFLOWS, CI / "edgevision.gitlab.yml"], ids=lambda p: p.name
)
def test_only_the_signing_job_sees_the_key_and_never_for_a_pull_request(workflow: Path) -> None:
    text = re.sub(r"^ *#.*\n", "", workflow.read_text(), flags=re.MULTILINE)
    _, is_github, below = text.partition("\njobs:\n")
    job = r"^  (\w+):\n" if is_github else r"^(\w+):\n"
    parts = re.split(job, below or text, flags=re.MULTILINE)
    jobs = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert [name for name, job in jobs.items() if "SIGNING_KEY" in job] == ["sign"]
    for name in ("sign", "jetson"):
        assert any(never in jobs[name] for never in NO_PULL_REQUEST), name
    # No code of the repository: none is fetched.
    assert "actions/checkout" not in jobs["sign"]
    assert is_github or "GIT_STRATEGY: none" in jobs["sign"]


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_the_images_check_signatures_and_keep_state(image: Path) -> None:
    text = image.read_text()
    assert f"--require-hashes --only-binary :all: -r /opt/edgevision/{image.stem}.txt" in text
    wanted = image.with_suffix(".txt").read_text().splitlines()
    packages = [line for line in wanted if not line.startswith("#")]
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in packages)
    assert any(line.startswith("cryptography==") for line in packages)
    assert "EDGEVISION_STATE=/state" in text
    assert "--key /models/ours.pub" in text


def test_nothing_starts_where_the_bundle_or_its_key_is_missing() -> None:
    for unit in (DEPLOY / "systemd").iterdir():
        text = unit.read_text()
        # A condition that does not hold skips a unit, and who requires it starts all the same.
        assert "\nCondition" not in text
        (start,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
        assert "--key /etc/edgevision/road.pub" in start
    finish = (DEPLOY / "systemd" / "edgevision-finish.service").read_text()
    assert "\nAssertPathExists=/opt/models/road.ev/manifest.json\n" in finish
    assert " --minimum-version " in finish
    assert (
        "\nRequires=edgevision-finish.service\n"
        in (DEPLOY / "systemd" / "road-app.service").read_text()
    )

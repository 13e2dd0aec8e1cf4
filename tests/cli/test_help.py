"""What every verb has: help with an example that works, JSON in one manner, a near miss named."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgevision.cli import main, parser
from edgevision.tasks.outputs import MARK
from tests.parts.shell import Call
from tests.parts.tiny_bundles import semantic_bundle

VERBS: dict[str, argparse.ArgumentParser] = next(
    action._name_parser_map
    for action in parser()._actions
    if isinstance(action, argparse._SubParsersAction)
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return semantic_bundle(tmp_path / "road.ev").root


@pytest.mark.parametrize("name", VERBS)
def test_help_ends_with_an_example_that_parses(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*name.split(), "--help"])
    text = capsys.readouterr().out
    (example,) = [line for line in text.splitlines() if line.startswith("example: edgevision ")]
    words = shlex.split(example.removeprefix("example: edgevision "))
    assert words[: len(name.split())] == name.split()
    parser().parse_args(words)
    assert "--json-file FILE" in text


def test_every_verb_that_runs_a_bundle_asks_whose_it_is() -> None:
    # `sign` has the private key under that name; `inspect` prints, and runs nothing.
    takes = {
        name: {option for action in verb._actions for option in action.option_strings}
        for name, verb in VERBS.items()
        if any(action.metavar in ("BUNDLE", "A", "SOURCE") for action in verb._actions)
        and name not in ("sign", "inspect")
    }
    assert {"finish", "run", "score", "triton", "bench", "bench compare", "verify"} <= set(takes)
    for name, options in takes.items():
        assert {"--key", "--minimum-version", "--name"} <= options, name


@pytest.mark.parametrize(
    ("typed", "meant"), [("biuld", "build"), ("finsh", "finish"), ("benhc", "bench")]
)
def test_a_near_miss_says_what_was_meant(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([typed, "road.ev"])
    assert f"there is no verb '{typed}'. Did you mean '{meant}'? Verbs: " in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["frobnicate"])
    assert "there is no verb 'frobnicate'. Verbs: " in capsys.readouterr().err


def test_a_bundle_called_compare_is_benched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    semantic_bundle(tmp_path / "compare")
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "./compare", "--duration", "0.2", "--quick", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "compare"
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "./compare", "--gate", "5%"])
    assert "unrecognized arguments: --gate" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "compare", "a", "b", "--fps", "30"])
    assert "unrecognized arguments: --fps" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["inspect", "verify", "finish"])
def test_the_file_holds_what_is_printed(
    call: Call, bundle: Path, tmp_path: Path, verb: str
) -> None:
    more = ["--target", "local-cpu"] if verb == "finish" else []
    call(verb, bundle, *more)  # so that the second finish finds it finished
    kept = tmp_path / "kept.json"
    text = call(verb, bundle, *more, "--json-file", kept)
    printed = call(verb, bundle, *more, "--json")
    assert json.loads(kept.read_text()) == marked(printed.json)
    assert text.out
    assert not text.out.startswith(("{", "[")), "with --json-file, a person is told as ever"


def marked(document: dict[str, Any]) -> dict[str, Any]:
    """Return what a file holds of a document: the remark by which the next run knows it, first."""
    return {"remark": MARK, **document}


def test_an_error_is_a_document_too(call: Call, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    done = call("verify", "nowhere.ev", "--json", "--json-file", kept, code=2)
    assert json.loads(kept.read_text()) == marked(done.json)
    assert done.json["error"]["type"] == "BundleFormatError"
    nowhere = tmp_path / "nowhere" / "kept.json"
    done = call("targets", "--json", "--json-file", nowhere, code=2)
    assert done.json["error"]["type"] == "FileWriteError"
    assert "--json-file: could not write" in done.err


def test_what_a_users_module_prints_is_not_in_the_document(call: Call, project: Path) -> None:
    (project / "loud.py").write_text("from nets import net\nprint('loading the weights')\n")
    arguments = ["--size", "32x48", "--classes", "classes.txt", "--out", "loud.ev"]
    done = call("build", "loud:net", *arguments, "--json")
    assert done.json["precision"] == "fp32"
    assert "loading the weights" in done.err


def test_the_package_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgevision", "inspect", "nowhere.ev"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nowhere.ev" in done.stderr

"""What a stranger's text becomes before it reaches a terminal, a log, Markdown or a shell."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.bundle.printable import UNPRINTABLE, markdown, printable, printable_lines
from edgevision.bundle.record import finish_command
from edgevision.cli.terminal import escaping, progress_bar

STRANGE = "\x00\x07\x1b[2J\x7f\x9b\u061c\u200e\u202e\u2066\U000e0041\ud800"


def test_what_is_not_for_the_eye_is_written_as_an_escape() -> None:
    assert printable("caf\u00e9 \u6c34") == "caf\u00e9 \u6c34"
    assert printable("a\x1b[2J\nb\u202e") == r"a\x1b[2J\x0ab\u202e"
    assert printable(STRANGE).isascii()
    assert printable_lines("a\n\tb\x1b") == "a\n\tb\\x1b"
    assert markdown("a|b <i> `c`\n") == r"a\|b \<i\> \`c\`\\x0a"


@given(st.text())
def test_nothing_unprintable_is_left(text: str) -> None:
    assert not UNPRINTABLE.search(printable(text))
    assert "\x1b" not in printable_lines(text)
    assert "|" not in markdown(text).replace(r"\|", "")


def test_the_command_line_escapes_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    with escaping():
        print("out\x1b[2J\nnext")
        print("err\x9b", file=sys.stderr)
    captured = capsys.readouterr()
    assert captured.out == "out\\x1b[2J\nnext\n"
    assert captured.err == "err\\x9b\n"


def test_a_bar_is_drawn_and_its_phase_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with escaping(), progress_bar() as progress:
        progress("stage\x1b]0;title\x07", 1, 2)
    assert terminal.getvalue().startswith("\r\x1b[Kstage\\x1b]0;title\\x07")


@pytest.mark.parametrize(
    ("bundle", "target", "found"),
    [
        ("road.ev", "local", ["road.ev", "--target", "local"]),
        ("a b.ev", "our-board", ["a b.ev", "--target", "our-board.toml"]),
        ("$(touch MARK).ev", "local", ["$(touch MARK).ev", "--target", "local"]),
        ("road.ev", "local; touch MARK;", ["road.ev", "--target", "TARGET"]),
        ("road\u202e.ev", "local", ["PATH", "--target", "local"]),
    ],
)
def test_a_command_to_copy_does_what_it_seems_to(
    bundle: str, target: str, found: list[str]
) -> None:
    assert shlex.split(finish_command(bundle, target)) == ["edgevision", "finish", *found]


def test_the_engines_folder_is_named_where_it_is_another() -> None:
    command = finish_command(Path("road.ev"), "local", Path("my engines"))
    assert command.endswith("--target local --engines 'my engines'")

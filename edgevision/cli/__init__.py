"""The command line: finds the verb, runs it, and ends with the exit code of what happened."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial

from edgevision.cli import (
    bench,
    build,
    cache,
    check,
    compare_layers,
    completion,
    finish,
    inspect,
    machine,
    run,
    score,
    sign,
    triton,
)
from edgevision.cli.exits import INTERRUPTED, KNOWN, READER_GONE, exit_code
from edgevision.cli.terminal import check_json_file, deliver_json, escaping
from edgevision.cli.verbs import VerbAction
from edgevision.cli.watched import watched
from edgevision.errors import BuildError, FileWriteError, InsufficientMemoryError, RunError

_EPILOG = """\
example: edgevision build unet-camvid --precision int8 --calibration frames/ --out road.ev
         edgevision run road.ev frames/ --out overlays/

Exit codes: 0 done, 1 the answer is no, 2 wrong use, 3 something is missing here,
4 pending on the target. `edgevision VERB --help` says more and has an example."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = parser().parse_args(arguments)
    # A person wants the message, not the line of ours that gave it.
    warnings.formatwarning = lambda message, *_: f"edgevision: warning: {message}\n"
    with escaping():
        # A caller that gives arguments may have threads, and such a process is not copied.
        return _watched(options) if options.is_watched and arguments is None else _run(options)


def _watched(options: argparse.Namespace) -> int:
    try:
        return watched(partial(_run, options), debug=options.debug)
    except (InsufficientMemoryError, RunError) as error:
        if options.debug:
            raise
        return _fail(error, options)


def _run(options: argparse.Namespace) -> int:
    # Whatever a user's own module prints is not the document.
    quiet = contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext()
    try:
        handler: Callable[[argparse.Namespace], int] = options.handler
        check_json_file(options)
        with quiet:
            code = handler(options)
        deliver_json(options)
    except BrokenPipeError:
        # Whoever read us has seen enough, as in `edgevision inspect B.ev | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except KNOWN as error:
        if options.debug:
            raise
        code = _fail(error, options)
        if code == INTERRUPTED:
            # torch and ONNX Runtime can crash in their own teardown when they were interrupted
            # while loading; everything of ours is closed by now.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return code


def _fail(error: BaseException, options: argparse.Namespace) -> int:
    code = exit_code(error)
    message = (
        "interrupted; what was not finished is as it was before"
        if code == INTERRUPTED
        else str(error) or "there is not enough memory for it"
    )
    print(f"edgevision: {message}", file=sys.stderr)
    if isinstance(error, BuildError) and error.log:
        print("\n".join(error.log.strip().splitlines()[-20:]), file=sys.stderr)
    kind = type(error).__name__
    options.document = {"error": {"type": kind, "message": message}, "exit_code": code}
    if code == INTERRUPTED:  # what an earlier run left there is not lost to a Ctrl-C
        options.json_file = None
    try:
        deliver_json(options)
    except FileWriteError:
        options.json_file = None
        deliver_json(options)
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    whole = argparse.ArgumentParser(
        prog="edgevision",
        description="Take trained PyTorch vision models to embedded NVIDIA GPUs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = whole.add_subparsers(required=True, metavar="VERB", action=VerbAction)
    for group in (
        build,
        finish,
        check,
        compare_layers,
        inspect,
        sign,
        run,
        score,
        triton,
        bench,
        cache,
        machine,
        completion,
    ):
        group.add_to(verbs)
    return whole

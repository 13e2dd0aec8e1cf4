"""Changed nets through the command line, as a shell sees it: python -m tests.fuzz.shell.

`--cases 2000` took 40 minutes of one core.
Case N is that of `python -m tests.fuzz --kind nets --first N --cases 1`. Each command is the whole
command line in a copy of this process, which has imported what it needs: `build` in INT8, then
`check` of the file, and of what was built `verify`, `check` and `run`. A fault is a signal, a
traceback, an exit code that no page names, a refusal without a word, or a wrong answer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgevision.bundle.directory import Bundle
from edgevision.cli import main as command_line
from edgevision.export.adapters.tensors import Tensors
from edgevision.export.samples import golden_samples
from tests.fuzz import graphs

CODES = range(5)
_LIMIT_S = 300


def main() -> int:
    """Run the cases; 1 where one is a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    faults = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ |= {"EDGEVISION_STATE": f"{folder}/state", "EDGEVISION_CACHE": f"{folder}/kept"}
        (folder / "whole").mkdir()
        whole = [path.relative_to(folder / "whole") for path in graphs.make(folder / "whole")]
        contents = {path: (folder / "whole" / path).read_bytes() for path in whole}
        for number in range(options.first, options.first + options.cases):
            rng = random.Random(f"nets {number}")
            path = rng.choice(whole)
            changed = graphs.change(contents[path], rng.choice(list(contents.values())), rng)
            work = folder / "work"
            work.mkdir()
            (work / "net.onnx").write_bytes(changed)
            for verb, end, why in tried(work):
                counts[f"{verb}: {end}"] += 1
                if end == "FAULT":
                    faults.append(f"{number} {verb}: {why}")
                    print(faults[-1], file=sys.stderr, flush=True)
            shutil.rmtree(work)
            if number % 100 == 99:
                print(f"{number + 1}: {dict(counts)}", file=sys.stderr, flush=True)
    print(json.dumps({"counts": dict(sorted(counts.items())), "faults": faults}, indent=1))
    return int(bool(faults))


def tried(work: Path) -> list[tuple[str, str, str]]:
    """Return of each verb what came of it."""
    in_copy(lambda: drawn(work), work)
    build = ["build", "net.onnx", "--precision", "int8", "--out", "net.ev"]
    build += ["--target", "host-cpu", "--target", "jetson-orin-jp6"]
    if any(work.glob("typical/*.npz")):
        build += ["--calibration", "typical"]
    target = ["--target", "jetson-orin-jp6"]
    done = [command(work, *build), command(work, "check", "net.onnx", *target)]
    if (work / "net.ev").exists():
        done += [command(work, "verify", "net.ev"), command(work, "check", "net.ev", *target)]
        done.append(command(work, "run", "net.ev", "net.onnx"))
        code, said = in_copy(
            lambda: graphs.hold(work / "net.onnx", Bundle.open(work / "net.ev")), work
        )
        done.append(("answers", "FAULT" if code else "right", said[-800:]))
    return done


def drawn(work: Path) -> int:
    """Write feeds that fit the file, as a person has them."""
    samples, _ = golden_samples(Tensors(work / "net.onnx"), None, None)
    (work / "typical").mkdir()
    for i, feeds in enumerate(samples):
        np.savez(work / "typical" / f"{i}.npz", **feeds)
    return 0


def command(work: Path, *arguments: str) -> tuple[str, str, str]:
    """Run one command, and judge what a shell saw of it."""

    def run() -> int:
        sys.argv = ["edgevision", *arguments]
        return command_line()

    code, said = in_copy(run, work)
    is_fault = code not in CODES or "Traceback" in said or bool(code and not said.strip())
    end = "FAULT" if is_fault else {0: "done", 1: "no"}.get(code, "refused")
    return arguments[0], end, f"exit code {code}: {said[-800:]}"


def in_copy(run: Callable[[], int | None], work: Path) -> tuple[int, str]:
    """Return the exit code of a copy of this process that does it, and what it said."""
    log = work / "said.txt"
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        code = 98
        try:
            with log.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.chdir(work)
            signal_after()
            code = run() or 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), log.read_text("utf-8", errors="replace")


def signal_after() -> None:
    """End this process if it hangs."""
    import signal

    signal.alarm(_LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())

"""Changes files as a stranger would, and reads them: python -m tests.fuzz --cases 30000.

Case N of a kind is the same on every machine. Cases run in processes of their own: one that dies,
waits for ever or takes more than 1 GB is found, and named so that it can be run alone:
python -m tests.fuzz --kind coco --first N --cases 1 --keep FOLDER.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import re
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgevision.errors import EdgeVisionError, MissingDependencyError

ROOT = Path(__file__).parents[2]
BATCH = 200
MAX_MB = 1024
# A hang, not a speed: a case takes a few milliseconds.
PATIENCE_S = 120.0
_NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63), 10**40, 1e308, float("nan"), float("inf"))
_VALUES: tuple[Any, ...] = (
    *_NUMBERS, None, True, "", "..", "/etc/passwd", "\0", "\x1b[2J", "\u202e", "x" * 400, [], {},
    [[]], {"": {}}, [0, 2**62, 2**62], [1.5] * 50,
)  # fmt: skip


def main() -> int:
    """Run the cases, or with `--here` those of one kind in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=420)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", action="append")
    parser.add_argument("--keep", type=Path, help="where one case's file is left")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        run_here(options.kind, options.first, options.cases, options.keep)
        return 0
    found, faults = run(options.kind, options.first, options.cases, options.keep)
    print(json.dumps(found, indent=1))
    print("\n".join(faults) or "no faults")
    return int(bool(faults))


def run(
    kinds: list[str] | None, first: int, cases: int, keep: Path | None = None
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Run `cases` in all, shared among the kinds; return each kind's counts, and every fault."""
    kinds = kinds or known_kinds()
    share = -(-cases // len(kinds))
    counts: dict[str, dict[str, float]] = {}
    faults: list[str] = []
    # Few cases of each kind are not worth a process for each.
    groups = [kinds] if cases < BATCH * len(kinds) else [[kind] for kind in kinds]
    for group in groups:
        number, end = first, first + share
        while number < end:
            last = number
            for case in _batch(group, number, min(BATCH, end - number), keep):
                last = case["case"] + 1
                of_kind = counts.setdefault(case["kind"], {"most_mb": 0.0})
                of_kind[case["end"]] = of_kind.get(case["end"], 0) + 1
                of_kind["most_mb"] = max(of_kind["most_mb"], round(case["mb"]))
                if case["end"] not in ("read", "refused"):
                    faults.append(f"{case['kind']} {case['case']}: {case['end']}: {case['why']}")
            number = max(last, number + 1)
    return counts, faults


def known_kinds() -> list[str]:
    """Return the names of the kinds, whose readers (and torch) are imported where cases run."""
    source = Path(__file__).with_name("kinds.py").read_text()
    return re.findall(r'^    "([a-z ]+)": Kind\(', source, re.MULTILINE)


def _batch(kinds: list[str], first: int, count: int, keep: Path | None) -> Iterator[dict[str, Any]]:
    """Give what each case came to, until all are through or the process is gone."""
    command = [sys.executable, "-m", "tests.fuzz", "--here"]
    command += [word for kind in kinds for word in ("--kind", kind)]
    command += ["--first", str(first), "--cases", str(count)]
    command += ["--keep", str(keep)] if keep else []
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log) as child,
        selectors.DefaultSelector() as ears,
    ):
        assert child.stdout is not None
        ears.register(child.stdout, selectors.EVENT_READ)
        done, rest, end = 0, b"", ""
        while True:
            if not ears.select(PATIENCE_S):
                end = "hang"
                child.kill()
                break
            if not (data := os.read(child.stdout.fileno(), 1 << 16)):
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                done += 1
                yield json.loads(line)
        code = child.wait()
        if done < count * len(kinds):
            log.seek(0)
            yield {
                "kind": kinds[done // count],
                "case": first + done % count,
                "end": end or f"crash {code}",
                "why": log.read()[-1500:].decode(errors="replace"),
                "mb": 0.0,
            }


def _most_mb() -> float:
    """Return the most memory that this process had; `ru_maxrss` counts its parent's, too."""
    (line,) = re.findall(
        r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    return int(line) / 1024


def run_here(kinds: list[str], first: int, count: int, keep: Path | None) -> None:
    """Run cases of each kind, telling a line of JSON of each."""
    # What is told goes to the parent alone; libraries may print what they like.
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    limit_bytes = 4 * MAX_MB << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    for kind in kinds:
        with tempfile.TemporaryDirectory() as name:
            for case in _cases(kind, range(first, first + count), Path(name), keep):
                print(json.dumps({"kind": kind, **case}), file=told)
                if case["end"] == "memory":  # of which a process gives nothing back
                    return


def _cases(kind: str, numbers: range, folder: Path, keep: Path | None) -> Iterator[dict[str, Any]]:
    from tests.fuzz.kinds import KINDS

    chosen = KINDS[kind]
    os.environ["EDGEVISION_STATE"] = str(folder / "state")
    os.environ["EDGEVISION_CACHE"] = str(folder / "kept")
    (folder / "sound").mkdir()
    sound = [path.relative_to(folder / "sound") for path in chosen.make(folder / "sound")]
    contents = {path: (folder / "sound" / path).read_bytes() for path in sound}
    work = folder / "work"
    for number in numbers:
        rng = random.Random(f"{kind} {number}")
        path = rng.choice(sound)
        shutil.copytree(folder / "sound", work)
        changed = (chosen.change or change)(
            contents[path], rng.choice(list(contents.values())), rng
        )
        (work / path).write_bytes(changed)
        if keep is not None:
            keep.mkdir(exist_ok=True)
            (keep / path.name).write_bytes(changed)
        end, why = "read", ""
        try:
            chosen.read(work / path)
        except MissingDependencyError:
            raise
        except (EdgeVisionError, *chosen.refused):
            end = "refused"
        except BaseException:
            end, why = "traceback", traceback.format_exc()[-1500:]
        mb = _most_mb()
        if mb > MAX_MB and end in ("read", "refused"):
            end, why = "memory", f"{mb:.0f} MB"
        yield {"case": number, "end": end, "why": why, "mb": mb}
        shutil.rmtree(work)


def change(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return bytes unlike `content`, as its form allows or as no form does."""
    if rng.random() < 0.5:
        try:
            value = json.loads(content)
        except ValueError:
            pass
        else:
            for _ in range(rng.choice((1, 1, 2, 5))):
                value = _changed_value(value, rng)
            return json.dumps(value).encode()
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 40))):
        at = rng.randrange(len(made) + 1)
        match rng.randrange(8):
            case 0 if made:
                made[at % len(made)] ^= 1 << rng.randrange(8)
            case 1:
                made[at:at] = rng.randbytes(rng.choice((1, 4, 300)))
            case 2:
                del made[at : at + rng.choice((1, 4, 64))]
            case 3:
                made[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"))
            case 4:
                made[at : at + 64] = other[at : at + 64]
            case 5:
                made[at:at] = rng.choice((b"9" * 30, b"\0", b"\x1b[2J", b"[" * 3000, b"\n", b"-"))
            case 6:
                del made[at:]
            case _ if made:
                made[at % len(made)] = rng.choice(b'0123456789{}[]",:.eE-')
    return bytes(made)


def _changed_value(value: Any, rng: random.Random) -> Any:
    """Return a JSON value with one of its parts replaced, left out, repeated or renamed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return copy.deepcopy(rng.choice(_VALUES))
    key: Any = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    inner = value[key]
    if isinstance(inner, dict | list) and inner and rng.random() < 0.7:
        value[key] = _changed_value(inner, rng)
    elif (how := rng.random()) < 0.15:
        del value[key]
    elif how < 0.3 and isinstance(value, list):
        value += [inner] * rng.choice((1, 1000))
    elif how < 0.3:
        value[str(rng.choice(_VALUES))[:40]] = value.pop(key)
    elif isinstance(inner, int | float) and how < 0.7:
        value[key] = rng.choice(_NUMBERS)
    else:
        value[key] = copy.deepcopy(rng.choice(_VALUES))
    return value


if __name__ == "__main__":
    sys.exit(main())

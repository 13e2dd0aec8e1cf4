"""Fails when a form of the model lost more of its task's headline figure than is allowed.

python3 accuracy_gate.py REPORT.json PRECISION [MAX_LOSS]

Which figure that is, whether more of it is better and how much may be lost, the report of
`edgevision build --evaluate DIR --json` says itself; MAX_LOSS stands in for the allowed loss.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(report: str, precision: str, max_loss: str = "") -> int:
    """Compare the form of `precision` with PyTorch; return the exit code."""
    fields = json.loads(Path(report).read_text("utf-8"))
    figures = {row["form"]: row["figures"] for row in fields["accuracy"]}
    if not figures:
        print(f"{report}: not scored. Give EVALUATE=DIR for an accuracy gate")
        return 0
    headline = fields["headline"]
    name, allowed = headline["name"], float(max_loss or headline["max_loss"])
    before, after = (figures[form].get(name) for form in ("torch", precision))
    if before is None or after is None:
        print(f"{report}: {name} is undefined: give EVALUATE=DIR with labels")
        return 2
    lost = before - after if headline["is_higher_better"] else after - before
    print(
        f"{name}: torch {before:.4f}, {precision} {after:.4f}; "
        f"{'within' if lost <= allowed else 'MORE THAN'} the allowed loss of {allowed:g}"
    )
    return int(lost > allowed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

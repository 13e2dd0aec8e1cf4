"""Fails when a form of the model lost more of the task's metric than was allowed.

python3 accuracy_gate.py REPORT.json PRECISION MOST_LOSS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

# The first of these that a report has is the task's metric: mIoU, mask AP, caption scores.
METRICS = ("miou", "mask_ap", "cider")


def main(report: str, precision: str, most_loss: str) -> int:
    """Compare the form of `precision` with PyTorch; return the exit code."""
    rows = json.loads(Path(report).read_text("utf-8"))["accuracy"]
    # A captioner's figures lie one level down.
    forms = {row["form"]: {**row, **row.get("scores", {})} for row in rows}
    if not forms:
        print(f"{report}: not scored. Give EVALUATE=DIR for an accuracy gate")
        return 0
    metric = next((name for name in METRICS if forms["torch"].get(name) is not None), None)
    if metric is None:
        print(f"{report}: none of {', '.join(METRICS)} in {sorted(forms['torch'])}")
        return 2
    before, after = forms["torch"][metric], forms[precision][metric]
    holds = before - after <= float(most_loss)
    print(
        f"{metric}: torch {before:.4f}, {precision} {after:.4f}; "
        f"{'within' if holds else 'MORE THAN'} the allowed loss of {most_loss}"
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Prints, for each pending artifact of a build report, the command that finishes it.

python3 finishing_command.py REPORT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

for row in json.loads(Path(sys.argv[1]).read_text("utf-8"))["artifacts"]:
    if row["state"] == "pending":
        print(f"pending for '{row['target']}'. Finish it there: {row['command']}")

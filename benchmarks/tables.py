"""Writes the tables of benchmarks/README.md from the recorded results beside it.

python -m benchmarks.tables [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgevision.bundle.flavours import flavours
from edgevision.bundle.forms import PRECISIONS, forms_of

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
_PLACE = re.compile(r"(<!-- ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def ratios(told: Mapping[str, Any]) -> list[str]:
    lines = ["| what | ratio | 99 % interval | bar | |", "|---|---|---|---|---|"]
    for row in told["rows"]:
        found, sign = row["found"], ">=" if row["at_least"] else "<="
        bar = "" if row["bar"] is None else f"{sign} {row['bar']:.2f}"
        lines.append(
            f"| {row['name']} | {found['value']:.2f} | {found['low']:.2f} to {found['high']:.2f} "
            f"| {bar} | {'' if row['passed'] else '**missed**'} |"
        )
    return lines


def rates(told: Mapping[str, Any]) -> list[str]:
    """Return images per second, from the median time of a call."""
    ways = list(told["rows"][0]["median_us"])
    lines = [f"| images a second | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
    for batch in dict.fromkeys(row["name"].split(",")[-1].strip() for row in told["rows"]):
        times = next(r for r in told["rows"] if r["name"].endswith(batch))["median_us"]
        count = int(batch.split()[-1])
        lines.append(f"| {batch} | {' | '.join(f'{count / times[w] * 1e6:,.0f}' for w in ways)} |")
    return [*lines, "", *ratios(told)]


def frames(told: Mapping[str, Any]) -> list[str]:
    """Return milliseconds a frame of each way, from the median time of a call."""
    ways = list(told["rows"][0]["median_us"])
    heads = [f"ms a frame, threads: {told['threads']}", *ways]
    lines = [f"INT8 instructions of this CPU: {told['int8_instructions']}.", ""]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for net in dict.fromkeys(row["name"].split(",")[-1].strip() for row in told["rows"]):
        times = next(r for r in told["rows"] if r["name"].endswith(net))["median_us"]
        lines.append(f"| {net} | {' | '.join(f'{times[way] / 1e3:.1f}' for way in ways)} |")
    return [*lines, "", *ratios(told)]


def realtime(told: Mapping[str, Any]) -> list[str]:
    names = list(told["reports"][0]["summary"]["percentiles_ms"])
    heads = ["camera", "load", "hogs", "inference", *names, "max", "jitter", "largest gap"]
    heads += ["frames", "dropped", "missed (in a row)", "over-age (worst)", "MB a minute"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for found in told["reports"]:
        case, summary = found["case"], found["summary"]
        cells = [f"{case['fps']} fps", f"{case['load']:.3g}", case["hogs"]]
        cells += [summary["stages_ms"]["compute"], *summary["percentiles_ms"].values()]
        cells += [summary[key] for key in ("max_ms", "jitter_ms", "max_gap_ms")]
        cells += [summary["frames"], summary["dropped"]]
        cells += [f"{summary['missed']} ({summary['longest_miss']})"]
        cells += [f"{found['over_age']} ({found['max_age_over_ms']:+.1f})"]
        cells += [f"{found['memory_mb_per_minute']:+.2f}"]
        lines.append(f"| {' | '.join(map(shown, cells))} |")
    return lines


def shown(cell: object) -> str:
    if cell is None:
        return "n too small"
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def captions(told: Mapping[str, Any]) -> list[str]:
    """Return captions a second, from the median time of a call, and the slowest hundredth."""
    ways = list(told["rows"][0]["median_us"])
    lines = [
        f"| captions a second (p99 in ms) | {' | '.join(ways)} |",
        "|---" * (len(ways) + 1) + "|",
    ]
    for title, p99 in told["p99_ms"].items():
        times = next(r for r in told["rows"] if r["name"].endswith(title))["median_us"]
        cells = [f"{1e6 / times[way]:,.0f} ({shown(p99[way])})" for way in ways]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return [*lines, "", *ratios(told)]


def gate(told: Mapping[str, Any]) -> list[str]:
    """Return what `bench compare` decided, and how long it took."""
    heads = [
        "model",
        "slowed by",
        "trials",
        "verdicts",
        "decided so",
        "bar",
        "a decision, s (most)",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in told["rows"]:
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in row["verdicts"].items())
        sign, seconds = "<=" if row["slowed_by"] == 0 else ">=", row["decision_s"]
        cells = [f"{row['model_ms']} ms", f"{row['slowed_by']:.0%}", row["trials"], verdicts]
        cells += [f"{row['share']:.0%}", f"{sign} {row['bar']:.0%}"]
        cells += [f"{seconds['median']:.1f} ({seconds['max']:.1f})"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def cold_start(told: Mapping[str, Any]) -> list[str]:
    """Return the parts of a start, in ms, and how the ways compare."""
    parts = next(iter(told["parts"].values()))
    names = list(next(iter(parts.values())))
    heads = ["net", "way", *(name.removesuffix("_ms").replace("_", " ") for name in names)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for net, ways in told["parts"].items():
        for way, found in ways.items():
            cells = ["never" if found[name] is None else f"{found[name]:.0f}" for name in names]
            lines.append(f"| {net} | {way} | {' | '.join(cells)} |")
    return [*lines, "", *ratios(told)]


def build_time(told: Mapping[str, Any]) -> list[str]:
    """Return the seconds of each part of a build, and the sizes of what it made."""
    first = told["rows"][0]
    parts, engines = list(first["first_s"]["parts"]), list(first["first_s"]["engines"])
    heads = ["seconds", "frames", *parts, *engines, "whole", "engines again"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in told["rows"]:
        made, again_s = row["first_s"], row["again_s"]
        times = [*(made["parts"][part] for part in parts), *(made["engines"][e] for e in engines)]
        cells = [f"{seconds:.1f}" for seconds in (*times, made["whole"])]
        cells.append("" if again_s is None else f"{again_s:.1f}")
        lines.append(f"| {row['net']} | {row['calibrated_on']} | {' | '.join(cells)} |")
    names = list(first["bytes"])
    lines += ["", f"| MB | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row in told["rows"]:
        cells = [megabytes(row["bytes"][name]) for name in names]
        lines.append(f"| {row['net']} | {' | '.join(cells)} |")
    return lines


def quantize_time(told: Mapping[str, Any]) -> list[str]:
    """Return the processor time from the FP32 graph to the INT8 one, and the ratio to the last."""
    seconds = {way: sorted(rounds)[len(rounds) // 2] for way, rounds in told["seconds"].items()}
    against = list(seconds.values())[-1]
    lines = [f"| {told['net']}, {told['frames']} frames | seconds | ratio |", "|---|---|---|"]
    lines += [f"| {way} | {s:.1f} | {s / against:.2f} |" for way, s in seconds.items()]
    return lines


def recovery(told: Mapping[str, Any]) -> list[str]:
    """Return a table for each net: what INT8 of every layer keeps, by each way to win it back."""
    lines: list[str] = []
    for row in told["rows"]:
        figures, facts = row["figures"], row["facts"]
        names = [name for name, value in next(iter(figures.values())).items() if value is not None]
        heads = [row["net"], "INT8 layers", "worst layer, dB", "CPU s", *names]
        lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for way, found in figures.items():
            fact = facts.get(way)
            cells = [way, "", "", ""]
            if fact:
                cells[1:] = [f"{fact['int8']} of {fact['layers']}", f"{fact['worst_db']:.1f}",
                             f"{fact['seconds']:.0f}"]  # fmt: skip
            cells += [f"{found[name]:.4f}" for name in names]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines[:-1]


def precision(told: Mapping[str, Any]) -> list[str]:
    """Return a table for each net: its forms, their sizes and their figures."""
    lines: list[str] = []
    for net in dict.fromkeys(row["net"] for row in told["rows"]):
        rows = [row for row in told["rows"] if row["net"] == net]
        names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
        heads = [f"{net}: {rows[0]['data']}", "graph, MB", "RTX engine, MB", *names]
        lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row in rows:
            size, found = row["bytes"], row["figures"]
            cells = [FORMS[row["form"]], megabytes(size["graph"]), megabytes(size.get("engine"))]
            cells += [f"{found[name]:.4f}" if name in found else "" for name in names]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines[:-1]


def suite(told: Mapping[str, Any]) -> list[str]:
    """Return what became of each script of a suite."""
    lines = ["| run | seconds | budget | outcome |", "|---|---|---|---|"]
    for row in told["rows"]:
        entry = row["entry"]
        what = " ".join((entry["script"], *entry["arguments"]))
        cells = [what, f"{row['seconds']:.0f}", f"{entry['budget_s']}", row["outcome"]]
        lines.append(f"| {' | '.join(cells)} |")
    whole_s = sum(row["seconds"] for row in told["rows"])
    budget_s = sum(row["entry"]["budget_s"] for row in told["rows"])
    return [*lines, f"| all | {whole_s:.0f} | {budget_s} | |"]


def megabytes(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 1e6:.1f}"


FORMS = {form.name: form.title for form in forms_of(PRECISIONS[-1])}

TABLES: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "overhead": ratios,
    "segmentation": ratios,
    "gan": rates,
    "flavours": frames,
    "captioner": captions,
    "realtime": realtime,
    "gate": gate,
    "cold_start": cold_start,
    "build_time": build_time,
    "quantize_time": quantize_time,
    "recovery": recovery,
    "precision": precision,
    "suite": suite,
}
"""By a result's name up to its hyphen: what follows says which of several runs it is."""


def filled(page: str) -> str:
    """Return the page with each table made again."""

    def table(place: re.Match[str]) -> str:
        name = place[2]
        recorded = HERE / "results" / f"{name}.json"
        if not recorded.exists():
            return f"{place[1]}Not recorded.\n{place[3]}"
        told = json.loads(recorded.read_text())
        where = told["environment"]
        machine = (
            f"{where['date']}, {where['cores']} cores of {where['processor']}, Python "
            f"{where['python']}, numpy {where['numpy']}"
        )
        for flavour in flavours():
            version = where.get(flavour.modules[0], "not installed")
            if version != "not installed":
                machine += f", {flavour.title} {version}"
        if "others" in where:
            machine += f", other programs on {where['others']} of the cores"
        return "\n".join(
            [f"{place[1]}{machine}:", "", *TABLES[name.partition("-")[0]](told), place[3]]
        )

    return _PLACE.sub(table, page)


def write() -> None:
    """Write the page again."""
    PAGE.write_text(filled(PAGE.read_text()))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if it is stale")
    options = parser.parse_args()
    if options.check:
        page = PAGE.read_text()
        return int(page != filled(page))
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())

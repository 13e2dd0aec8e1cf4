"""What is told of a measurement: each fact once, for the terminal and for the page alike."""

from __future__ import annotations

from dataclasses import asdict
from typing import NamedTuple

from edgevision.bench.measure import Measurement, Settings
from edgevision.bench.reference import Row
from edgevision.bench.statistics import PERCENTILES, Summary, least_frames, name


class Fact(NamedTuple):
    """One row of the report."""

    label: str
    text: str


def facts(measurement: Measurement) -> list[Fact]:
    """Return everything but the pictures; equal labels for equal settings."""
    m = measurement
    payload = [Fact("task", f"{m.task}, {m.precision}"), Fact("scenario", scenario(m.settings))]
    warmed = "settled" if m.is_settled else "UNSETTLED: this machine is busy"
    payload.append(Fact("warm-up", f"{m.warm_up_runs} runs, {warmed}"))
    payload.append(Fact("measured", _extent(m)))
    payload += _latencies(m.summary, m.settings)
    payload += _resources(m)
    if m.settings.cold_starts:
        payload += _cold(m)
    if m.settings.reference:
        payload += [Fact(row.name, other_way(row)) for row in m.reference]
    changed = ", ".join(f"{key}: {value}" for key, value in m.changed.items())
    return [*payload, Fact("changed meanwhile", changed or "nothing")]


def lines(measurement: Measurement) -> list[str]:
    """Return it for a terminal."""
    payload = facts(measurement)
    width = max(len(fact.label) for fact in payload)
    ran = measurement.explanation.splitlines()[-1]
    return [f"{measurement.name}: {ran}", *(f"  {f.label:{width}}  {f.text}" for f in payload)]


def scenario(settings: Settings) -> str:
    """Return e.g. "paced, 30 fps"."""
    is_camera = settings.scenario in ("paced", "multi")
    return settings.scenario + (f", {settings.fps:g} fps" if is_camera else "")


def other_way(row: Row) -> str:
    """Return how long another way takes, or why it was not measured."""
    note = f" ({row.note})" if row.note else ""
    if row.ratio is None or row.median_us is None:
        alone = "" if row.median_us is None else f"{row.median_us / 1e3:.3f} ms; "
        return f"{alone}no ratio: {row.note}"
    return (
        f"{row.median_us / 1e3:.3f} ms, {row.ratio:.3f} of ours "
        f"[{row.low:.3f}, {row.high:.3f}]{note}"
    )


def _extent(m: Measurement) -> str:
    stopped = "; STOPPED before its time" if m.is_cut else ""
    if m.summary is None:
        return f"no answer{stopped}"
    return f"{m.summary.frames} frames, {m.summary.answered} answers{stopped}"


def _latencies(found: Summary | None, settings: Settings) -> list[Fact]:
    if found is None:
        return []
    payload = []
    for point in PERCENTILES:
        value = found.percentiles_ms[name(point)]
        short = f"n too small: {found.answered} answers, wants {least_frames(point)}"
        payload.append(Fact(name(point), short if value is None else _ms(value)))
    payload.append(Fact("max", f"{_ms(found.max_ms)} of {found.answered}"))
    payload.append(Fact("mean", _ms(found.mean_ms)))
    jitter = "n too small" if found.jitter_ms is None else _ms(found.jitter_ms)
    payload.append(Fact("jitter (p99 less p50)", jitter))
    payload.append(Fact("longest gap between answers", _ms(found.max_gap_ms)))
    payload.append(Fact("answers a second", f"{found.per_second:.1f}"))
    payload.append(Fact("dropped", f"{found.dropped} of {found.frames}"))
    late = (
        "no deadline"
        if found.missed is None or settings.due_by_ms is None
        else f"{found.missed} of {settings.due_by_ms:.1f} ms, {found.longest_miss} in a row"
    )
    payload.append(Fact("deadlines missed", late))
    stages = ", ".join(f"{stage} {ms:.3f}" for stage, ms in found.stages_ms.items())
    payload.append(Fact("stages, median ms", stages))
    return payload


def _resources(m: Measurement) -> list[Fact]:
    device = (
        f"none: it ran on {m.device}"
        if m.memory.device_mb is None
        else f"{m.memory.device_mb:.0f} MB in use by all programs"
    )
    per_frame = m.energy_per_frame_mj
    energy = m.energy.source if per_frame is None else f"{per_frame:.1f} mJ ({m.energy.source})"
    slots = f"{m.memory.slots_mb:.1f} MB of it in slots"
    return [
        Fact("memory, host", f"{m.memory.host_mb:.0f} MB at most, the whole process; {slots}"),
        Fact("memory, device", device),
        Fact("energy a frame", energy),
    ]


def _cold(m: Measurement) -> list[Fact]:
    if m.cold is None:
        return [Fact("cold start", "not measured: the run was stopped")]
    parts = {key: value for key, value in asdict(m.cold).items() if key.endswith("_ms")}
    steady, total = parts.pop("steady_ms"), parts.pop("total_ms")
    names = ", ".join(f"{key[:-3].replace('_', ' ')} {value:.0f}" for key, value in parts.items())
    never = "never within 3 s: this machine is busy"
    return [
        Fact("cold start", f"{total:.0f} ms to the first answer ({names})"),
        Fact("cold start to steady", never if steady is None else f"{steady:.0f} ms"),
    ]


def _ms(value: float) -> str:
    return f"{value:.3f} ms"

"""A comparison in words, as JSON, and as JUnit XML for a CI's list of tests."""

from __future__ import annotations

from dataclasses import asdict
from xml.etree import ElementTree

from edgevision.bench.compare import Comparison

_MEANING = {
    "same": "a slow-down of {gate:.1%} can be ruled out",
    "unclear": "the interval neither rules out a slow-down of {gate:.1%} nor shows one. Try again "
    "on a quieter machine",
    "slower": "it is slower",
    "faster": "it is faster",
    "too noisy": "the first side differs from its own twin by {noise:+.1%}: this machine is too "
    "busy for a verdict. Try again; nothing is wrong with the second side",
}


def sentence(found: Comparison) -> str:
    """Return the verdict as a sentence."""
    meaning = _MEANING[found.verdict].format(gate=found.gate, noise=found.control - 1)
    return f"{found.verdict}: {meaning}."


def as_markdown(found: Comparison, first: str, second: str) -> str:
    """Return a short table with the verdict below it."""
    return "\n".join(
        [
            f"| {second} over {first} | 95 % interval | control | rounds | {first}, median |",
            "|---|---|---|---|---|",
            f"| {found.ratio:.4f} | {found.low:.4f} to {found.high:.4f} | {found.control:.4f} "
            f"| {found.rounds} of {found.processes} processes | {found.first_us:.1f} us |",
            "",
            f"**{sentence(found)}**",
        ]
    )


def as_json(found: Comparison, first: str, second: str) -> dict[str, object]:
    """Return everything, and the sentence."""
    return {"first": first, "second": second, "says": sentence(found), **asdict(found)}


def as_junit(found: Comparison, first: str, second: str) -> str:
    """Return one test case, failed if slower, skipped if there is no verdict."""
    suite = ElementTree.Element("testsuite", name="edgevision bench compare", tests="1")
    case = ElementTree.SubElement(suite, "testcase", name=f"{second} over {first}")
    if found.verdict in ("slower", "unclear", "too noisy"):
        kind = "failure" if found.verdict == "slower" else "skipped"
        suite.set("failures" if kind == "failure" else "skipped", "1")
        ElementTree.SubElement(case, kind, message=sentence(found))
    ElementTree.SubElement(case, "system-out").text = as_markdown(found, first, second)
    return ElementTree.tostring(suite, "unicode", xml_declaration=True) + "\n"

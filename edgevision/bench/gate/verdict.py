"""A comparison in words, as JSON, and as JUnit XML for a CI's list of tests."""

from __future__ import annotations

from dataclasses import asdict
from xml.etree import ElementTree

from edgevision.bench.gate import counts
from edgevision.bench.gate.compare import Comparison
from edgevision.bench.gate.counts import Counted
from edgevision.bundle.printable import markdown, printable
from edgevision.tasks.outputs import MARK

_MEANING = {
    "same": "a slow-down of {gate:.1%} can be ruled out",
    "unclear": "the interval neither rules out a slow-down of {gate:.1%} nor shows one. Try again "
    "on a quieter machine",
    "slower": "it is slower",
    "faster": "it is faster",
    "too noisy": "the first side differs from its A/A control by {noise:+.1%}: this machine is too "
    "busy for a verdict. Try again; nothing is wrong with the second side",
}


def sentence(found: Comparison) -> str:
    """Return the verdict as a sentence."""
    meaning = _MEANING[found.verdict].format(gate=found.gate, noise=found.control - 1)
    return f"{found.verdict}: {meaning}."


def as_markdown(found: Comparison, counted: Counted, first: str, second: str) -> str:
    """Return a short table with the verdicts below it."""
    first, second = markdown(first), markdown(second)
    return "\n".join(
        [
            f"| {second} over {first} | 99 % interval | control | rounds | {first}, median |",
            "|---|---|---|---|---|",
            f"| {found.ratio:.4f} | {found.low:.4f} to {found.high:.4f} | {found.control:.4f} "
            f"| {found.rounds} of {found.processes} processes | {found.first_us:.1f} us |",
            "",
            f"**{sentence(found)}** {counts.sentence(counted)}",
        ]
    )


def as_json(found: Comparison, counted: Counted, first: str, second: str) -> dict[str, object]:
    """Return everything, and the sentence."""
    payload = {"first": first, "second": second, "says": sentence(found), **asdict(found)}
    return {**payload, "counts": {**asdict(counted), "says": counts.sentence(counted)}}


def as_junit(found: Comparison, counted: Counted, first: str, second: str) -> str:
    """Return two test cases: time, failed if slower, skipped without a verdict; and counts."""
    suite = ElementTree.Element("testsuite", name="edgevision bench compare", tests="2")
    title = f"{printable(second)} over {printable(first)}"
    timed = ElementTree.SubElement(suite, "testcase", name=f"{title}: time")
    ElementTree.SubElement(suite, "testcase", name=f"{title}: counts")
    marks = []
    if found.verdict in ("slower", "unclear", "too noisy"):
        marks.append((timed, "failure" if found.verdict == "slower" else "skipped"))
        ElementTree.SubElement(timed, marks[0][1], message=sentence(found))
    if counted.grown:
        marks.append((suite[1], "failure"))
        ElementTree.SubElement(suite[1], "failure", message=counts.sentence(counted))
    for kind, attribute in (("failure", "failures"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(mark == kind for _, mark in marks)))
    ElementTree.SubElement(timed, "system-out").text = as_markdown(found, counted, first, second)
    suite.append(ElementTree.Comment(f" {MARK} "))
    return ElementTree.tostring(suite, "unicode", xml_declaration=True) + "\n"

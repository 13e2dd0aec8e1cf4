"""A comparison in words, as JSON, and as JUnit XML for a CI's list of tests.

What is said: the times, the counts per frame and, where data was given, the headline figure.
"""

from __future__ import annotations

from dataclasses import asdict
from xml.etree import ElementTree

from edgevision.bench.gate import counts
from edgevision.bench.gate.compare import Comparison
from edgevision.bench.gate.counts import Counted
from edgevision.bundle.printable import markdown, printable
from edgevision.metrics.metric import Verdict
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


def as_markdown(
    found: Comparison, counted: Counted, first: str, second: str, accuracy: Verdict | None = None
) -> str:
    """Return a short table with the verdicts below it."""
    first, second = markdown(first), markdown(second)
    sentences = [f"**{sentence(found)}**", counts.sentence(counted)]
    if accuracy is not None:
        sentences.append(f"{'Accuracy' if accuracy.passed else 'Accuracy LOST'}: {accuracy.text}.")
    return "\n".join(
        [
            f"| {second} over {first} | 99 % interval | control | rounds | {first}, median |",
            "|---|---|---|---|---|",
            f"| {found.ratio:.4f} | {found.low:.4f} to {found.high:.4f} | {found.control:.4f} "
            f"| {found.rounds} of {found.processes} processes | {found.first_us:.1f} us |",
            "",
            " ".join(sentences),
        ]
    )


def as_json(
    found: Comparison, counted: Counted, first: str, second: str, accuracy: Verdict | None = None
) -> dict[str, object]:
    """Return everything, and the sentence."""
    return {
        "first": first,
        "second": second,
        "says": sentence(found),
        **asdict(found),
        "counts": {**asdict(counted), "says": counts.sentence(counted)},
        "accuracy": accuracy and asdict(accuracy),
    }


def as_junit(
    found: Comparison, counted: Counted, first: str, second: str, accuracy: Verdict | None = None
) -> str:
    """Return a test case each: time (skipped without a verdict), counts and, if asked, accuracy."""
    title = f"{printable(second)} over {printable(first)}"
    time_mark = {"slower": "failure", "unclear": "skipped", "too noisy": "skipped"}
    cases = [
        ("time", time_mark.get(found.verdict, ""), sentence(found)),
        ("counts", "failure" if counted.grown else "", counts.sentence(counted)),
    ]
    if accuracy is not None:
        cases.append(("accuracy", "" if accuracy.passed else "failure", accuracy.text))
    suite = ElementTree.Element("testsuite", name="edgevision bench compare", tests=str(len(cases)))
    for name, mark, message in cases:
        case = ElementTree.SubElement(suite, "testcase", name=f"{title}: {name}")
        if mark:
            ElementTree.SubElement(case, mark, message=message)
    for kind, attribute in (("failure", "failures"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(mark == kind for _, mark, _ in cases)))
    said = as_markdown(found, counted, first, second, accuracy)
    ElementTree.SubElement(suite[0], "system-out").text = said
    suite.append(ElementTree.Comment(f" {MARK} "))
    return ElementTree.tostring(suite, "unicode", xml_declaration=True) + "\n"

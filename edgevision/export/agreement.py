"""Forms that miss a fixed bar of parity: broken ones are refused, of the others the budget decides.

A bar is against broken graphs and no measure of accuracy: a class map with 3 % of other pixels may
keep its mIoU. So an FP16 or INT8 graph that misses one is told of; where frames are labelled the
task's own figure decides, and engines are then held against what the graph itself reached.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from edgevision.bundle.forms import FP32, Form
from edgevision.bundle.parity import ParityReport, Tolerance
from edgevision.bundle.tensors import Array
from edgevision.errors import ParityError
from edgevision.metrics.metric import Score, judge
from edgevision.tasks.proof import Proof
from edgevision.tasks.task import Headline

_MAX_SHARE = 0.5
_MIN_SHARE = 1e-3

Bars = Mapping[str, Tolerance]


def hold(
    proof: Proof,
    form: Form,
    golden: Mapping[str, Array],
    answers: Mapping[str, Array],
    bars: Bars,
    *,
    is_strict: bool,
    advice: str,
) -> tuple[list[ParityReport], Bars]:
    """Hold a form's answers against the model's; return the reports, and the bars for engines.

    Those are wider where the form misses its own: what the graph itself needs, and as much again as
    any engine is allowed. FP32 has no reason to miss a bar, and is never let through.

    Args:
        proof: how outputs are compared.
        form: of the graph.
        golden: the model's answers, samples first.
        answers: the graph's.
        bars: how far they may be apart.
        is_strict: refuse whatever misses a bar.
        advice: what to do, for the error.

    Raises:
        ParityError: a bar is missed, and it is FP32's, or the answers are unrelated, or all bars
            are strict.
    """
    reports = proof.compare(golden, answers, bars, name=form.name)
    missed = [report for report in reports if not report.passed]
    if not missed:
        return reports, bars
    reason = next((r.unrelated_reason for r in missed if r.unrelated_reason), "")
    wider = None if form is FP32 or is_strict or reason else _wider(proof, golden, answers, bars)
    if wider is None:
        because = f": {reason}" if reason and form is not FP32 else ""
        raise ParityError(
            f"the {form} graph does not do what the model does: {missed[0]}{because}. {advice}",
            report=missed[0],
        )
    return reports, wider


def settle(
    parity: Sequence[ParityReport],
    forms: Sequence[Form],
    scores: Sequence[Score],
    headline: Headline | None,
    *,
    max_loss: float | None = None,
    shipped: str,
) -> dict[str, str]:
    """Warn of the forms that missed a bar, or refuse them where the task's figure says so.

    Args:
        parity: every form's reports.
        forms: those that were made.
        scores: PyTorch's first; empty where nothing was evaluated.
        headline: the task's.
        max_loss: allowed in place of the headline's own.
        shipped: the precision that the bundle is of.

    Returns:
        What is said of each form that missed a bar, by its name.

    Raises:
        ParityError: a form that is shipped missed a bar, and lost more than the budget.
    """
    said = {}
    for form in forms:
        missed = [r for r in parity if not r.passed and r.name.startswith(f"{form.name}/")]
        if not missed:
            continue
        text = f"the {form} graph misses a bar: {missed[0]}"
        after = next((score for score in scores if score.form == form.name), None)
        verdict = None
        if headline is not None and after is not None and _is_known(headline, scores[0], after):
            verdict = judge(headline, scores[0], after, max_loss=max_loss)
        if verdict is None:
            advice = (
                "No labelled frames say what that costs: give --evaluate DIR. --strict refuses it"
            )
        elif verdict.passed:
            advice = f"It is kept, for {verdict.text}"
        elif form.precision == shipped:
            raise ParityError(
                f"{text}. {verdict.text}. Give a budget, which looks for the layers that must stay "
                "wide: --budget LOSS",
                report=missed[0],
            )
        else:
            advice = verdict.text
        said[form.name] = f"{text}. {advice}"
        warnings.warn(said[form.name], UserWarning, stacklevel=3)
    return said


def _is_known(headline: Headline, before: Score, after: Score) -> bool:
    """Whether both figures are defined: frames without labels leave them open."""
    figures = [score.figures().get(headline.name) for score in (before, after)]
    return all(figure is not None and figure == figure for figure in figures)


def widest(bars: Sequence[Bars]) -> dict[str, Tolerance]:
    """Return for each output the wider one of several forms' bars."""
    found = dict(bars[0])
    for more in bars[1:]:
        for name, bar in more.items():
            one = found[name]
            found[name] = Tolerance(
                max(one.max_abs, bar.max_abs),
                max(one.max_mismatch_share, bar.max_mismatch_share),
            )
    return found


def _wider(
    proof: Proof, golden: Mapping[str, Array], answers: Mapping[str, Array], bars: Bars
) -> Bars | None:
    """Return bars that the answers pass, with the fixed ones on top; None where none do."""
    scale = 1.0
    while True:
        scale *= 2
        shares = {
            name: max(bar.max_mismatch_share, _MIN_SHARE) * scale for name, bar in bars.items()
        }
        tried = {
            name: Tolerance(bar.max_abs, min(shares[name], _MAX_SHARE))
            for name, bar in bars.items()
        }
        if all(report.passed for report in proof.compare(golden, answers, tried, name="")):
            return {
                name: Tolerance(
                    bar.max_abs, bar.max_mismatch_share + tried[name].max_mismatch_share
                )
                for name, bar in bars.items()
            }
        if min(shares.values()) >= _MAX_SHARE:
            return None

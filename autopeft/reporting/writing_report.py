"""The report's sections on written texts: each model's scores, and examples side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.common.exceptions import SpecError
from autopeft.common.units import counted
from autopeft.reporting.bootstrap import Bootstrap
from autopeft.reporting.statistics import CONFIDENCE
from autopeft.study.report_section import ReportSection, ReportTable
from autopeft.tasks.text_scores.score import metric_of, written_texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autopeft.tasks.text_scores.score import TextScore

EXAMPLES = 8
"""Number of rows shown."""

WIDTH = 400
"""Number of characters shown of a text."""

WRITTEN, COMPARED = "What was written", "The winner's texts against the others'"
"""Headings of the two tables of scores."""

FEWEST = 4
"""Fewest models for a statement on whether the two scores agree."""


def sections(
    prompts: Sequence[str],
    references: Sequence[str],
    texts: Mapping[str, Sequence[str]],
    chosen_by: Mapping[str, float],
    metric: str,
    scores: Mapping[str, TextScore],
    untrained: Mapping[str, Sequence[str]] | None = None,
    chose: str | None = None,
) -> list[ReportSection]:
    """Scores of each model's texts with their intervals, how far the winner's are above the others', and examples.

    Args:
        prompts: of the rows, for people to read.
        references: what should have been written.
        texts: what each model wrote for these rows, by its name; the winner's come first.
        chosen_by: the models' scores in the metric on all held-out rows, by name.
        metric: its name.
        scores: of texts, by name.
        untrained: texts that no model wrote, such as copies of the prompts, by a name; they are scored, but not among
            the examples.
        chose: the score of texts that chose the winner, if it was not the metric.
    """
    every = {**texts, **(untrained or {})}
    made = {name: [written_texts([text]) for text in one] for name, one in every.items()}
    truths = [written_texts([text]) for text in references]
    drawn, faults = _drawn(scores, truths, made)
    found = {name: [bootstrap.score(name) for bootstrap in drawn.values()] for name in every}
    rows = tuple(
        (
            name,
            f"{chosen_by[name]:.4f}" if name in chosen_by else "–",
            *(_with_interval(bootstrap, name) for bootstrap in drawn.values()),
        )
        for name in every
    )
    columns = ("model", metric, *drawn)
    compared = f"The search compared candidates by {metric}" if chose else f"The winner was chosen by {metric}"
    decided = f"; the winner was then chosen by {chose}" if chose else ""
    told = (
        f"{compared}, which needs no written texts{decided}. These texts were written greedily for "
        f"{counted(len(references), 'held-out row')}. The intervals in brackets are {CONFIDENCE:.0%} intervals over "
        "these rows."
    )
    told = " ".join([told, *_agreement(found, chosen_by, metric, [*drawn]), *faults])
    table = ReportTable(columns, rows, tuple(range(1, len(columns))))
    written = ReportSection(WRITTEN, told, table=table)
    return [written, *_compared(drawn, [*every]), _examples(prompts, references, texts)]


def _drawn(
    scores: Mapping[str, TextScore], truths: Sequence[str], made: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Bootstrap], list[str]]:
    """The scores of the written texts, by name, and a sentence on each user's function that needs one."""
    drawn, told = dict[str, Bootstrap](), list[str]()
    for name, score in scores.items():
        try:
            drawn[name] = Bootstrap(metric_of(score), truths, made)
        except SpecError as error:  # the winner is chosen and saved by now
            told.append(f"{name} is left out, because it failed on these texts: {error}")
        else:
            told += [f"{name} {drawn[name].told}."] if drawn[name].told else []
    return drawn, told


def _compared(drawn: Mapping[str, Bootstrap], names: Sequence[str]) -> list[ReportSection]:
    """How far the first of `names`, the winner, scores above each other one, where that is known."""
    sure = {name: bootstrap for name, bootstrap in drawn.items() if bootstrap.draws}
    first, *others = names
    if not sure or not others:
        return []
    rows = []
    for other, *gaps in zip(others, *(one.differences(first, others) for one in sure.values()), strict=True):
        rows.append((other, *(f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})" for gap in gaps)))
    table = ReportTable(("model", *sure), tuple(rows), tuple(range(1, 1 + len(sure))))
    return [
        ReportSection(
            COMPARED,
            "How far the winner's texts score above the others' on the same rows. A difference is significant "
            f"where its {CONFIDENCE:.0%} interval (paired bootstrap, for all others together) does not contain 0.",
            table=table,
        )
    ]


def _with_interval(bootstrap: Bootstrap, name: str) -> str:
    if not bootstrap.draws:
        return f"{bootstrap.score(name):.4f}"
    low, high = bootstrap.interval(name)
    return f"{bootstrap.score(name):.4f} ({low:.4f} to {high:.4f})"


def _agreement(
    found: Mapping[str, Sequence[float]], chosen_by: Mapping[str, float], metric: str, scores: Sequence[str]
) -> list[str]:
    """Whether the metric and the scores of texts put models in the same order; empty where too few are known."""
    known = [name for name in found if name in chosen_by]
    if len(known) < FEWEST:
        return []
    taus = []
    for place, score in enumerate(scores):
        tau = rank_agreement([chosen_by[name] for name in known], [found[name][place] for name in known])
        if tau is not None:
            taus.append(f"{tau:+.2f} with {score}")
    if not taus:
        return []
    return [
        f"Rank agreement of {metric} over {len(known)} models (Kendall's tau, 1 is the same order): {', '.join(taus)}."
    ]


def rank_agreement(some: Sequence[float], others: Sequence[float]) -> float | None:
    """Kendall's tau of two scores of the same models, 1 for the same order; None where all have the same score."""
    from scipy.stats import kendalltau

    tau = float(kendalltau(some, others).statistic)
    return None if tau != tau else tau


def _examples(prompts: Sequence[str], references: Sequence[str], texts: Mapping[str, Sequence[str]]) -> ReportSection:
    """Some rows, with what each model wrote; rows with different texts come first."""
    differing = sorted(range(len(references)), key=lambda row: -len({made[row] for made in texts.values()}))
    rows = tuple(
        tuple(_cut(text) for text in (prompts[row], references[row], *(made[row] for made in texts.values())))
        for row in differing[:EXAMPLES]
    )
    return ReportSection(
        "Examples",
        "The held-out rows on which the models differ most.",
        table=ReportTable(("prompt", "target", *texts), rows),
    )


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[:WIDTH]} …"

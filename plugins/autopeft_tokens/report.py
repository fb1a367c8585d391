"""The report's sections on tags: scores by type, and confusions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from autopeft import ReportSection, ReportTable
from autopeft_tokens.cells import placed
from autopeft_tokens.metrics import counts, f1, split
from autopeft_tokens.tags import Entity, entities

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

SHOWN = 12
"""Most confusions in the table, the most frequent first."""

ASIDE = 4
"""Most words before and behind an entity in an example."""

MISSED, INVENTED = "(missed)", "(none there)"


def sections(rows: pd.DataFrame, answers: Sequence[str], truths: Sequence[str]) -> list[ReportSection]:
    """Both sections, from answers and truths in written form."""
    by_type = counts(answers, truths)
    table = tuple(
        (
            kind,
            str(there),
            f"{right / found if found else 0:.4f}",
            f"{right / there if there else 0:.4f}",
            f"{f1(right, found, there):.4f}",
        )
        for kind, (right, found, there) in sorted(by_type.items(), key=lambda item: -item[1][2])
    )
    columns = ("type", "entities", "precision", "recall", "F1")
    told = "An entity counts as right if its words and its type are right. Tags are read as by CoNLL-2000's conlleval."
    made = [ReportSection("Entities by type", told, table=ReportTable(columns, table, (1, 2, 3, 4)))]
    if wrong := _confusions(rows, answers, truths):
        title, told = (
            "Confused entities",
            "The most frequent errors. Where only the boundaries are wrong, the types are the same.",
        )
        made.append(
            ReportSection(title, told, table=ReportTable(("true", "answered", "times", "example"), wrong, (2,)))
        )
    return made


def _confusions(rows: pd.DataFrame, answers: Sequence[str], truths: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Pairs of a true type and the answered one, how often they occur, and an example."""
    times = Counter[tuple[str, str]]()
    examples: dict[tuple[str, str], tuple[dict[Any, Any], Entity]] = {}
    for row, answer, truth in zip(rows.to_dict("records"), answers, truths, strict=True):
        true = truth.split()
        real, given = entities(true), entities(split(answer, len(true)))
        for pair, entity in _pairs(real, given):
            times[pair] += 1
            examples.setdefault(pair, (row, entity))
    return tuple((*pair, str(count), _excerpt(*examples[pair])) for pair, count in times.most_common(SHOWN))


def _pairs(real: Sequence[Entity], given: Sequence[Entity]) -> list[tuple[tuple[str, str], Entity]]:
    """Each entity that was answered wrong, with the answer that overlaps it, and each answer that overlaps none."""
    found = []
    for entity in real:
        if entity in given:
            continue
        other = next((one for one in given if one.start < entity.end and entity.start < one.end), None)
        found.append(((entity.type, other.type if other else MISSED), entity))
    for one in given:
        if not any(one.start < entity.end and entity.start < one.end for entity in real):
            found.append(((INVENTED, one.type), one))
    return found


def _excerpt(row: dict[Any, Any], entity: Entity) -> str:
    """The words around an entity, with the entity in brackets."""
    text, places = placed(row)
    first, last = places[max(0, entity.start - ASIDE)][0], places[min(len(places), entity.end + ASIDE) - 1][1]
    start, end = places[entity.start][0], places[entity.end - 1][1]
    before, behind = "… " * (first > 0), " …" * (last < len(text))
    return f"{before}{text[first:start]}[{text[start:end]}]{text[end:last]}{behind}"

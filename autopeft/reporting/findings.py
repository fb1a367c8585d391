"""The findings of a study in three sentences: who won, how sure that is, and how it does on the held-out rows.

Each is short enough for a phone. The report begins with them, and `autopeft run` ends with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.reporting import choice, raced
from autopeft.reporting.comparison import compare
from autopeft.reporting.held_out_rows import default_name, held_out_rows
from autopeft.reporting.statistics import TIED, in_a_word
from autopeft.study.archive import FINISHED, INTERRUPTED, STOPPED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.reporting.comparison import Comparison
    from autopeft.reporting.held_out_rows import TestRows
    from autopeft.study.archive import Archive


def main_sentences(archive: Archive) -> list[str]:
    """The main sentences about a study as plain text, one to three."""
    return findings(archive, compare(archive), held_out_rows(archive))


def findings(archive: Archive, comparisons: Sequence[Comparison], test: TestRows | None) -> list[str]:
    """The same for a study that was already read, with its comparisons and its scores on the held-out rows."""
    if not archive.ranked:
        wanted, done = archive.given["search"]["trials"], len(archive.ended)
        return [f"There is no winner yet: {done} of {wanted} trials have ended, and none is complete."]
    return [_who(archive), _how_sure(archive, comparisons), *([_held_out(archive, test)] if test else [])]


def _who(archive: Archive) -> str:
    best, metric = archive.ranked[0], archive.given["validation"]["metric"]
    who = f"{best.method}'s untuned default" if best in archive.defaults.values() else best.method
    scores = f"mean {metric} {best.score:.4f} in cross-validation (trial {best.number})"
    if archive.state in (FINISHED, STOPPED):
        early = archive.stopped.partition(":")[0]
        return f"{who} won: {scores}." + f" The search was {early}." * bool(early)
    how = ", interrupted" if archive.state == INTERRUPTED else ""
    return f"{who} leads after {len(archive.ended)} of {archive.given['search']['trials']} trials{how}: {scores}."


def _how_sure(archive: Archive, comparisons: Sequence[Comparison]) -> str:
    best = archive.ranked[0]
    if chosen := choice.short(archive):
        return chosen
    if sure := raced.short(archive):
        return sure
    over = [record for record in archive.ranked if record.passed_over]
    if over:
        return f"Trial {over[0].number} ({over[0].method}) came first, but could not be trained again and saved."
    own = [one for one in comparisons if one.ahead.number == best.number]
    others = [one for one in own if one.behind.method != best.method]
    if found := next((one for one in [*others, *own] if one.behind.best or one.behind.default), None):
        return _lead(found)
    if len({record.method for record in archive.ranked}) == 1 and len({one.method for one in archive.records}) > 1:
        return "No other method has a complete trial to compare it with."
    return "There is no other candidate to compare it with."


def _lead(found: Comparison) -> str:
    """The winner's lead over the best of the next method, or over a default."""
    behind = found.behind
    who = f"{behind.method}'s untuned default" if behind.default and not behind.best else behind.method
    if found.word == "tie":
        return f"It is tied with {who} (trial {behind.number})."
    return f"Its lead of {found.lead:.4f} over {who} is {found.word}{'' if found.real else ': it may be chance'}."


def _held_out(archive: Archive, test: TestRows) -> str:
    """The winner's score on the held-out rows, and whether an untuned default does better there."""
    by_name = {entry.name: entry.score for entry in test.scores if entry.score is not None}
    rows = test.rows or archive.attrs.get("rows", {}).get("test")
    own, (least, *_) = by_name["the winner"], test.scores[::-1]
    told = f"On {f'{rows} ' * bool(rows)}held-out rows it scores {own:.4f}"
    scored = archive.attrs["test_scores"]["scores"]["defaults"]
    others = [method for method in scored if archive.defaults.get(method) != archive.ranked[0]]
    named = {method: default_name(method) for method in others}
    defaults = {method: by_name[name] for method, name in named.items() if name in by_name}
    first = max(defaults, key=lambda method: defaults[method], default="")
    if not first:
        return f"{told}; {least.name} scores {least.score:.4f}."
    if defaults[first] - own >= TIED:
        words = [in_a_word(one.difference.mean, one.real) for one in test.comparisons if one.other == named[first]]
        sure = f" ({words[0]})" if words else ""
        return f"{told}. {first}'s untuned default does better: {defaults[first]:.4f}{sure}."
    if own - defaults[first] < TIED:
        return f"{told}, and so does {first}'s untuned default; {least.name} scores {least.score:.4f}."
    best = "best other" if len(others) < len(scored) else "best"
    return f"{told}; the {best} untuned default ({first}) scores {defaults[first]:.4f}, {least.name} {least.score:.4f}."

"""How the trials of a study without a winner ended, in their own words."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from autopeft.common.units import counted
from autopeft.execution.outcome import Outcome
from autopeft.study.states import FAIL, INFEASIBLE, PRUNED, STOPPED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autopeft.study.record import TrialRecord

SHOWN = 3
"""Number of reasons to show, the most frequent first."""

ENDED = {FAIL: "failed", INFEASIBLE: "refused", PRUNED: "pruned", STOPPED: "stopped"}

ANOTHER = "give the changed study another `name`, and another `output` if it sets one"
"""What a study that has begun needs where its budget or its space changes; with its own name it would be refused."""


def without_winner(found: Sequence[TrialRecord], failed: Mapping[str, str]) -> str:
    """Why a study has no winner, as one sentence.

    Args:
        found: its trials.
        failed: methods that the search left out, or whose winner could not be kept, each with the reason.
    """
    told = [*_reasons(found), *(f"{method}: {reason.rstrip('.')}" for method, reason in failed.items())]
    states = {record.state for record in found}
    if failed or FAIL in states:
        advice = "fix what failed and run the same command again"
    elif INFEASIBLE in states and not states & {PRUNED, STOPPED}:
        advice = f"raise a limit in [budget] or change the space in [search], and {ANOTHER}"
    else:
        advice = "give [search] more trials or a longer timeout"
    count = len(found)
    ended = "the only trial did not complete" if count == 1 else f"none of {count} trials completed"
    ended = ended if count else "no trial ended before the study's time was up"
    return f"{ended}, so there is no winner{' (' + '; '.join(told) + ')' if told else ''}; {advice}."


def _reasons(found: Sequence[TrialRecord]) -> list[str]:
    """Why trials ended: each reason once, with how often it occurred; reasons may differ in their numbers."""
    open_ended = [record for record in found if not record.complete]
    kinds = Counter((record.state, Outcome(record.state, record.reason).kind_of_failure) for record in open_ended)
    first = {(r.state, Outcome(r.state, r.reason).kind_of_failure): r.reason.rstrip(".") for r in reversed(open_ended)}
    told = [
        f"{count} {ENDED.get(kind[0], kind[0].lower())}: {first[kind] or 'no reason was kept'}"
        for kind, count in kinds.most_common(SHOWN)
    ]
    left = len(kinds) - len(told)
    return [*told, *([f"and {counted(left, 'more reason')}"] if left else [])]

"""Shows what was found as a table of rules that fits a narrow terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from autopeft.testing.suite import FAILED, OK, SKIPPED, UNSUPPORTED, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from autopeft.testing.task_rules import TaskFinding

STYLES = {OK: "green", FAILED: "red"}


def show(method: str, findings: Sequence[Finding]) -> RenderableType:
    """A row for each rule with what was found on the models; below it the models that the method does not support."""
    table = Table("rule", "found", title=f"{method} and the contract", title_justify="left", box=box.SIMPLE_HEAD)
    for rule in dict.fromkeys(finding.rule for finding in findings):
        own = [one for one in findings if one.rule == rule and one.state != UNSUPPORTED]
        if own:
            worst = FAILED if any(one.state == FAILED for one in own) else own[0].state
            table.add_row(rule, Text(_told(own), STYLES.get(worst, "")))
    reasons = {one.family: one.seen for one in findings if one.state == UNSUPPORTED}
    return Group(table, *(Text(f"{family}: not supported, {why}") for family, why in reasons.items()))


def show_task(kind: str, found: Mapping[str, Sequence[TaskFinding]]) -> RenderableType:
    """The same for a kind of task, with the findings on each model; below it why a rule was not tested."""
    findings, skipped = [], {}
    for family, several in found.items():
        for one in several:
            state = FAILED if one.seen else SKIPPED if one.skipped else OK
            findings.append(Finding(one.rule, family, state, one.seen))
            if one.skipped:
                skipped[one.rule] = one.skipped
    return Group(show(kind, findings), *(Text(f"{rule}: not tested, {why}") for rule, why in skipped.items()))


def _told(own: Sequence[Finding]) -> str:
    """What one rule found on all models: one word if it is the same, else the models by name or number."""
    told = []
    idle = "not run" if any(one.seen.startswith("not run") for one in own) else "nothing to test"
    for state, words in ((FAILED, "failed"), (OK, "ok"), (SKIPPED, idle)):
        families = [one.family for one in own if one.state == state]
        if families and len(families) == len(own):
            return words
        if families and state == FAILED:
            told.append(f"{words} on {', '.join(families)}")
        elif families:
            told.append(f"{words} on {len(families)}")
    return "; ".join(told)

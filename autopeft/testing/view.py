"""What was found, for a person to read: a table of rules and families."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from autopeft.testing.suite import FAILED, OK, UNSUPPORTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.testing.suite import Finding

MARKS = {OK: Text("ok", "green"), FAILED: Text("failed", "red"), UNSUPPORTED: Text("no")}


def show(method: str, findings: Sequence[Finding]) -> Table:
    """A row for each rule, a column for each family; below it what the marks mean and why models are refused."""
    families = list(dict.fromkeys(finding.family for finding in findings if finding.family))
    reasons = {finding.family: finding.seen for finding in findings if finding.state == UNSUPPORTED}
    legend = ["–: nothing to test, see --json", *(f"{family}: not supported, {why}" for family, why in reasons.items())]
    table = Table("rule", *families, title=f"{method} and the contract", caption="\n".join(legend))
    table.caption_justify = "left"
    for rule in dict.fromkeys(finding.rule for finding in findings):
        marks = {finding.family: MARKS.get(finding.state, "–") for finding in findings if finding.rule == rule}
        table.add_row(rule, *(marks.get(family, marks.get("", "")) for family in families))
    return table

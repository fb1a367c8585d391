"""Shows a winner: a line, or a table in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.common.html_table import facts
from autopeft.methods.search_space import readable

if TYPE_CHECKING:
    from autopeft.study.card import Card, Evidence

MOST_LABELS = 20
"""At most this many labels are listed."""


def line(card: Card, evidence: Evidence | None) -> str:
    """What the winner is and how good, for `repr`."""
    score = ""
    if evidence:
        score = f": {evidence.metric} {evidence.test_score:.4f} on {evidence.test_rows:,} held-out rows"
    return f"<winner of {card.task}, {readable(card.method, dict(card.params))} on {card.base_model}{score}>"


def html(card: Card, evidence: Evidence | None) -> str:
    """What the winner is and how it was made, for a notebook."""
    known: dict[str, object] = {
        "task": card.task,
        "base model": card.base_model,
        "method": readable(card.method, dict(card.params)),
        "labels": ", ".join(card.labels[:MOST_LABELS]) + ", …" * (len(card.labels) > MOST_LABELS),
    }
    if evidence:
        interval = evidence.test_interval
        known |= {
            "trained parameters": f"{evidence.trained_params:,}",
            "training rows": f"{evidence.train_rows:,}",
            f"{evidence.metric}, {evidence.test_rows:,} held-out rows": f"{evidence.test_score:.4f}"
            + (f" (95% interval {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""),
            f"{evidence.metric}, {evidence.baseline_name}": f"{evidence.baseline:.4f}",
            "the search was": evidence.stopped,
        }
    return facts(f"Winner of study {evidence.study}" if evidence else "Winner", known)

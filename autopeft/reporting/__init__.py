"""The report: which method won, whether its lead is significant, what the search cost, and what the budget refused.

It is made from a study's output folder alone, without torch or the model, whether the study has finished, still runs
or was interrupted. `gather` collects the content, `page` and `terminal` show it, and `main_sentences` is its shortest
form.
"""

from __future__ import annotations

from autopeft.reporting import page, terminal
from autopeft.reporting.content import Report, gather
from autopeft.reporting.findings import main_sentences
from autopeft.reporting.plots import draw

__all__ = ["Report", "draw", "gather", "main_sentences", "page", "terminal"]

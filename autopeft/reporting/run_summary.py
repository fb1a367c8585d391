"""The end of `autopeft run`: the trials, the scores on the held-out rows, and the findings in a few sentences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autopeft.common.paths import near
from autopeft.reporting.findings import main_sentences
from autopeft.reporting.leaderboard import by_method, leaderboard, test_table
from autopeft.reporting.short_name import short_name
from autopeft.study.archive import open_archive
from autopeft.study.record import DEFAULTS

if TYPE_CHECKING:
    from rich.console import Console

    from autopeft.study.record import Result


WIDEST = 1000
"""Width where there is no terminal: a file has room for whole names and sentences."""


def tell(result: Result, study: Path, console: Console) -> None:
    """Print the summary of a study that has ended; what matters comes last, where a screen still shows it.

    Args:
        result: the study's result.
        study: the argument for the next commands.
        console: to print on.
    """
    folder = Path(result.winner_folder)
    archive = open_archive(folder.parent)
    defaults = archive.attrs.get(DEFAULTS, {})
    if not console.is_terminal:
        console.width = WIDEST
    name = short_name(result.best.params, result.best.name, defaults)
    console.print(leaderboard(result.records, result.metric, defaults))
    console.print(by_method(result.records))
    console.print(test_table(name, result.test, result.metric))
    console.print()
    for sentence in main_sentences(archive):
        console.print(sentence, highlight=False)
    for line in (
        f"Winner saved to {near(folder)}",
        f"How sure that is, and what it cost: autopeft report {study}",
        f"Every trial: autopeft ui {study}",
    ):
        console.print(line, highlight=False, soft_wrap=True)  # to be copied, so without line breaks

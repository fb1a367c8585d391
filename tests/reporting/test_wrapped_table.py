"""Tables of a report on screens of any width."""

import pytest

from autopeft.common.line_table import Column, LineTable, Row
from autopeft.reporting.wording import Table
from autopeft.reporting.wrapped_table import WrappedTable
from tests.reporting.test_leaderboard import text

LEADS = Table(
    "Leads",
    ("ahead", "behind", "lead", "95% interval", "p", "verdict"),
    [
        ("prefix_tuning, trial 7", "lora, trial 3", "+0.0208", "-0.0223 to +0.0639", "0.5", "inconclusive"),
        ("prefix_tuning, trial 7", "prefix_tuning, trial 12", "+0.1208", "+0.0223 to +0.2639", "0.001", "significant"),
    ],
    (2, 3, 4),
)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_word_is_broken_where_there_is_room_for_each(width):
    shown = text(WrappedTable(LEADS), width)
    assert max(map(len, shown.splitlines())) <= width
    words = {word for row in (LEADS.columns, *LEADS.rows) for cell in row for word in cell.split()}
    assert words <= set(shown.split())
    assert "-0.0223 to +0.0639" in shown, "numbers have their room first"


def test_nothing_is_lost_where_there_is_not():
    shown = text(WrappedTable(LEADS), 40)
    assert max(map(len, shown.splitlines())) <= 40
    assert "…" not in shown
    assert len("".join(shown.split())) >= sum(len("".join(cell.split())) for row in LEADS.rows for cell in row)


COLUMNS = (Column("trial", number=True), Column("candidate", cut=True), Column("seconds", 1), Column("memory", 2))
ROWS = [Row((str(n), "lora " + "x" * 60, "12 s", "1.0 MiB"), "dim") for n in range(2)]


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (100, ["trial", "candidate", "seconds", "memory"]),
        (69, ["trial", "candidate", "seconds", "memory"]),
        (66, ["trial", "candidate", "seconds"]),
        (55, ["trial", "candidate"]),
        (12, ["trial", "cand…"]),
    ],
)
def test_the_least_important_columns_are_left_out_and_what_stays_has_one_line(width, heads):
    first, *rows = text(LineTable(COLUMNS, ROWS), width).splitlines()
    assert first.split() == heads
    assert len(rows) == 2
    assert max(map(len, (first, *rows))) <= width


def test_a_column_of_empty_cells_is_left_out_unless_it_must_stay():
    rows = [Row(("–", "lora\ndefault", "", "–"))]
    lines = text(LineTable(COLUMNS, rows), 80).splitlines()
    assert [line.split() for line in lines] == [["trial", "candidate"], ["–", "lora", "default"]]


def test_signs_of_two_cells_are_counted_as_such():
    rows = [Row(("1", "模型" * 40, "12 s", ""))]
    line = text(LineTable(COLUMNS, rows), 40).splitlines()[1]
    assert len(line) + line.count("模") + line.count("型") <= 40

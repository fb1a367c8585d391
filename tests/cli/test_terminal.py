"""The real commands in real terminals of three sizes: no line is wider, and what matters is in sight."""

import json
import re
from pathlib import Path

import pytest

from autopeft.reporting.live_view import COLUMNS as LIVE_COLUMNS
from autopeft.study.record import TrialRecord
from tests.conftest import autopeft_here, write_tiny_study
from tests.terminal import SIZES, show

ROOT = Path(__file__).parents[2]
BOARD = ["rank", "trial", "score", "state", "candidate"]
LIVE = re.compile(r"searching: \d+ of \d+ trials|(refitting|scoring|racing) ")


def sizes(*quick):
    """All sizes; `make test` tries those that are quick."""
    return [
        pytest.param(*size, id="x".join(map(str, size)), marks=() if size in quick else pytest.mark.exhaustive)
        for size in SIZES
    ]


def study_in(folder, tiny_model):
    """Six trials, most of which differ from the defaults in many settings, and rows of reference."""
    folder.mkdir(exist_ok=True)
    study = write_tiny_study(folder, tiny_model)
    text = study.read_text().replace("trials = 4", "trials = 6").replace("references = false\n", "")
    study.write_text(text.replace("epochs = 4", "epochs = [2, 3]").replace("learning_rate = 0.02\n", ""))
    return study


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model):
    """A study that ran in a narrow terminal, with what that showed."""
    study = study_in(tmp_path_factory.mktemp("narrow") / "study", tiny_model)
    return study, show("run", study.name, cwd=study.parent, columns=80, lines=24)


def check_run(shown, columns, lines):
    """What a run shows, all along and at its end."""
    assert shown.code == 0, "\n".join(shown.lines)
    assert shown.widest <= columns
    live = [screen for screen in shown.screens if any(LIVE.match(line) for line in screen)]
    firsts = {next(line for line in screen if LIVE.match(line)).partition(" · ")[0] for screen in live}
    assert firsts >= {"refitting the winner", "scoring full fine-tuning"}
    assert any(first.startswith("searching: 5 of 6 trials") for first in firsts)
    full = [screen for screen in live if any(re.match(r"trial +score +state +candidate", line) for line in screen)]
    assert all(any(line.startswith("best so far: ") for line in screen) for screen in full), "nothing is lost"
    assert max(sum(" complete " in line or " pruned " in line for line in screen) for screen in full) == 6
    end = shown.last
    assert re.search(r"won: mean accuracy [01]\.\d{4}\s+in\s+cross-validation", end)
    assert re.search(r"On 12 held-out rows it scores [01]\.\d{4}", end)
    assert "\nWinner saved to outputs/tiny/winner\n" in end
    assert "autopeft report study.toml" in end
    board = [line for line in shown.lines if re.match(r" +(\d|–) +\d+  ", line)]
    assert len(board) == 6, "one line a trial"
    assert all(re.search(r"  (adapter|lora|prefix_tuning) (default|\w+=)", line) for line in board)


def test_a_run_in_a_terminal_of_80_columns(finished):
    check_run(finished[1], 80, 24)


@pytest.mark.parametrize(("columns", "lines"), sizes()[1:])
def test_a_run_in_a_larger_terminal(tmp_path, tiny_model, columns, lines):
    study = study_in(tmp_path / "study", tiny_model)
    check_run(show("run", study.name, cwd=study.parent, columns=columns, lines=lines), columns, lines)


@pytest.mark.exhaustive
def test_a_terminal_that_becomes_narrow_while_a_study_runs(tmp_path, tiny_model):
    study = study_in(tmp_path / "study", tiny_model)
    check_run(show("run", study.name, cwd=study.parent, columns=200, lines=50, resized=(80, 24)), 80, 24)


def test_a_finished_study_says_that_there_was_nothing_to_do(finished):
    study, first = finished
    again = show("run", study.name, cwd=study.parent, columns=80, lines=24)
    assert (again.code, again.widest <= 80) == (0, True)
    assert "This study is finished; there was nothing to do." in again.lines
    assert again.last.splitlines()[-8:] == first.last.splitlines()[-8:]


def test_a_file_has_whole_names_on_one_line_each_and_nothing_that_a_terminal_obeys(finished):
    study = finished[0]
    piped = autopeft_here("run", study.name, cwd=study.parent)
    assert piped.returncode == 0
    assert not {"…", "\x1b"} & {*piped.stdout}
    board = [line.split() for line in piped.stdout.splitlines() if re.match(r" +(\d|–) +\d+  ", line)]
    assert len(board) == 6
    drawn = max(board, key=len)
    found = TrialRecord.read(next(r for r in result(study)["records"] if str(r["number"]) == drawn[1]))
    changed = {cell.partition("=")[0] for cell in drawn if "=" in cell}
    assert {"lr" if name == "learning_rate" else name for name in own(found)} >= changed
    assert len(changed) > 3


def result(study):
    return json.loads((study.parent / "outputs" / "tiny" / "result.json").read_text(encoding="utf-8"))


def own(record):
    return [key.partition(".")[2] for key in record.params if key != "method"]


@pytest.mark.parametrize(("columns", "lines"), sizes((80, 24)))
@pytest.mark.parametrize(
    "command",
    ["status", "report", "recommend", pytest.param("plan", marks=pytest.mark.exhaustive), "methods", "tasks"],
)
def test_no_line_is_wider_than_the_terminal(finished, command, columns, lines):
    study = finished[0]
    given = [study.name] if command not in ("methods", "tasks") else []
    shown = show(command, *given, cwd=study.parent, columns=columns, lines=lines)
    assert shown.code == 0
    assert shown.widest <= columns


def test_the_pictures_in_the_docs_are_of_these_views():
    live, end = re.findall(r"```text\n(.*?)```", (ROOT / "docs" / "terminal.md").read_text(encoding="utf-8"), re.DOTALL)
    assert max(len(line) for line in (live + end).splitlines()) <= 80
    assert len(live.splitlines()) <= 23
    assert LIVE.match(live.splitlines()[0])
    assert live.splitlines()[1].startswith("best so far: ")
    heads = [
        line.split()
        for line in (live + end).splitlines()
        if line.rstrip().endswith(" candidate") or " candidate  " in line
    ]
    assert heads == [["trial", "score", "state", "candidate", "seconds"], BOARD]
    assert {" ".join(column.name for column in LIVE_COLUMNS if column.name in heads[0])} == {" ".join(heads[0])}
    assert "won: mean accuracy" in end
    assert "Winner saved to outputs/quickstart/winner" in end

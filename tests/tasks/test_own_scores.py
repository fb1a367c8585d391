"""Scores of written texts that are functions of the user's, and settings that would do nothing without a word."""

import re

import numpy as np
import pandas as pd
import pytest

from autopeft.common.exceptions import SpecError
from autopeft.execution import preflight
from autopeft.reporting import bootstrap, writing_report
from autopeft.study.folder import SECTIONS
from autopeft.tasks.text_scores import own
from autopeft.tasks.text_scores.names import text_score
from tests.tasks.test_causal_lm import CHATML, conversations, model, problem_of
from tests.writing_study import run_study

__all__ = ["model"]

POLITE = """
def politeness(texts, references):
    return [float("okay" in text) for text in texts]

def length(texts, references):
    return sum(map(len, texts)) / sum(map(len, references))
"""


def rows():
    return [{"messages": messages} for messages in conversations()]


def tried(folder, model, content, name="mine:own"):
    (folder / "mine.py").write_text(content)
    problem = problem_of(folder, model, rows(), template=CHATML, scores=["exact_match", name])
    preflight._try_own(problem)
    return problem


def test_a_function_scores_each_row_or_all_rows(tmp_path, model):
    problem = tried(tmp_path, model, POLITE, "mine:politeness")
    score = problem.task.text_score("mine:politeness")
    assert score.of(["yes", "maybe okay"], [["no"], ["no"]]) == 0.5
    counts = np.array([[2, 1], [0, 1]])
    assert score.of_draws(["okay", "no"], [["a"], ["b"]], counts).tolist() == pytest.approx([2 / 3, 0])
    length = own.load("mine:length", tmp_path, "`scores` in [task]").score
    assert length.of(["aa", ""], [["b"], ["c"]]) == 1.0
    shown, *_ = writing_report.sections(
        ["a", "b"], ["no", "no"], {"winner": ["okay", "no"]}, {"winner": -1.0}, "neg_loss", {"mine:length": length}
    )
    assert shown.table.columns == ("model", "neg_loss", "mine:length")
    assert shown.table.rows[0][:2] == ("winner", "-1.0000")
    assert shown.table.rows[0][2].startswith("1.5000 (")


def shown_of(folder, content, count=12):
    """What the report says of texts by that function, and the rows of its tables."""
    (folder / "mine.py").write_text(content)
    score = own.load("mine:own", folder, "`scores` in [task]").score
    true = [f"{'w ' * row}x" for row in range(count)]
    made = {"winner": true, "base model": ["y"] * count}
    return writing_report.sections(
        true, true, made, {}, "neg_loss", {"exact_match": text_score("exact_match"), "mine:own": score}
    )


ONE_FOR_ALL = "def own(texts, references):\n    return sum(t == r for t, r in zip(texts, references)) / len(texts)\n"


def test_one_number_for_all_is_asked_for_with_each_draw_and_the_report_says_how_often(tmp_path, monkeypatch):
    written, compared, _ = shown_of(tmp_path, ONE_FOR_ALL)
    assert "mine:own was called for 500 draws of the rows" in written.text
    for table in (written.table, compared.table):
        assert all(row[-2] == row[-1] for row in table.rows), "drawn as for a score that is known"
    monkeypatch.setattr(bootstrap, "SECONDS", 0.2)
    slow = "import time\n" + ONE_FOR_ALL.replace("):\n", "):\n    time.sleep(0.01)\n", 1)
    written, compared, _ = shown_of(tmp_path, slow)
    assert re.search(
        r"mine:own has no interval, because its function finished only \d+ draws of the rows in 0 s", written.text
    )
    assert [row[-1] for row in written.table.rows] == ["1.0000", "0.0000"]
    assert compared.table.columns == ("model", "exact_match")
    monkeypatch.setattr(bootstrap, "FEWEST_RESAMPLES", 1)
    written, compared, _ = shown_of(tmp_path, slow)
    assert re.search(r"mine:own was called for \d+ draws of the rows, ", written.text)
    assert compared.table.columns == ("model", "exact_match", "mine:own")


def test_a_function_that_fails_on_a_draw_costs_its_interval_and_on_the_rows_its_column(tmp_path):
    often = "    if len(set(references)) < len(references):\n        raise ValueError('seen twice')\n"
    written, compared, _ = shown_of(tmp_path, ONE_FOR_ALL.replace("):\n", f"):\n{often}", 1))
    assert "mine:own has no interval, because its function fails on some draws of the rows (" in written.text
    assert "ValueError: seen twice" in written.text
    assert [row[-1] for row in written.table.rows] == ["1.0000", "0.0000"]
    assert compared.table.columns == ("model", "exact_match")
    written, *_ = shown_of(tmp_path, "def own(texts, references):\n    return [1 / (text != 'y') for text in texts]\n")
    assert "mine:own is left out, because it failed on these texts: " in written.text
    assert written.table.columns == ("model", "neg_loss", "exact_match")


def test_numbers_of_rows_are_asked_for_once_for_each_model(tmp_path):
    written, *_ = shown_of(
        tmp_path,
        "seen = []\n"
        "def own(texts, references):\n"
        "    seen.append(1)\n"
        "    assert len(seen) < 3\n"
        "    return [float(t == r) for t, r in zip(texts, references)]\n",
    )
    assert "mine:own" not in written.text
    assert all(row[-2] == row[-1] for row in written.table.rows)


def test_a_function_that_fails_on_what_was_written_does_not_cost_the_winner(tmp_path, model):
    (tmp_path / "mine.py").write_text(
        "seen = []\n"
        "def own(texts, references):\n"
        "    seen.append(1)\n"
        "    if len(seen) > 2:  # it was tried on texts that are right and on empty ones\n"
        "        raise ValueError('planted')\n"
        "    return 0.5\n"
    )
    pd.DataFrame(rows()).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    task = {"kind": "causal-lm", "template": "plain", "scores": ["mine:own"], "max_new_tokens": 3}
    found = run_study(tmp_path, model, "rows.jsonl", task, {"epochs": 1, "batch_size": 8})
    assert found["best"]["state"] == "COMPLETE"
    assert "mine:own is left out" in (tmp_path / "outputs" / "writes" / SECTIONS).read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", r"must have a function `own`, but does not"),
        ("def own(texts, references): return texsts", r"mine:own failed on 18 rows: NameError: .* It gets two lists"),
        ("def own(texts, references): return [1 / len(text) for text in texts]", r"failed on 18 rows: ZeroDivision"),
        ("def own(texts, references): return float('nan')", r"must return a finite number for each .* returned nan"),
        ("def own(texts, references): return [0.5]", r"for each of 18 rows, or one for all, but returned \[0\.5\]"),
        ("def own(texts, references): return '0.5'", r"but returned '0\.5'"),
        ("def own(texts, references): return None", r"but returned None"),
        ("def own(texts, references): return texts", r"but returned \["),
        ("def own(texts, references): return [[1.0] for text in texts]", r"but returned \[\["),
    ],
)
def test_an_error_in_it_is_one_sentence_before_the_first_trial(tmp_path, model, content, said):
    with pytest.raises(SpecError, match=f"`scores` in \\[task\\]: .*{said}"):
        tried(tmp_path, model, content)


@pytest.mark.parametrize(("name", "said"), [("mine:own", "there is no file"), ("a:b:c", "a score of texts")])
def test_one_that_is_not_there_is_refused(tmp_path, model, name, said):
    with pytest.raises(SpecError, match=said):
        problem_of(tmp_path, model, rows(), template=CHATML, scores=[name])


def test_a_pattern_is_no_function(tmp_path, model):
    assert problem_of(tmp_path, model, rows(), template=CHATML, scores=["matches:okay"]).task.own_scores == {}


def test_a_metric_of_ones_own_is_tried_with_what_is_known_while_nothing_is_written(tmp_path, model):
    (tmp_path / "mine.py").write_text(
        "def hits(truths, answers): return sum(a['hits'] for a in answers) / sum(a['tokens'] for a in answers)\n"
        "def texts(truths, answers): return sum(a.lower() == t for a, t in zip(answers, truths))\n"
    )
    preflight._try_own(problem_of(tmp_path, model, rows(), metric="mine:hits", template=CHATML))
    with pytest.raises(SpecError, match="mine:texts failed on 18 rows: AttributeError"):
        preflight._try_own(problem_of(tmp_path, model, rows(), metric="mine:texts", template=CHATML))


PLAIN = [{"prompt": f"w{row} ", "completion": "yes"} for row in range(30)]


@pytest.mark.parametrize("rows", [PLAIN, [{"text": row["prompt"]} for row in PLAIN]], ids=["prompts", "texts"])
@pytest.mark.parametrize("setting", [{"system": "be kind"}, {"template": "plain"}, {"learn": "last"}])
def test_settings_of_conversations_are_refused_for_plain_texts(tmp_path, model, rows, setting):
    with pytest.raises(SpecError, match=f"`{next(iter(setting))}` in .* is a setting for conversations, but the rows"):
        problem_of(tmp_path, model, rows, **setting)


def test_where_some_prompts_are_plain_that_is_told(tmp_path, model):
    chats = [{"prompt": messages[:1], "completion": messages[1:]} for messages in conversations(30, seed=5)]
    problem = problem_of(tmp_path, model, [*PLAIN, *chats], system="be kind", learn="last", template=CHATML)
    (told,) = [note for note in problem.rows.notes if "plain texts as prompts" in note]
    plain = sum('"autopeft_text"' in prompt for prompt in problem.rows.train["prompt"])
    assert told.startswith(f"{plain} of {len(problem.rows.train)} training rows")
    assert "`template` and `system` and `learn` in [task] affect only conversations" in told

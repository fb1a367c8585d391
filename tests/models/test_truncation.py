"""Rows over the longest input: a study says what they lose, its winner cuts as it did, and so do its exports."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from transformers import AutoTokenizer

import autopeft
from autopeft.models.row_tokenizer import RowTokenizer
from tests.conftest import HEAVY, THREE, autopeft_here, tiny_rows
from tests.search.test_run import edit

SAID = re.compile(
    r"(\d+) of 60 rows are longer than `max_length` = 7 tokens and are cut down to the end: ([\d.]+%) of all"
)


@pytest.fixture(scope="module", params=HEAVY)
def ran(tmp_path_factory, tiny_model):
    from tests.conftest import write_tiny_study

    study = write_tiny_study(tmp_path_factory.mktemp("cut"), tiny_model)
    edit(
        study,
        (THREE, 'methods = ["lora"]'),
        ("trials = 4\nepochs = 4", "trials = 1\nepochs = 4"),
        ('name_or_path = "model"', 'name_or_path = "model"\nmax_length = 7\ntruncation = "tail"'),
    )
    done = autopeft_here("run", study.name, cwd=study.parent)
    assert done.returncode == 0, done.stderr
    return study.parent, done.stdout


def lost() -> tuple[int, int, int]:
    """Rows that are cut, the tokens of all, and those that are lost; every word is a token, and a row has two marks."""
    lengths = [len(text.split()) + 2 for text in tiny_rows()["text"]]
    over = [length - 7 for length in lengths if length > 7]
    return len(over), sum(lengths), sum(over)


def test_a_study_says_what_is_lost_wherever_it_tells_of_itself(ran):
    folder, told = ran
    rows, tokens, gone = lost()
    output = folder / "outputs" / "tiny"
    assert SAID.search(told).groups() == (str(rows), f"{gone / tokens:.1%}")
    assert SAID.search(" ".join(autopeft_here("report", "study.toml", cwd=folder).stdout.split()))
    assert SAID.search((output / "report.html").read_text())
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments, "tags.`autopeft.role` = 'search'")
    params = run.data.params
    assert (params["cut_rows"], params["lost_tokens"]) == (str(rows), str(gone))
    assert (params["max_length"], params["truncation"]) == ("7", "tail")
    card = json.loads(Path(client.download_artifacts(run.info.run_id, "data.json")).read_text())
    assert card["truncated"] == {
        "rows": 60, "cut_rows": rows, "tokens": tokens, "lost_tokens": gone, "max_length": 7, "truncation": "tail",
    }  # fmt: skip


def test_its_winner_cuts_as_it_was_trained_and_says_so(ran):
    folder, _ = ran
    winner = autopeft.load(folder / "outputs" / "tiny" / "winner")
    told = []
    long, end = winner.predict_proba(["w5 w6 w7 w8 w9 w10 w11 w12", "w8 w9 w10 w11 w12"], told.append)
    assert (long == end).all()
    assert told == [
        "1 of 2 rows is longer than `max_length` = 7 tokens and is cut down to the end: 17.6% of all tokens are lost."
    ]
    assert "cut down to the end" in (folder / "outputs" / "tiny" / "winner" / "README.md").read_text()
    done = autopeft_here("predict", "outputs/tiny/winner", "--input", "rows.csv", cwd=folder)
    assert SAID.search(done.stderr)
    assert len(done.stdout.splitlines()) == 61


def test_an_exported_tokenizer_keeps_the_end_as_the_winner_does(ran, tmp_path):
    winner = autopeft.load(ran[0] / "outputs" / "tiny" / "winner")
    autopeft.export(winner, tmp_path / "merged", "merged")
    texts = ["w5 w6 w7 w8 w9 w10 w11 w12", "w1 [SEP] w2"]
    exported = AutoTokenizer.from_pretrained(tmp_path / "merged")(texts, truncation=True)["input_ids"]
    own = RowTokenizer(winner.processor, 7, "tail")(texts)
    assert sum(exported, []) == own.columns["input_ids"].tolist()  # noqa: RUF017  # two rows


def test_an_export_of_a_winner_that_keeps_both_ends_says_that_its_tokenizer_does_not(ran, tmp_path):
    winner = autopeft.load(ran[0] / "outputs" / "tiny" / "winner")
    winner.card = replace(winner.card, truncation="both")
    autopeft.export(winner, tmp_path / "merged", "merged")
    text = (tmp_path / "merged" / "README.md").read_text()
    told = "# This tokenizer keeps the beginning of a text over 7 tokens; the winner keeps both ends."
    assert f"{told}\n```" in text
    assert "| longest input | 7 tokens; a longer one is cut down to both ends |" in text

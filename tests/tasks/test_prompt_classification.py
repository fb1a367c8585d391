"""Labels answered by words of a language model, from the rows of a file to a report, a prediction and an export."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import autopeft as api
from autopeft.common.exceptions import DataError, ModelError, SpecError
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.attach import attach, trainable
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.models.template_rows import Template
from autopeft.models.tokenizer import prepare
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from tests import tiny_tokenizers
from tests.conftest import DTYPE, autopeft_here, few, tiny_rows
from tests.tiny_language_models import language_model

TEMPLATES = {"bert": "{text} w1 {mask} w2", "gpt2": "{text} w1"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for family in TEMPLATES:
        language_model(folder / family, family)
    return folder


def specify(folder, models, family, rows=None, **task):
    (tiny_rows() if rows is None else rows).to_csv(folder / "rows.csv", index=False)
    content = {
        "name": "prompts",
        "model": {"name_or_path": str(models / family), "dtype": DTYPE},
        "task": {"kind": "prompt-classification", "template": TEMPLATES[family], **task},
        "data": {"train": "rows.csv"},
        "validation": {"folds": 2},
    }
    return StudySpec.from_mapping(content, folder=folder)


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "xlm_roberta", "albert"])
def test_a_template_is_read_as_the_tokenizer_reads_the_whole(name):
    plain, tokenizer = (getattr(tiny_tokenizers, name)() for _ in range(2))
    prepare(tokenizer)
    texts = ["the fox", "a fox runs the fox runs the fox runs"]
    before, behind = Template(("so ", " that is"), (texts,)), Template((" or not",))
    found = RowTokenizer(tokenizer, 200).filled(before, behind, [tokenizer.mask_token_id])
    for row, text in enumerate(texts):
        expected = plain(f"so {text} that is{plain.mask_token} or not")["input_ids"]
        ids = found.columns["input_ids"][found.offsets[row] : found.offsets[row + 1]].tolist()
        assert ids == expected
        assert ids[found.answered_at[row]] == tokenizer.mask_token_id


@pytest.mark.parametrize("truncation", ["head", "tail", "both"])
def test_of_a_long_row_the_text_is_cut_and_never_the_template(models, truncation):
    tokenizer = RowTokenizer.load(models / "bert")
    prepare(tokenizer)
    reader = RowTokenizer(tokenizer, 8, truncation)
    found = reader.filled(Template(("w9 ", " w8"), (["w1 w2 w3 w4 w5", "w1"],)), Template((" w7",)), [4])
    words = tokenizer.convert_ids_to_tokens(found.columns["input_ids"][:8].tolist())
    kept = {"head": ["w1", "w2"], "tail": ["w4", "w5"], "both": ["w1", "w5"]}[truncation]
    assert words == ["[CLS]", "w9", *kept, "w8", "[MASK]", "w7", "[SEP]"]
    assert found.answered_at.tolist() == [5, 4]
    assert found.whole.tolist() == [11, 7]
    with pytest.raises(SpecError, match="must leave room for a text in its template"):
        RowTokenizer(tokenizer, 6).filled(Template(("w9 ", " w8"), (["w1"],)), Template((" w7",)), [4])


def test_a_mask_in_a_text_is_text(models):
    tokenizer = RowTokenizer.load(models / "bert")
    prepare(tokenizer)
    found = RowTokenizer(tokenizer, 20).filled(Template(("", ""), (["[MASK] w1"],)), Template(("",)), [4])
    assert found.columns["input_ids"].tolist().count(4) == 1
    assert found.answered_at.tolist() == [4]


@pytest.mark.parametrize(
    ("family", "template", "told"),
    [
        ("bert", "{text} is", "must have {mask} once"),
        ("bert", "{mask} is", "must have {text} once"),
        ("bert", "{text} {mask} {mask}", "but has it 2 times"),
        ("bert", "{text} {body} {mask}", "has {body}, which is not a place"),
        ("gpt2", "{text} {mask} is", "must end with {mask}"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(tmp_path, models, family, template, told):
    with pytest.raises(SpecError, match=told):
        Problem.from_spec(specify(tmp_path, models, family, template=template), discover())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"no": "w1 w2"}, 'must be one token each, but "w1 w2" for "no" has 2'),
        ({"no": "unheard"}, '"no" is not in the model\'s vocabulary'),
        ({"nope": "w1"}, "which no row has"),
        ({"no": "w1", "yes": "w1"}, "must differ"),
    ],
)
def test_words_that_will_not_do_are_refused(tmp_path, models, words, told):
    with pytest.raises(SpecError, match=told):
        Problem.from_spec(specify(tmp_path, models, "bert", words=words), discover())


def test_a_model_of_the_wrong_form_is_refused(tmp_path, models, tiny_model):
    with pytest.raises(ModelError, match="of the form 'masked'"):
        Problem.from_spec(specify(tmp_path, models, "gpt2", model="masked"), discover())
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "bert").symlink_to(tiny_model)
    with pytest.raises(ModelError, match="must bring the head of BertForMaskedLM"):
        Problem.from_spec(specify(tmp_path, tmp_path / "bare", "bert"), discover())


@pytest.mark.parametrize("family", TEMPLATES)
def test_the_pretrained_head_stays_and_gives_words_alone(tmp_path, models, family):
    problem = Problem.from_spec(specify(tmp_path, models, family), discover())
    assert problem.base.spec.head == ()
    assert json.loads(problem.task.facts["words"]) == ["maybe", "no", "yes"]
    batch = problem.train.batch(np.arange(3))
    for name in ("lora", "bitfit"):
        method = discover()[name]
        model = attach(problem.base, method, method.search_space(problem.base.spec).defaults())
        logits = model.eval()(**problem.task.model_inputs(batch)).logits
        assert logits.shape == (*batch["input_ids"].shape, 3)
        problem.task.loss(model(**problem.task.model_inputs(batch)), batch).backward()
        assert all(parameter.grad is not None for parameter in trainable(model).values())
        whole = problem.base.copy()
        problem.task.restore(whole)
        full = whole.eval()(**problem.task.model_inputs(batch)).logits
        torch.testing.assert_close(full[..., json.loads(problem.task.facts["word_ids"])], logits)


def test_words_are_found_in_the_precision_of_the_study(tmp_path, models):
    rows = tiny_rows().assign(label=lambda frame: "the label " + frame["label"])
    spec = specify(tmp_path, models, "gpt2", rows)
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": "bfloat16"})})
    assert len(set(json.loads(Problem.from_spec(spec, discover()).task.facts["words"]))) == 3


def test_words_are_found_that_tell_the_labels(tmp_path, models):
    rows = tiny_rows().assign(label=lambda frame: "the label " + frame["label"])
    problem = Problem.from_spec(specify(tmp_path, models, "bert", rows, words={"the label yes": "w5"}), discover())
    words = json.loads(problem.task.facts["words"])
    assert problem.rows.labels == ("the label maybe", "the label no", "the label yes")
    assert words[2] == "w5"
    assert len(set(words)) == 3
    told = f'Words of labels, chosen on training rows: "the label maybe": "{words[0]}", "the label no": "{words[1]}".'
    assert problem.task.notes == (told,)
    again = Problem.from_spec(specify(tmp_path, models, "bert", rows, words={"the label yes": "w5"}), discover())
    assert again.task.facts == problem.task.facts


def test_a_winner_that_lost_its_words_is_refused():
    task = find_task("prompt-classification")
    for facts in ({"word_ids": "[1]"}, {"words": '["a"]', "word_ids": "[1]"}, {"words": "x", "word_ids": "[1, 2]"}):
        with pytest.raises(DataError, match="must know a word for each of 2 labels"):
            task.knowing(facts, ("a", "b"))
    with pytest.raises(DataError, match="masked or causal"):
        task.knowing({"model": "other"}, ("a", "b"))


@pytest.fixture(scope="module", params=few(TEMPLATES, "bert"))
def study(request, tmp_path_factory, models):
    folder, family = tmp_path_factory.mktemp(request.param), request.param
    tiny_rows().to_csv(folder / "rows.csv", index=False)
    (folder / "study.toml").write_text(
        f"""
name = "prompts"
[model]
name_or_path = "{models / family}"
dtype = "{DTYPE}"
[task]
kind = "prompt-classification"
template = "{TEMPLATES[family]}"
words = {{ no = "w7" }}
[data]
train = "rows.csv"
[search]
methods = ["lora"]
trials = 1
epochs = 12
batch_size = 8
learning_rate = 0.02
[validation]
folds = 2
"""
    )
    done = autopeft_here("run", "study.toml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), family


def test_a_study_beats_the_majority_and_is_reported(study):
    folder, result, _ = study
    assert result["test"]["winner"] > result["test"]["baseline"]
    references = result["test"]["references"]
    assert list(references) == ["base model", "head alone", "full fine-tuning"]
    assert references["base model"] <= result["test"]["winner"], "which answers without any training"
    assert references["head alone"] is None, "its head was pretrained"
    assert result["test"]["notes"]["head alone"] == "the model has no head to train alone"
    done = autopeft_here("report", "study.toml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert {entry["label"] for entry in json.loads(done.stdout)["test"]["classes"]} >= {"no", "yes"}


def test_the_winner_predicts_from_files(study):
    folder, _, _ = study
    winner = api.load(folder / "outputs" / "prompts" / "winner")
    texts = tiny_rows()["text"].tolist()[::15]
    scores = winner.predict_proba(texts)
    assert scores.shape == (4, 3)
    assert scores.sum(axis=1) == pytest.approx(np.ones(4))
    pd.DataFrame({"text": texts}).to_csv(folder / "some.csv", index=False)
    done = autopeft_here("predict", "outputs/prompts/winner", "--input", "some.csv", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["label"] for line in lines] == winner.predict(texts)
    assert lines[0]["scores"]["yes"] == pytest.approx(float(scores[0, 2]), rel=1e-4)


@pytest.mark.parametrize("form", ["merged", "peft"])
def test_its_exports_give_the_same_by_their_readme(study, form, monkeypatch):
    folder, _, _ = study
    winner = api.load(folder / "outputs" / "prompts" / "winner")
    to = folder / form
    done = autopeft_here("export", "outputs/prompts", "--format", form, "--to", form, cwd=folder)
    assert done.returncode == 0, done.stderr
    code = (to / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(to)
    if form == "peft":
        code = code.replace(f'"{(winner.card.base_model).rpartition("/")[2]}"', f'"{winner.card.base_model}"')
    known = {}
    with torch.no_grad():
        exec(code, known)  # as a reader would
    found = known["logits"].softmax(-1).numpy()
    np.testing.assert_allclose(found, winner.predict_proba(["a text", "another one"]), rtol=1e-3, atol=1e-5)

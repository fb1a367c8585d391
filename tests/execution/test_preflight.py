"""What would make every trial fail for a reason of the model's is said before the first of them."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from autopeft.common.exceptions import ModelError, SpecError
from autopeft.execution import preflight
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.positions import positions
from autopeft.study.file import StudySpec
from tests.conftest import DTYPE, tiny_rows
from tests.search.test_run import edit
from tests.tiny_models import tiny
from tests.tiny_tokenizers import t5


@pytest.fixture
def study(tiny_study, tiny_model):
    """A tiny study whose model is the test's own."""
    edit(tiny_study, ('methods = ["adapter", "lora", "prefix_tuning"]', 'methods = ["lora"]'))
    (tiny_study.parent / "model").unlink()
    shutil.copytree(tiny_model, tiny_study.parent / "model")
    return tiny_study


def problem(study) -> Problem:
    return Problem.from_spec(StudySpec.from_file(study), discover())


def test_a_model_that_can_learn_passes_and_stays_as_it_was(study):
    given = problem(study)
    before = {name: tensor.clone() for name, tensor in given.base.module.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    preflight.check(given)
    assert torch.equal(torch.rand(3), expected)
    after = given.base.module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert not any(parameter.requires_grad for parameter in given.base.module.parameters())
    assert given.weight_check.restore() == []


def test_a_token_without_an_embedding_is_named(study):
    folder = study.parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["covid", "vaccine"])
    tokenizer.add_tokens(["[IMAGE]"], special_tokens=True)  # no text becomes that
    tokenizer.save_pretrained(folder)
    with pytest.raises(
        ModelError, match=r"but its 64 do not include 'covid' \(64\), 'vaccine' \(65\); save the model again"
    ):
        preflight.check(problem(study))
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    preflight.check(problem(study))


def test_a_special_token_that_no_text_becomes_needs_no_embedding(study):
    folder = study.parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["[IMAGE]"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    preflight.check(problem(study))


def test_a_padding_token_is_asked_for(study):
    given = problem(study)
    for name in ("pad_token", "eos_token", "unk_token"):
        setattr(given.base.processor, name, None)
    with pytest.raises(ModelError, match=r"a padding token, but .* set `pad_token` in its tokenizer_config\.json"):
        preflight.check(given)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_outputs_that_are_no_numbers_are_noticed(study, dtype):
    edit(study, (f'dtype = "{DTYPE}"', f'dtype = "{dtype}"'))
    path = study.parent / "model" / "model.safetensors"
    weights = load_file(path)
    weights["bert.encoder.layer.2.output.dense.weight"][0, 0] = np.inf
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ModelError, match="must give finite numbers, but its outputs for the first rows in"):
        preflight.check(problem(study))


def test_rows_beyond_the_model_are_said_in_one_sentence(study):
    given = problem(study)
    table = given.base.module.bert.embeddings.position_embeddings
    table.weight = torch.nn.Parameter(table.weight[:4], requires_grad=False)
    with pytest.raises(ModelError, match=r"cannot read the study's rows; the longest has 1. tokens"):
        preflight.check(given)


def test_a_head_that_does_not_learn_is_noticed(study):
    given = problem(study)
    module = given.base.module
    module.classifier.register_forward_hook(lambda owner, args, logits: logits * 0.0)
    with pytest.raises(ModelError, match=r"a step of training changes nothing in .*classifier"):
        preflight.check(given)


def test_a_roberta_is_allowed_no_more_tokens_than_it_has_positions_for():
    model = tiny("roberta")
    most = int(positions(model))
    assert most == model.config.max_position_embeddings - 2 == 126
    ids = torch.full((1, most), 5)
    model(input_ids=ids)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, most + 1), 5))


@pytest.mark.parametrize("family", ["opt", "bert", "gpt2"])
def test_a_model_is_allowed_every_position_it_has(family):
    model = tiny(family)
    most = int(positions(model))
    assert most == 128
    model(input_ids=torch.full((1, most), 5))


def test_a_study_says_so_of_a_roberta_whose_tokenizer_names_no_limit(study):
    folder = study.parent / "model"
    tiny("roberta").save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(folder)
    edit(study, ('name_or_path = "model"', 'name_or_path = "model"\nmax_length = 127'))
    with pytest.raises(SpecError, match="at most the model's own limit of 126, but got 127"):
        problem(study)
    edit(study, ("max_length = 127", "max_length = 2"))
    with pytest.raises(
        SpecError, match="at least 3, because the tokenizer adds 2 tokens of its own to a text, but got 2"
    ):
        problem(study)


def test_a_t5_reads_rows_in_which_its_marks_were_typed(study):
    folder = study.parent / "model"
    model = tiny("t5")
    model.config.pad_token_id, model.config.eos_token_id = 0, 1
    model.save_pretrained(folder)
    for path in folder.glob("*token*"):
        path.unlink()
    tokenizer = t5()
    tokenizer.model_max_length = 32
    tokenizer.save_pretrained(folder)
    rows = tiny_rows()
    rows["text"] = [f"fox {text}" for text in rows["text"]]
    rows.loc[::20, "text"] = ["the </s> fox", "the<pad>fox</s>", "</s></s>"]
    pd.DataFrame(rows).to_csv(study.parent / "rows.csv", index=False)
    given = problem(study)
    for part in (given.train, given.test):
        ends = [
            row.tolist().count(1)
            for row in np.split(part.fields["input_ids"].values, part.fields["input_ids"].offsets[1:-1])
        ]
        assert set(ends) == {1}
    preflight.check(given)

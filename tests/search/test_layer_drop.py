"""AdapterDrop: a winner without the add-ons of its lowest layers, and how many layers those are."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from autopeft_adapter.adapter import Bottleneck
from autopeft_prefix_tuning.prefix import CHILD
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

import autopeft
from autopeft.common.exceptions import SpecError, UserInputError
from autopeft.execution.problem import Problem
from autopeft.methods.candidate import Candidate
from autopeft.methods.needed import ready
from autopeft.methods.registry import discover
from autopeft.methods.training_space import TRAINING_SPACE, Hyperparameters
from autopeft.models.attach import attach, trainable
from autopeft.models.marks import LAYER
from autopeft.models.saved_addon import SavedAddOn
from autopeft.search.layer_drop import chosen, decide, dropped, possible, require_layers
from autopeft.search.served import ENSEMBLE, Served
from autopeft.search.without_layers import CannotDropError, without_layers
from autopeft.study.card import Card
from autopeft.study.file import StudySpec
from autopeft.study.folder import CHECKPOINTS
from autopeft.study.sections import WinnerSection
from tests.conftest import THREE, few, write_tiny_study
from tests.plugins.fusion_sources import problem_of
from tests.search.test_run import edit, run_study
from tests.tiny_models import batch, tiny_base

METHODS = sorted(discover().methods)


def candidate_of(name, base, **params):
    method = ready(discover()[name])
    own = {**method.search_space(base.spec).defaults(), **params}
    return Candidate(method, own, Hyperparameters(**TRAINING_SPACE.defaults()))


def trained(base, candidate):
    model = attach(base, candidate.method, candidate.params)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model.eval()(**batch()).logits


def silent(model, count):
    """The model with add-ons in its lowest layers that add nothing, since a last factor of theirs is zero."""
    for layer in model.modules():
        if getattr(layer, LAYER, count) < count:
            for module in layer.modules():
                if isinstance(module, Bottleneck):
                    module.up.weight.data.zero_()
                    module.up.bias.data.zero_()
                if isinstance(module, LoraLayer):
                    module.lora_B["default"].weight.data.zero_()
    return model


@pytest.mark.parametrize("name", ["adapter", "lora"])
def test_low_layers_compute_what_they_compute_in_the_base_model(name):
    base = tiny_base("bert")
    candidate = candidate_of(name, base)
    model = trained(base, candidate)
    before = logits(model)
    for count in range(4):
        lower = without_layers(base, candidate, model, count)
        assert torch.equal(logits(model), before)
        torch.testing.assert_close(logits(lower), logits(silent(trained(base, candidate), count)), atol=1e-6, rtol=1e-5)
        names = {name.split("layer.")[1][0] for name in trainable(lower) if "layer." in name}
        assert names == {*map(str, range(count, 4))}
    assert float((logits(lower) - before).abs().max()) > 1e-3


CANNOT = {
    "bitfit": "changes more than",
    "mixed": "cannot leave 1 layer alone: .*positions",
    "prefix_tuning": "cannot leave 1 layer alone: .*positions",
    "prompt_tuning": "changes more than",
}


@pytest.mark.parametrize("name", few(METHODS, "adalora", "bitfit", "fusion", "mixed", "prompt_tuning"))
def test_a_method_leaves_low_layers_alone_or_it_is_said_that_it_does_not(name):
    base = tiny_base("bert")
    candidate = candidate_of(name, base)
    model = trained(base, candidate)
    torch.testing.assert_close(logits(without_layers(base, candidate, model, 0)), logits(model))
    if name in CANNOT:
        with pytest.raises(CannotDropError, match=CANNOT[name]):
            without_layers(base, candidate, model, 1)
    else:
        lower = without_layers(base, candidate, model, 3)
        trained_below = sum(map(torch.numel, trainable(lower).values()))
        head_alone = name == "merged"  # by default it trains nothing else
        assert (trained_below < sum(map(torch.numel, trainable(model).values()))) != head_alone
        assert not torch.equal(logits(lower), logits(model))
    with pytest.raises(CannotDropError, match=r"cannot leave 4 layers alone|changes more"):
        without_layers(base, candidate, model, 4)


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_prefixes_are_dropped_where_that_leaves_the_positions_as_they_were(model_type):
    base = tiny_base(model_type)
    layers = "all" if model_type == "distilbert" else "top_half"
    candidate = candidate_of("prefix_tuning", base, layers=layers)
    model = trained(base, candidate)
    lower = without_layers(base, candidate, model, 3)
    for layer in base.spec.layers[:3]:
        for module in model.get_submodule(layer).modules():
            module._modules.pop(CHILD, None)
    torch.testing.assert_close(logits(lower), logits(model))


def test_adapterhub_is_told_which_layers_have_no_adapter(tmp_path):
    base = tiny_base("bert")
    candidate = candidate_of("adapter", base)
    lower, spec = without_layers(base, candidate, trained(base, candidate), 2), base.bare_below(2).spec
    assert candidate.method.export(lower, candidate.params, spec, "adapterhub", tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["config"]["leave_out"] == [0, 1]
    assert {name.split("layer.")[1][0] for name in load_file(tmp_path / "adapter.safetensors")} == {"2", "3"}


def test_biases_of_some_maps_can_be_left_alone():
    base = tiny_base("bert")
    candidate = candidate_of("bitfit", base, biases="feed_forward")
    frozen = {name: tensor.clone() for name, tensor in base.module.state_dict().items()}
    lower = without_layers(base, candidate, trained(base, candidate), 2)
    assert len([name for name in trainable(lower) if "layer." in name]) == 4
    assert all(torch.equal(frozen[name], tensor) for name, tensor in base.module.state_dict().items())


def test_layers_go_as_long_as_the_score_is_within_one_standard_error():
    folds = [0.70, 0.80, 0.90]  # mean 0.8, standard error 0.0577
    assert chosen({0: folds, 1: [0.75] * 3, 2: [0.743] * 3, 3: [0.742] * 3, 4: [0.8] * 3}) == 2
    assert chosen({0: folds, 1: [0.75] * 3, 2: [0.5] * 3, 3: [0.743] * 3}) == 1
    assert chosen({0: [0.8] * 3, 1: [0.79] * 3, 2: [0.8] * 3}) == 0
    assert chosen({0: [0.8], 1: [0.7]}) == 0
    assert chosen({0: [], 1: []}) == 0


def test_models_of_several_folds_lose_them_one_after_the_other():
    base = tiny_base("bert")
    candidate, problem = candidate_of("lora", base), type("Base", (), {"base": base})
    models = (trained(base, candidate) for _ in range(2))
    made = dropped(problem, candidate, Served(models, ENSEMBLE), 2)
    assert [len(trainable(model)) for model in made.models] == [10, 10]  # two layers, two maps, A and B; and the head
    assert dropped(problem, candidate, made, 0) is made


def test_a_study_may_not_ask_for_more_layers_than_there_are_or_for_another_kind_of_model(tmp_path, tiny_model):
    problem = problem_of(write_tiny_study(tmp_path, tiny_model))

    def asking(number, base=problem.base):
        spec = problem.spec.model_copy(update={"winner": WinnerSection(drop_layers=number)})
        require_layers(replace(problem, spec=spec, base=base))

    asking(3)
    asking("auto")
    with pytest.raises(
        SpecError, match="must be below the number of layers of BertForSequenceClassification, which is 4"
    ):
        asking(4)
    with pytest.raises(SpecError, match="one stack"):
        asking("auto", tiny_base("t5"))
    for wrong in (-1, True, 1.5, "all"):
        with pytest.raises(SpecError, match="drop_layers"):
            StudySpec.from_mapping({**problem.spec.to_dict(), "winner": {"drop_layers": wrong}}, folder=tmp_path)


@pytest.mark.parametrize("wanted", [2, "auto"])
def test_a_winner_whose_method_cannot_keeps_all_add_ons_and_says_why(tmp_path, tiny_model, wanted):
    problem, said = problem_of(write_tiny_study(tmp_path, tiny_model)), []
    problem = replace(problem, spec=problem.spec.model_copy(update={"winner": WinnerSection(drop_layers=wanted)}))
    found = decide(problem, candidate_of("bitfit", problem.base), said.append)
    assert (found.count, found.sections) == (0, ())
    assert "because bitfit changes more than the layers above the lowest 1" in found.told
    assert said == [f"`drop_layers` in [winner] is {wanted}, but {found.told}."]


def test_layers_that_have_no_add_on_lose_none(tmp_path, tiny_model):
    problem, said = problem_of(write_tiny_study(tmp_path, tiny_model)), []
    problem = replace(problem, spec=problem.spec.model_copy(update={"winner": WinnerSection(drop_layers=2)}))
    found = decide(problem, candidate_of("adapter", problem.base, layers="top_half"), said.append)
    assert (found.count, found.sections) == (0, ())
    assert "because adapter has no add-on in the lowest 2 layers anyway" in found.told
    counts, why = possible(problem, candidate_of("adapter", problem.base, layers="top_half"), 3)
    assert (counts, "anyway" in why) == ([0, 3], True)


def test_a_winner_whose_folds_cannot_be_trained_again_keeps_all_add_ons(tmp_path, tiny_model):
    problem, said = problem_of(write_tiny_study(tmp_path, tiny_model)), []
    problem = replace(problem, spec=problem.spec.model_copy(update={"winner": WinnerSection(drop_layers="auto")}))
    candidate = candidate_of("lora", problem.base)
    diverging = replace(candidate, hyper=replace(candidate.hyper, learning_rate=1e30))
    found = decide(problem, diverging, said.append)
    assert found.count == 0
    assert "did not complete" in found.told


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_model):
    """A finished study of LoRA, whose winner has all of its add-ons."""
    found = write_tiny_study(tmp_path_factory.mktemp("drop"), tiny_model)
    edit(found, (THREE, 'methods = ["lora"]'), ("trials = 4", "trials = 1\nrace = 0"), ("epochs = 4", "epochs = 8"))
    edit(found, add="[winner]\ndrop_layers = 0\n")
    run_study(found)
    return found


def sections_of(study):
    path = study.parent / "outputs" / "tiny" / "report_sections.json"
    found = json.loads(path.read_text()) if path.is_file() else []
    return [one for one in found if one["title"] == "Low layers without add-ons"]


def test_a_winner_without_low_add_ons_predicts_what_it_should_and_saves_less(study):
    folder, rows = study.parent / "outputs" / "tiny" / "winner", ["w0 w12", "w1 w30 w31", "w2 w40"]
    whole = autopeft.load(folder)
    size = (folder / "adapter_model.safetensors").stat().st_size
    assert not sections_of(study)
    edit(study, ("drop_layers = 0", "drop_layers = 2"))
    result = run_study(study)
    lower = autopeft.load(folder)
    assert lower.card.dropped_layers == 2
    assert (folder / "adapter_model.safetensors").stat().st_size < size
    silent(whole.module, 2)
    np.testing.assert_allclose(lower.predict_proba(rows), whole.predict_proba(rows), atol=1e-6)
    assert not any("layer.1." in name for name, _ in lower.module.named_parameters() if "lora" in name)
    assert "of the lowest 2 layers" in (folder / "README.md").read_text()
    assert Card.read(folder.parent / "mlflow_model" / "data" / "winner") == lower.card
    (section,) = sections_of(study)
    assert [row[0] for row in section["table"]["rows"]] == ["0", "2 (the winner)"]
    assert section["table"]["rows"][1][3] != section["table"]["rows"][0][3]
    problem = Problem.from_spec(StudySpec.from_file(study), discover())
    score = problem.task.score(problem.metric, problem.test.truths, lower.answers(problem.rows.test[["text"]]))
    assert result["test"]["winner"] == pytest.approx(score)
    assert result["test"]["defaults"]["lora"] is not None
    with pytest.raises(UserInputError, match="lacks the add-ons of its lowest 2 layers"):
        SavedAddOn.read(folder, folder.parent)
    lower.save(study.parent / "again")
    np.testing.assert_array_equal(autopeft.load(study.parent / "again").predict_proba(rows), lower.predict_proba(rows))
    edit(study, ("drop_layers = 2", "drop_layers = 0"))


def test_the_folds_decide_how_many_layers_lose_their_add_ons(study):
    edit(study, ("drop_layers = 0", 'drop_layers = "auto"'))
    run_study(study)
    card = autopeft.load(study.parent / "outputs" / "tiny" / "winner").card
    (section,) = sections_of(study)
    lines = section["table"]["rows"]
    assert [int(line[0].split()[0]) for line in lines] == [0, 1, 2, 3]
    error = float(section["text"].split("standard error (")[1].split(")")[0])
    means = [float(line[1]) for line in lines]
    best = max(place for place, mean in enumerate(means) if mean >= means[0] - error - 1e-4)
    assert card.dropped_layers == best == next(place for place, line in enumerate(lines) if "winner" in line[0])
    assert [int(line[2].replace(",", "")) for line in lines] == sorted(
        (int(line[2].replace(",", "")) for line in lines), reverse=True
    )
    assert not [*(study.parent / "outputs" / "tiny" / CHECKPOINTS).glob("*")]
    edit(study, ('drop_layers = "auto"', "drop_layers = 0"))

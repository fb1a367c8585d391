"""EVA: A starts from the directions in which the inputs of its map vary most, in the rows that the fold trains on."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from autopeft_lora import Dora, Lora, activations
from autopeft_lora.method import TARGETS
from peft import EvaConfig, LoraConfig, get_eva_state_dict, get_peft_model

from autopeft import TrainingRows
from autopeft.common.seeds import REFIT_STREAM
from autopeft.data.split import split
from autopeft.execution.problem import Problem
from autopeft.execution.run_trial import run_trial
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.models.architecture import describe
from autopeft.models.attach import attach, trainable
from autopeft.models.base import BaseModel
from autopeft.search.refit import refit
from autopeft.study.file import StudySpec
from autopeft.study.states import COMPLETE
from autopeft.tasks.registry import find_task
from autopeft.testing.task_case import TaskCase
from autopeft.training.batch_plan import Execution
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.cross_validation import cross_validate
from autopeft.training.initial_values import initial_values
from autopeft.training.packing import pack
from autopeft.training.setup import Setup
from tests.conftest import few
from tests.tiny_models import FAMILIES, learnable_rows, tiny_base
from tests.training.test_learner import CPU, HYPER, TASK

DATA = learnable_rows()
FOLDS = split(len(DATA), DATA.truths, None, 3, seed=0)
SETUP = Setup(TASK, DATA, FOLDS, CPU, "accuracy", seed=5)
ALL = {"init_lora_weights": "eva", "target_modules": "all_linear"}


def candidate_of(base, kind=Lora, **params):
    found = CandidateSpace.build([kind()], base.spec, {}, ())[kind.name].default()
    return replace(found, params={**found.params, **ALL, **params}, hyper=HYPER)


def started(base, rows, setup=SETUP, *, stream=0, most=64, kind=Lora, **params):
    """A model with LoRA on, and what its A start from, by the name of the map."""
    candidate = candidate_of(base, kind, **params)
    model = attach(base, candidate.method, candidate.params)
    found = initial_values(model, candidate, base.spec, setup, rows, stream, most)
    return model, {name.removeprefix("base_model.model.").partition(".lora_A")[0]: a for name, a in found.items()}


def inputs(base, run, mask_of):
    """What each linear map is given: `[tokens, width]`."""
    found, hooks = {}, []
    for linear in base.spec.linears:

        def see(module, args, linear=linear):
            found.setdefault(linear.name, []).append(args[0][mask_of(linear)])

        hooks.append(base.module.get_submodule(linear.name).register_forward_pre_hook(see))
    with torch.no_grad():
        run(base.module.eval())
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def share(directions, vectors):
    """Of the variance of the vectors, what is along orthonormal directions."""
    centred = vectors - vectors.mean(0)
    return float((centred @ directions.T).square().sum() / centred.square().sum())


def most(vectors, rank):
    """The most that so many directions can have."""
    values = torch.linalg.svdvals(vectors - vectors.mean(0)).square()
    return float(values[:rank].sum() / values.sum())


def of_tokens(base, rows=None):
    batch = DATA.batch(np.arange(len(DATA)) if rows is None else rows)
    return inputs(base, lambda model: TASK.run(model, batch), lambda linear: batch["attention_mask"].bool())


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_a_has_the_directions_that_pefts_has(family):
    base = tiny_base(family)
    _, ours = started(base, DATA.everything, r=4)
    batch = {name: tensor for name, tensor in DATA.batch(DATA.everything).items() if name != "labels"}
    names = [linear.name for linear in base.spec.linears]
    config = LoraConfig(r=4, target_modules=names, init_lora_weights="eva", eva_config=EvaConfig(rho=1.0),
                        fan_in_fan_out=family == "gpt2")  # fmt: skip
    theirs = get_eva_state_dict(get_peft_model(copy.deepcopy(base.module), config), [batch], show_progress_bar=False)
    vectors = of_tokens(base)
    assert set(ours) == set(vectors) == {name.removeprefix("base_model.model.") for name in theirs}
    for name, own in vectors.items():
        torch.testing.assert_close(ours[name] @ ours[name].T, torch.eye(4), atol=1e-4, rtol=0)
        exact = most(own, 4)
        assert share(ours[name], own) == pytest.approx(exact, rel=5e-3)  # from a random start
        assert share(theirs[f"base_model.model.{name}"].float(), own) == pytest.approx(exact, rel=2e-2)


@pytest.mark.parametrize("kind", [Lora, Dora])
def test_it_starts_from_the_base_models_output_at_any_rank(kind):
    base = tiny_base("bert")
    batch = DATA.batch(np.arange(6))
    for rank in (3, 64):  # the second is over the rank of any weight there
        model, values = started(base, DATA.everything, kind=kind, r=rank)
        for name, a in values.items():
            place = model.get_parameter(f"base_model.model.{name}.lora_A.default.weight")
            assert not torch.equal(place, a)
            place.data.copy_(a)
        with torch.no_grad():
            found, expected = (TASK.run(one.eval(), batch).logits for one in (model, base.module))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        drawn = model.get_submodule(f"base_model.model.{base.spec.linears[0].name}").lora_A["default"].weight
        assert drawn.shape[0] == rank
        assert float(drawn.detach().norm(dim=1).min()) > 0


def test_batches_one_after_the_other_tell_what_all_at_once_do():
    base = tiny_base("bert")
    vectors = of_tokens(base)
    for few_rows in (4, 64):
        _, values = started(base, DATA.everything, r=4, most=few_rows)
        for name, a in values.items():
            assert share(a, vectors[name]) > 0.98 * most(vectors[name], 4)


def test_vectors_in_pieces_have_the_directions_of_all(monkeypatch):
    torch.manual_seed(0)
    vectors = torch.randn(500, 20) * torch.logspace(0, -2, 20) + 5 * torch.randn(20)
    left = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False)[2][:3]
    for places in (1024, 60, 1):
        monkeypatch.setattr(activations, "PLACES", places)
        found = activations.Directions(6)
        for part in vectors.split(170):
            found.add(part)
            found.add(part[:0])
        cosines = (found.leading(3) * left).sum(1).abs()
        assert float(cosines.min()) > 0.99
    flat = activations.Directions(6)
    flat.add(torch.randn(9, 2) @ torch.randn(2, 20))
    assert flat.leading(5).shape == (2, 20)


def test_maps_that_are_given_the_same_share_the_work(monkeypatch):
    base, added = tiny_base("bert"), []
    add = activations.Directions.add
    monkeypatch.setattr(activations.Directions, "add", lambda self, x: added.append(len(x)) or add(self, x))
    _, values = started(base, DATA.everything, r=2)
    assert len(values) == 6 * 4
    assert len(added) == 4 * 4, "queries, keys and values have one between them"
    query, key, value = (values[base.spec.modules(role)[1]] for role in ("query", "key", "value"))
    assert torch.equal(query, key)
    assert torch.equal(query, value)
    assert set(added) == {int(DATA.lengths.sum())}, "tokens alone, no padding"


def test_rows_that_the_fold_does_not_train_on_do_not_matter():
    base = tiny_base("bert")
    tokens = DATA.fields["input_ids"].values.copy()
    fold = FOLDS[0]
    for row in fold.validation:
        tokens[DATA.fields["input_ids"].offsets[row] : DATA.fields["input_ids"].offsets[row + 1]] = 7
    field = replace(DATA.fields["input_ids"], values=tokens)
    other = replace(SETUP, rows=replace(DATA, fields={**DATA.fields, "input_ids": field}))
    (_, one), (_, two) = (started(base, fold.train, setup, r=4) for setup in (SETUP, other))
    assert all(torch.equal(one[name], two[name]) for name in one)
    _, three = started(base, FOLDS[1].train, r=4, stream=1)
    assert any(not torch.allclose(one[name], three[name], atol=1e-2) for name in one)


def test_a_long_fold_is_looked_at_in_part_drawn_by_the_seed_and_the_fold():
    base = tiny_base("bert")
    many = replace(SETUP, rows=learnable_rows(200))

    def tokens(stream, seed=5):
        candidate = candidate_of(base)
        seen = []

        class Seeing(Lora):
            def initial_values(self, model, batches, params, spec):
                for batch in batches:
                    seen.append(batch.tensors["input_ids"])
                    batch.run(model)
                return {}

        candidate = replace(candidate, method=Seeing())
        model = attach(base, candidate.method, candidate.params)
        initial_values(model, candidate, base.spec, replace(many, seed=seed), np.arange(200), stream, most=8)
        return seen

    first = tokens(0)
    assert [len(batch) for batch in first] == [HYPER.batch_size] * 8
    assert [batch.shape[1] for batch in first] == sorted((batch.shape[1] for batch in first), reverse=True)
    assert all(torch.equal(one, two) for one, two in zip(first, tokens(0), strict=True))
    for other in (tokens(1), tokens(0, seed=6)):
        assert any(one.shape != two.shape or not torch.equal(one, two) for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize("family", few(FAMILIES, "deberta-v2", "albert"))
def test_every_family_starts_from_what_its_maps_are_given(family):
    base = tiny_base(family)
    model, values = started(base, DATA.everything, r=4)
    assert set(values) == set(TARGETS.on(base.spec)["all_linear"])
    drawn = trainable(model)
    for name, a in values.items():
        torch.testing.assert_close(a @ a.T, torch.eye(4), atol=1e-3, rtol=0)
        assert not torch.allclose(a, drawn[f"base_model.model.{name}.lora_A.default.weight"])
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(("kind", "family"), [("causal-lm", "gpt2"), ("seq2seq", "t5"), ("multiple-choice", "bert")])
def test_tokens_count_whatever_the_kind_of_task(kind, family):
    case = TaskCase(find_task(kind), family)
    spec = describe(case.model, case.task.kind, case.task.peft_task_type, new_head=case.task.new_head)
    base = BaseModel(copy.deepcopy(case.model).requires_grad_(False), None, spec)
    setup = Setup(case.task, case.data, (), CPU, case.task.metric(None), seed=0)
    _, values = started(base, case.data.everything, setup, r=3)
    batch = case.data.batch(case.data.everything)
    read = batch["attention_mask"].bool()
    if read.ndim > 2:
        read = read.transpose(1, 2).flatten(0, 1)
    assert not read.all()

    def mask_of(linear):
        from_encoder = linear.cross and linear.role in ("key", "value")
        return batch["labels"] != -100 if "decoder" in linear.name and not from_encoder else read

    for name, own in inputs(base, lambda model: case.task.run(model, batch), mask_of).items():
        assert share(values[name], own) == pytest.approx(most(own, 3), rel=1e-2), name


def test_what_of_a_modules_inputs_are_tokens():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    rows = TrainingRows({"input_ids": mask, "attention_mask": mask}, run=lambda model: None)
    states = torch.arange(6.0).reshape(2, 3, 1)
    assert rows.filled(states).flatten().tolist() == [0, 1, 3]
    assert rows.filled(states.reshape(6, 1)).flatten().tolist() == [0, 1, 3]
    assert rows.filled(torch.ones(2, 4)).shape == (2, 4)  # one state of each row
    assert rows.filled(torch.ones(1, 512, 4)).shape == (0, 4)  # of positions
    images = TrainingRows({"pixel_values": torch.ones(2, 3, 4, 4)}, run=lambda model: None)
    assert images.filled(torch.ones(2, 5, 4)).shape == (10, 4)


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def test_folds_that_are_packed_start_and_learn_as_each_alone():
    base = tiny_base("bert")
    candidate = candidate_of(base, r=4)
    curves, states = [], []
    for execution in (Execution(8), Execution(8, folds=3)):
        model = without_dropout(attach(base, candidate.method, candidate.params))
        starts = [
            initial_values(model, candidate, base.spec, SETUP, fold.train, index, 8) for index, fold in enumerate(FOLDS)
        ]
        if execution.folds > 1:
            pack(model, 3)
        found = list(cross_validate(model, replace(SETUP, starts=starts), HYPER, execution=execution))
        curves.append(([rung.scores for rung in found], [rung.loss for rung in found]))
        states.append(starts)
    assert curves[0][0] == curves[1][0]
    assert curves[0][1] == pytest.approx(curves[1][1], rel=1e-3)
    assert all(torch.equal(one[name], two[name]) for one, two in zip(*states, strict=True) for name in one)
    plain = list(cross_validate(without_dropout(attach(base, candidate.method, candidate.params)), SETUP, HYPER))
    assert [rung.loss for rung in plain] != pytest.approx(curves[0][1], rel=1e-3)


class Stopping(Checkpoint):
    """The power is cut once so many folds are kept."""

    left = [3]  # noqa: RUF012  # counted down

    def keep(self, *state):
        super().keep(*state)
        self.left[0] -= 1
        if not self.left[0]:
            raise KeyboardInterrupt


def named(tiny_study):
    text = tiny_study.read_text().replace("[validation]", 'lora.init_lora_weights = "eva"\nlora.r = 4\n[validation]')
    tiny_study.write_text(text)
    return Problem.from_spec(StudySpec.from_file(tiny_study), discover())


def test_a_trial_goes_on_as_if_it_never_stopped(tiny_study, tmp_path, monkeypatch):
    problem = named(tiny_study)
    candidate = problem.space["lora"].default()
    assert candidate.params["init_lora_weights"] == "eva"
    whole = run_trial(problem, candidate, lambda rung: None)
    assert whole.state == COMPLETE, whole.reason
    with pytest.raises(KeyboardInterrupt):
        run_trial(problem, candidate, lambda rung: None, Stopping(tmp_path / "trial"))
    looked = []
    first_values = activations.first_values
    monkeypatch.setattr(activations, "first_values", lambda *a: looked.append(a) or first_values(*a))
    again = run_trial(problem, candidate, lambda rung: None, Checkpoint(tmp_path / "trial"))
    assert [rung.scores for rung in again.rungs] == [rung.scores for rung in whole.rungs]
    assert [rung.loss for rung in again.rungs] == [rung.loss for rung in whole.rungs]
    assert not looked, "both folds had reached a rung"


def test_the_winner_starts_from_all_training_rows(tiny_study):
    problem = named(tiny_study)
    candidate = problem.space["lora"].default()
    still = replace(candidate, hyper=replace(candidate.hyper, learning_rate=1e-12, epochs=1))
    trained = trainable(refit(problem, still))
    model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed)
    most_rows = problem.cost_estimator(still).execution.micro_batch
    start = initial_values(
        model, still, problem.base.spec, problem.setup(still), problem.all_rows, REFIT_STREAM, most_rows
    )
    assert start
    for name, value in start.items():
        torch.testing.assert_close(trained[name].detach(), value, atol=1e-6, rtol=0)

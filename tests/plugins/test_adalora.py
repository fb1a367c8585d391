"""AdaLoRA: what it starts with, whose ranks it gives up and when, and that every fold has a schedule of its own."""

import itertools

import numpy as np
import pytest
import torch
from autopeft_adalora import AdaLora
from autopeft_adalora.method import TARGETS
from peft import PeftModel

from autopeft.data.split import split
from autopeft.models.attach import attach, merged, trainable
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.cross_validation import cross_validate
from autopeft.training.learner import Learner, train_epoch
from autopeft.training.setup import Setup
from tests.tiny_models import batch, tiny_base
from tests.training.test_learner import CPU, HYPER, TASK, rows

DATA = rows()
FOLDS = split(len(DATA), DATA.truths, None, 3, seed=0)
OPTIONS = {"task": TASK, "metric": "accuracy", "device": CPU, "seed": 5}


def adalora(family="bert", *, meta=False, **changes):
    base = tiny_base(family)
    params = {**AdaLora().search_space(base.spec).defaults(), "target_r": 2, "initial_ratio": 2.0, **changes}
    model = attach(base, AdaLora(), params, meta=meta)
    return model, AdaLora().callback(model, params, base.spec)


def parts(model, kind):
    return {name: p for name, p in model.named_parameters() if f".lora_{kind}." in name}


def ranks(values):
    return [int((value != 0).sum()) for value in values]


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("group", TARGETS.names)
def test_a_target_starts_with_its_initial_rank_times_both_sides_and_one(family, group):
    base = tiny_base(family)
    model, _ = adalora(family, meta=True, target_modules=group)
    wanted = [linear for linear in base.spec.linears if linear.name in TARGETS.on(base.spec)[group]]
    found = sum(p.numel() for name, p in trainable(model).items() if ".lora_" in name)
    assert found == sum(4 * (linear.in_features + linear.out_features + 1) for linear in wanted) > 0


@pytest.mark.parametrize(("target", "ratio", "initial"), [(1, 1.25, 2), (8, 1.5, 12), (32, 3.0, 96)])
def test_there_is_always_a_rank_to_give_up(target, ratio, initial):
    model, _ = adalora(meta=True, target_r=target, initial_ratio=ratio)
    assert {len(e) for e in parts(model, "E").values()} == {initial}


def walk(schedule, model, total, seed=0):
    """The ranks left in all after each step, with gradients drawn for the occasion."""
    generator = torch.Generator().manual_seed(seed)
    schedule.start(total)
    left = []
    for step in range(1, total + 1):
        with torch.no_grad():
            for parameter in trainable(model).values():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            schedule.before_update(step)
            for parameter in trainable(model).values():
                parameter -= 1e-2 * parameter.grad
            schedule.after_update(step)
        left.append(sum(ranks(parts(model, "E").values())))
    return left


def test_ranks_fall_with_the_cube_between_the_two_shares_to_the_target_on_average():
    model, schedule = adalora(initial_share=0.2, final_share=0.3)
    modules = len(parts(model, "E"))
    left = walk(schedule, model, 50)
    for step, count in enumerate(left, 1):
        progress = min(max((step - 10) / (35 - 10), 0), 1)
        assert count == int(modules * (2 + 2 * (1 - progress) ** 3)), step  # Zhang et al., equation 13
    assert len(set(ranks(parts(model, "E").values()))) > 1, "targets keep different ranks"


@pytest.mark.parametrize("total", [1, 2, 3, 7])
@pytest.mark.parametrize("shares", [(0.0, 0.1), (0.3, 0.6)])
def test_short_trainings_end_at_the_target_too(total, shares):
    model, schedule = adalora(initial_share=shares[0], final_share=shares[1])
    assert walk(schedule, model, total)[-1] == 2 * len(parts(model, "E"))


def test_no_rank_is_taken_away_before_anything_was_learnt():
    model, schedule = adalora(initial_share=0.0, orthogonality=0.0)
    learner = Learner(model, HYPER, 32, callback=schedule)
    train_epoch(learner, DATA, [FOLDS[0].train[:32]], TASK, CPU, [0], 0)
    assert learner.done > 1
    assert sum(ranks(parts(model, "E").values())) > 0


def test_the_ranks_that_weigh_most_are_kept():
    model, schedule = adalora(target_modules="query_value")
    schedule.start(10)
    values = parts(model, "E")
    strong = next(iter(values))
    with torch.no_grad():
        for step in range(1, 11):
            for name, parameter in trainable(model).items():
                large = name.partition(".lora_")[0] == strong.partition(".lora_")[0]
                parameter.fill_(1.0)
                parameter.grad = torch.full_like(parameter, 10.0 if large else 1.0).mul_(
                    1 + torch.rand(parameter.shape)
                )
            schedule.before_update(step)
            schedule.after_update(step)
    assert ranks([values[strong]]) == [4]


def test_the_added_loss_is_zero_for_orthonormal_maps_and_grows_with_what_they_lack():
    model, schedule = adalora(orthogonality=0.5)
    with torch.no_grad():
        for p in (*parts(model, "A").values(), *parts(model, "B").values()):
            torch.nn.init.orthogonal_(p)
    assert schedule.loss().item() < 1e-5
    with torch.no_grad():
        for p in (*parts(model, "A").values(), *parts(model, "B").values()):
            p *= 2**0.5
    assert schedule.loss().item() == pytest.approx(0.5 * 4**0.5, rel=1e-4)  # ‖2·1 - 1‖ over four ranks
    assert adalora(orthogonality=0.0)[1].loss() is None


def curve(folds=FOLDS, checkpoint=None, count=9):
    base = tiny_base("bert")
    params = {**AdaLora().search_space(base.spec).defaults(), "target_r": 2, "target_modules": "query_value"}
    model = attach(base, AdaLora(), params)
    made = []

    def make():
        made.append(AdaLora().callback(model, params, base.spec))
        return made[-1]

    steps = cross_validate(
        model, Setup(rows=DATA, folds=folds, **OPTIONS), HYPER, checkpoint=checkpoint, make_callback=make
    )
    return [(rung.scores, rung.loss) for rung in itertools.islice(steps, count)], made


def test_folds_that_take_turns_keep_their_own_scores_and_ranks():
    together, schedules = curve()
    alone, (schedule,) = curve(FOLDS[:1])
    first, second = (one.state() for one in schedules[:2])
    assert all(torch.equal(tensor, first[name]) for name, tensor in schedule.state().items())
    assert not any(torch.equal(first[name], second[name]) for name in first if not name.startswith("kept."))
    for one in schedules:
        kept = [tensor for name, tensor in one.state().items() if name.startswith("kept.")]
        assert sum(int(tensor.sum()) for tensor in kept) == 2 * len(kept)
    assert [scores[0] for scores, _ in together] == [scores[0] for scores, _ in alone]


@pytest.mark.parametrize("reached", [1, 2])
def test_an_interrupted_schedule_goes_on_as_if_nothing_happened(tmp_path, reached):
    whole, expected = curve()
    checkpoint = Checkpoint(tmp_path / "trial")
    curve(checkpoint=checkpoint, count=reached)
    again, schedules = curve(checkpoint=checkpoint)
    assert again == whole
    for schedule, other in zip(schedules, expected, strict=True):
        assert schedule.state().keys() == other.state().keys()
        assert all(torch.equal(tensor, other.state()[name]) for name, tensor in schedule.state().items())


def test_a_trained_one_is_loaded_and_merged_without_its_schedule(tmp_path):
    model, schedule = adalora()
    learner = Learner(model, HYPER, 24, callback=schedule)
    learner.take_turn()
    while learner.done < learner.steps:
        learner.step(learner.load(DATA, [np.arange(24)], "cpu"), TASK, CPU)
    assert sum(ranks(parts(model, "E").values())) == 2 * len(parts(model, "E"))
    answers = batch()
    del answers["labels"]
    with torch.no_grad():
        expected = model.eval()(**answers).logits
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(tiny_base("bert").copy(), tmp_path).eval()
        torch.testing.assert_close(loaded(**answers).logits, expected)
        plain = merged(model, AdaLora())
        torch.testing.assert_close(plain(**answers).logits, expected, atol=1e-5, rtol=1e-4)

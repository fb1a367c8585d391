"""Rules about training: what it changes, that it helps, and that folds which take turns do not affect each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from autopeft.common.seeds import seeded
from autopeft.methods.contract import PeftMethod
from autopeft.models.attach import trainable
from autopeft.models.marks import GROUPS
from autopeft.models.modes import train_mode
from autopeft.testing.case import CPU, STEPS, TASK, logits, of_head, same
from autopeft.testing.rule import BrokenRuleError, rule
from autopeft.testing.tiny import tiny_base
from autopeft.training.batch import Batch

if TYPE_CHECKING:
    from torch import nn

    from autopeft.testing.case import Case
    from autopeft.training.learner import Learner

LEARNING_STEPS = 8
LEAST_GAIN = 0.01
"""Share of the loss that the add-on alone must remove in this many steps; one that is not connected removes none."""

BFLOAT16 = 0.1
"""Largest difference of an output that bfloat16 explains, and the same as a share of the output."""


@rule()
def leaves_the_base_as_it_was(case: Case) -> str | None:
    """Applying and training the add-on changes neither a tensor nor the configuration of the base model.

    The model that apply() gets shares its frozen tensors with every other trial. Put modules beside or around the
    base's and never write into its tensors; the method may change the structure and configuration of its copy.
    """
    before = tiny_base(case.family).module
    case.train()
    after = case.base.module.state_dict()
    changed = [name for name, tensor in before.state_dict().items() if not torch.equal(tensor, after[name])]
    if changed:
        raise BrokenRuleError(f"{changed[0]} of the base model has changed.", case.defaults)
    if any(parameter.requires_grad for parameter in case.base.module.parameters()):
        raise BrokenRuleError("a parameter of the base model now requires gradients.", case.defaults)
    if case.base.module.config.to_dict() != before.config.to_dict():  # type: ignore[operator,union-attr]
        raise BrokenRuleError("the configuration of the base model has changed.", case.defaults)
    return None


@rule()
def learns(case: Case) -> str | None:
    """With a frozen head, training the add-on teaches the model to answer with one class.

    Gradients must reach the add-on from the first update on, or at the latest from the second: of two factors only one
    may start at zero. The learning rates of training_space() must be high enough for the method. If the defaults train
    only the head, this is about the first params that train more.
    """
    head, rows = case.base.spec.head, case.batch()
    params = next((one for one in case.corners if _of_add_on(case.attach(one), head)), None)
    if params is None:
        raise BrokenRuleError("nothing but the head is trained, at any params.", case.defaults)
    model = case.attach(params)
    rows = Batch({**rows.tensors, "labels": torch.zeros_like(rows.tensors["labels"])}, rows.sizes)
    for name, parameter in trainable(model).items():
        parameter.requires_grad_(not of_head(name, head))
    learner = case.learner(model, params, LEARNING_STEPS)
    model.eval()
    losses = [float(learner.step([rows], TASK, CPU)) for _ in range(LEARNING_STEPS)]
    last = float(torch.nn.functional.cross_entropy(logits(model, rows), rows.tensors["labels"]))
    if not last < (1 - LEAST_GAIN) * losses[0]:
        seen = f"in {LEARNING_STEPS} steps at a learning rate of {learner.hyper.learning_rate:g} the loss went from "
        raise BrokenRuleError(f"{seen}{losses[0]:.4f} to {last:.4f}.", params)
    return None


def _of_add_on(model: nn.Module, head: tuple[str, ...]) -> bool:
    """Whether anything but the head is trained."""
    return not all(of_head(name, head) for name in trainable(model))


@rule()
def runs_in_bfloat16(case: Case) -> str | None:
    """Under autocast in bfloat16 the outputs stay close to those in float32, and the gradients are finite.

    Leave the precision of products to autocast; if a tensor must have another's precision, use `x.to(other.dtype)`.
    """
    model, rows = case.attach(case.defaults), case.batch()
    exact = logits(model, rows)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(**TASK.model_inputs(rows.tensors)).logits
    found.float().sum().backward()
    if not torch.allclose(found.detach().float(), exact, atol=BFLOAT16, rtol=BFLOAT16):
        difference = float((found.detach().float() - exact).abs().max())
        raise BrokenRuleError(f"an output differs by {difference:.3g}.", case.defaults)
    odd = [n for n, p in trainable(model).items() if p.grad is not None and not torch.isfinite(p.grad).all()]
    if odd:
        raise BrokenRuleError(f"the gradient of {odd[0]} is not finite.", case.defaults)
    return None


@rule()
def groups_hang_on_the_params_alone(case: Case) -> str | None:
    """The groups of parameter_groups() are the same each time, with weights and without, at any params.

    Make them only from the names and shapes that it gets, the params and the model's description: scores cannot be
    repeated if the learning rate differs in the next fold, or after an interruption.
    """
    if type(case.method).parameter_groups is PeftMethod.parameter_groups:
        return "the method has no groups of parameters"
    for params in case.corners:
        first, again, meta = (getattr(case.attach(params, meta=meta), GROUPS) for meta in (False, False, True))
        if not first == again == meta:
            other = "without weights" if first == again else "the second time"
            raise BrokenRuleError(f"they were {again if first != again else meta} {other}, but {first} before.", params)
    return None


@rule()
def folds_take_turns(case: Case) -> str | None:
    """Folds that take turns on one model end with the same values as each alone, also after an interruption.

    Keep what a fold has learnt in its callback, return all of it from state(), and put on the model in take_turn() what
    the fold needs there.
    """
    if type(case.method).callback is PeftMethod.callback:
        return "the method has no callback"
    shared = case.attach(case.defaults)
    learners = [case.learner(shared, case.defaults) for _ in range(2)]
    for start in range(0, STEPS, 2):
        for fold, learner in enumerate(learners):
            _turn(case, learner, fold, start, start + 2)
    for fold, learner in enumerate(learners):
        alone = case.learner(case.attach(case.defaults), case.defaults)
        _turn(case, alone, fold, 0, STEPS)
        if not same(*map(_state, (learner, alone))):
            raise BrokenRuleError("a fold that shared the model ended with other values than alone.", case.defaults)
    before = case.learner(case.attach(case.defaults), case.defaults)
    _turn(case, before, 0, 0, 2)
    again = case.learner(case.attach(case.defaults), case.defaults)
    again.restore(before.states())
    _turn(case, again, 0, 2, STEPS)
    if not same(*map(_state, (learners[0], again))):
        raise BrokenRuleError("an interrupted fold ended with other values than an uninterrupted one.", case.defaults)
    learners[0].take_turn()
    if not torch.equal(logits(shared, case.batch()), logits(again.model, case.batch())):
        raise BrokenRuleError("an interrupted fold predicts something else than an uninterrupted one.", case.defaults)
    return None


def _turn(case: Case, learner: Learner, fold: int, first: int, last: int) -> None:
    learner.take_turn()
    train_mode(learner.model)
    with seeded(fold):
        for step in range(first, last):
            torch.manual_seed(100 * fold + step)
            learner.step([case.batch(fold + step)], TASK, CPU)
    learner.end_turn()


def _state(learner: Learner) -> dict[str, torch.Tensor]:
    return learner.states()[0]

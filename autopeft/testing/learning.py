"""Rules about training: what it changes, that it helps, and that folds which take turns do not tell on each other."""

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
    from autopeft.testing.case import Case
    from autopeft.training.learner import Learner

LEARNING_STEPS = 8
LEAST_GAIN = 0.01
"""Share of the loss that the add-on alone must take away in so many steps; one that is not connected takes none."""

BFLOAT16 = 0.1
"""Largest difference of an output that bfloat16 explains, and the same as a share of the output."""


@rule()
def leaves_the_base_as_it_was(case: Case) -> str | None:
    """Putting the add-on on and training it leaves every tensor and the configuration of the base model as they were.

    The model that apply() gets shares its frozen tensors with every other trial. Put modules beside or around the
    base's and never write into its tensors; the copy's structure and configuration are the method's to change.
    """
    before = tiny_base(case.family).module
    case.train()
    after = case.base.module.state_dict()
    changed = [name for name, tensor in before.state_dict().items() if not torch.equal(tensor, after[name])]
    if changed:
        raise BrokenRuleError(f"{changed[0]} of the base model is no longer what it was.", case.defaults)
    if any(parameter.requires_grad for parameter in case.base.module.parameters()):
        raise BrokenRuleError("a parameter of the base model now requires gradients.", case.defaults)
    if case.base.module.config.to_dict() != before.config.to_dict():  # type: ignore[operator,union-attr]
        raise BrokenRuleError("the configuration of the base model has changed.", case.defaults)
    return None


@rule()
def learns(case: Case) -> str | None:
    """Training the add-on teaches the model to answer with one class, with the head held still.

    See to it that gradients reach the add-on from the first update on, or at the latest from the second: of two
    factors only one may start at zero. The learning rates of training_space() must be high enough for the method.
    """
    model, rows = case.attach(case.defaults), case.batch()
    rows = Batch({**rows.tensors, "labels": torch.zeros_like(rows.tensors["labels"])}, rows.sizes)
    for name, parameter in trainable(model).items():
        parameter.requires_grad_(not of_head(name, case.base.spec.head))
    learner = case.learner(model, case.defaults, LEARNING_STEPS)
    model.eval()
    losses = [float(learner.step([rows], TASK, CPU)) for _ in range(LEARNING_STEPS)]
    last = float(torch.nn.functional.cross_entropy(logits(model, rows), rows.tensors["labels"]))
    if not last < (1 - LEAST_GAIN) * losses[0]:
        seen = f"in {LEARNING_STEPS} steps at a learning rate of {learner.hyper.learning_rate:g} the loss went from "
        raise BrokenRuleError(f"{seen}{losses[0]:.4f} to {last:.4f}.", case.defaults)
    return None


@rule()
def runs_in_bfloat16(case: Case) -> str | None:
    """Under autocast in bfloat16 the outputs stay close to those in float32, and the gradients are finite.

    Leave the precision of products to autocast; where a tensor must have another's precision, use `x.to(other.dtype)`.
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

    Make them of the names and shapes that it is given, the params and the model's description, and of nothing else: a
    learning rate that is another in the next fold, or after an interruption, makes scores that nobody can repeat.
    """
    if type(case.method).parameter_groups is PeftMethod.parameter_groups:
        return "the method has no groups of parameters"
    for params in case.corners:
        first, again, meta = (getattr(case.attach(params, meta=meta), GROUPS) for meta in (False, False, True))
        if not first == again == meta:
            other = "without weights" if first == again else "the second time"
            raise BrokenRuleError(f"they were {again if first != again else meta} {other}, and {first} before.", params)
    return None


@rule()
def folds_take_turns(case: Case) -> str | None:
    """Folds that take turns on one model end as each would alone, also after an interruption.

    Keep what a fold has learnt in its callback, give all of it in state(), and put on the model in take_turn() what
    has to stand there.
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
        raise BrokenRuleError("a fold that was interrupted ended with other values than without.", case.defaults)
    learners[0].take_turn()
    if not torch.equal(logits(shared, case.batch()), logits(again.model, case.batch())):
        raise BrokenRuleError("a fold that was interrupted predicts otherwise than without.", case.defaults)
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

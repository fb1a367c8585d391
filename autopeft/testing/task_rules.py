"""The rules that a kind of task must keep: the host relies on them when it packs, weighs, predicts and scores."""

from __future__ import annotations

import copy
import inspect
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from autopeft.budget.memory import peak
from autopeft.common.seeds import seeded
from autopeft.methods.registry import discover
from autopeft.methods.training_space import TRAINING_SPACE, Hyperparameters
from autopeft.models.architecture import describe
from autopeft.models.attach import attach, trainable
from autopeft.models.load import load_base
from autopeft.study.card import Card
from autopeft.testing.fault import Fault, fault_of
from autopeft.testing.rule import BrokenRuleError
from autopeft.testing.task_case import CPU, TaskCase
from autopeft.training.batch import Batch, rows_of
from autopeft.training.learner import Learner, evaluate, make_optimizer
from autopeft.training.packing_check import packable
from autopeft.training.step import backward, training_step
from autopeft.winner.winner import load, save

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autopeft.methods.contract import PeftMethod
    from autopeft.tasks.contract import Task

CLOSE = 1e-4
"""Largest relative difference of two losses that the order of sums explains."""

TOGETHER = 3
"""Rows of a batch if the loss compares rows."""

NEAR = 0.06
"""Largest relative difference of predicted and measured memory."""

Rule = Callable[[TaskCase], None]


class NotAskedError(Exception):
    """A rule does not apply to this kind of task; the message says why."""


@dataclass(frozen=True)
class TaskFinding:
    """What a rule found; `seen` is empty if it holds, and `skipped` says why it does not apply to this kind.

    `place` and `trace` are as in `Finding`.
    """

    rule: str
    statement: str
    advice: str
    seen: str = ""
    skipped: str = ""
    place: str = ""
    trace: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Which rule, what was seen, what to do."""
        if self.skipped:
            return f"{self.rule}: skipped: {self.skipped}"
        if not self.seen:
            return f"{self.rule}: ok"
        place = f"\nWhere: {self.place}" * bool(self.place)
        return f"{self.rule} broke: {self.seen}{place}\nRule: {self.statement}\nWhat to do: {self.advice}"


def padding_and_other_rows_do_not_bear_on_a_loss(case: TaskCase) -> None:
    """The loss of a row (or of a few, if it compares rows) is the same alone and among longer rows.

    Mask out padding, also in a softmax over positions: folds are trained side by side.
    """
    everything, size = case.data.everything, TOGETHER if case.task.contrasts else 1
    outputs, batch = case.outputs(everything)
    for row in everything[::size]:
        part = slice(int(row), int(row) + size)
        among = float(case.task.loss(rows_of(outputs, part), {name: t[part] for name, t in batch.items()}))
        alone = float(case.task.loss(*case.outputs(everything[part])))
        if abs(among - alone) > CLOSE * max(1.0, abs(alone)):
            raise BrokenRuleError(f"row {row} has a loss of {alone:.6f} alone, but of {among:.6f} among others.")


def a_whole_is_the_weighted_mean_of_its_parts(case: TaskCase) -> None:
    """The loss of a batch is the mean of its parts', weighted by `Encoded.weight`.

    Say in `Encoded.units` how many things each row's loss is a mean over: large batches are trained in parts.
    """
    if case.task.contrasts:
        raise NotAskedError("its loss compares the rows of a batch, so batches are never trained in parts.")
    rows = case.data.everything
    whole = float(case.task.loss(*case.outputs(rows)))
    parts = np.array_split(rows, 3)
    losses = [float(case.task.loss(*case.outputs(part))) for part in parts]
    mean = float(np.average(losses, weights=[case.data.weight(part) for part in parts]))
    if abs(whole - mean) > CLOSE * max(1.0, abs(whole)):
        raise BrokenRuleError(f"the whole batch has a loss of {whole:.6f}, but its parts have {mean:.6f}.")


def answers_come_back_in_order(case: TaskCase) -> None:
    """The answer to a row depends neither on its place nor on the size of batches.

    `answer` must return one entry for each row, in the rows' order.
    """
    rows = np.random.default_rng(0).permutation(len(case.data.truths))
    samples = np.concatenate([case.data.samples_of(rows[[place]]) for place in range(len(rows))])
    expected, found = case.answers(case.data.everything)[rows], case.answers(samples, 2)
    if expected.shape != found.shape or not np.allclose(expected, found, rtol=1e-3, atol=1e-5):
        raise BrokenRuleError("rows in another order and in smaller batches got other answers.")


def written_answers_score_the_same(case: TaskCase) -> None:
    """Every metric is the same for written answers as for the answers, and no answer scores above the truth.

    `written` and `written_truths` must keep all that `Metric.of_written` needs; the report scores written answers.
    """
    answers = case.answers(case.data.everything)
    for name, metric in case.task.metrics.items():
        task = case.task.maximising(name)
        written = task.written(task.worded(answers, case.rows), case.labels)
        truths = task.written_truths(case.data.truths, case.labels)
        expected = case.task.score(name, case.data.truths, answers)
        found, best = metric.of_written(written, truths), metric.of_written(truths, truths)
        if abs(found - expected) > CLOSE * max(1.0, abs(expected)):
            raise BrokenRuleError(f"{name} is {expected:.6f} for the answers, but {found:.6f} as they are written.")
        if found > best + CLOSE:
            raise BrokenRuleError(f"{name} is {found:.6f} for some answers, but {best:.6f} for the truth itself.")


def the_baseline_answers_every_row(case: TaskCase) -> None:
    """`baseline` gives each held-out row an answer in the same form as the model's.

    It must look only at the truths of the training rows.
    """
    if case.task.writes:
        return  # the base model answers
    answers = case.answers(case.data.everything)
    name, made = case.task.baseline(case.data.truths, case.data.truths, case.labels)
    told = 1 if case.task.contrasts else made.ndim  # no baseline can know how wide a model's vectors are
    if (
        made.ndim != answers.ndim
        or made.shape[:told] != answers.shape[:told]
        or not np.isfinite(made).all()
        or not name
    ):
        raise BrokenRuleError(f'"{name}" answers {made.shape}, but the model answers {answers.shape}.')
    case.task.written(case.task.worded(made, case.rows), case.labels)


def the_largest_batch_bounds_every_batch(case: TaskCase) -> None:
    """No batch has tensors that are larger or of other types than `Encoded.largest` says.

    Make `Encoded.largest` cover every batch: memory is predicted for it.
    """
    rows = case.data.everything
    bound = case.data.largest(len(rows))
    for chosen in (rows, rows[:3].repeat(len(rows) // 3)):
        for name, tensor in case.data.batch(chosen).items():
            shape, dtype = bound[name]
            if dtype != tensor.dtype or any(a > b for a, b in zip(tensor.shape, shape, strict=True)):
                raise BrokenRuleError(f"{name} is {tuple(tensor.shape)} {tensor.dtype}, not at most {shape} {dtype}.")


def rows_without_truths_are_encoded(case: TaskCase) -> None:
    """Rows can be encoded without the columns that teach, and the model then gets the same.

    Prediction has no truths: put zeros in their place.
    """
    if case.task.writes:
        return  # in training the model also reads the text to write, but in prediction only the prompt
    bare = case.encode(case.rows[list(case.task.inputs)])
    taught = set(case.task.taught)
    rows = case.data.everything
    here, there = (data.batch(rows) for data in (case.data, bare))
    if {*here} != {*there} or any(not torch.equal(here[name], there[name]) for name in {*here} - taught):
        raise BrokenRuleError("the model gets other tensors with truths than without.")


def answers_are_shown(case: TaskCase) -> None:
    """`table` has a row for each answer, and `as_json` is JSON.

    `autopeft predict`, MLflow and `Winner.predict` return them.
    """
    answers = case.answers(case.data.everything)
    answers = case.task.worded(answers, case.rows[list(case.task.inputs)])
    table = case.task.table(answers, case.labels)
    if len(table) != len(answers) or not len(table.columns):
        raise BrokenRuleError(f"the table has {len(table)} rows for {len(answers)} answers.")
    json.dumps([case.task.as_json(answer, case.labels) for answer in answers])


def memory_is_predicted(case: TaskCase) -> None:
    """The peak memory of a training step is within 6% of the prediction from shapes alone.

    The loss must make no tensor whose size depends on values.
    """
    rows = len(case.data)
    model = copy.deepcopy(case.model).train().requires_grad_(True)
    hyper = Hyperparameters(**{**TRAINING_SPACE.defaults(), "batch_size": rows})  # type: ignore[arg-type]  # as declared

    def make_step(module: torch.nn.Module) -> Callable[[Mapping[str, torch.Tensor]], object]:
        optimizer = make_optimizer(module, hyper)
        return lambda tensors: training_step(module, optimizer, [Batch(tensors, (rows,))], case.task, CPU)

    predicted = peak.predict(copy.deepcopy(model).to("meta"), make_step, case.data.largest(rows), "cpu").peak
    batch = Batch.of(case.data, [np.argsort(case.data.lengths)], "cpu")
    learner = Learner(model, hyper, rows)
    learner.take_turn()
    with seeded(0):
        real = peak.measure(lambda: learner.step([batch], case.task, CPU), model, others=[*batch.tensors.values()])
    if abs(predicted - real) > NEAR * real:
        raise BrokenRuleError(f"{predicted:,} bytes were predicted, but a step took {real:,}.")


def folds_pack(case: TaskCase) -> None:
    """Folds that are trained side by side in one pass have the same gradients as each alone.

    Use from the outputs only what belongs to the rows of the batch, nothing of other rows.
    """
    spec = describe(case.model, case.task.kind, case.task.peft_task_type, new_head=case.task.new_head)
    head = spec.head or (spec.linears[-1].name,)

    def make() -> torch.nn.Module:
        model = copy.deepcopy(case.model).requires_grad_(False)
        for name in head:
            model.get_submodule(name).requires_grad_(True)
        return model

    def gradients(model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        backward(model.eval(), batch, case.task, CPU)
        found = {name: p.grad.detach() for name, p in trainable(model).items() if p.grad is not None}
        model.zero_grad()
        return found

    batch = Batch.of(case.data, [np.arange(2), np.arange(2, 5)], "cpu")
    if packable(make, gradients, batch, torch.float32) is None:
        raise BrokenRuleError("the gradients of a packed fold differ from those it has alone, or a step fails.")


def a_saved_winner_answers_the_same(case: TaskCase) -> None:
    """A model that was trained for the task answers the same after it was saved and loaded.

    Whatever answers need beside the model must be in the settings (`Options`), the labels or the facts (`facts_of`).
    """
    expected, found = answers_before_and_after_saving(case)
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-3, atol=1e-5):
        raise BrokenRuleError("after loading, the model gave other answers.")


def answers_before_and_after_saving(
    case: TaskCase, method: PeftMethod | None = None, change: Callable[[torch.nn.Module], None] = lambda model: None
) -> tuple[np.ndarray, np.ndarray]:
    """A model's answers to the example rows before and after it was saved as a winner and loaded.

    Args:
        case: has the base model and the rows.
        method: applied with its defaults. Default: the first that supports the model.
        change: applied to the model first.
    """
    with tempfile.TemporaryDirectory() as folder:
        base_folder, winner_folder = Path(folder) / "base", Path(folder) / "winner"
        plain = copy.deepcopy(case.model)
        case.task.restore(plain)
        plain.save_pretrained(base_folder)  # type: ignore[operator]  # transformers' models have it
        case.reader.save(base_folder)
        base = load_base(base_folder, case.task, seed=0, config_overrides=case.task.config(case.labels))
        method = method or next(method for method in discover().methods.values() if method.supports(base.spec))
        params = method.search_space(base.spec).defaults()
        model = attach(base, method, params, seed=0).eval()
        change(model)
        card = Card(
            base_model=str(base_folder),
            task=case.task.kind,
            labels=case.labels,
            method=method.name,
            params=dict(params),
            plugin="",
            seed=0,
            task_options=case.task.options.model_dump(exclude_unset=True),
            task_facts=dict(case.task.facts),
            method_facts=dict(method.facts()),
            inputs=case.task.inputs,
            **case.reader.settings,
        )
        rows = case.rows if case.task.writes else case.rows[list(case.task.inputs)]
        # Some types of models load a tokenizer of their own instead of the one that was saved.
        reader = type(case.reader).of_winner(base.processor, base.module, card, "the card")
        data = case.task.encode(rows, reader, case.labels)
        expected = evaluate(model, data, [data.everything], case.task, CPU)[0]
        save(model, method, reader, card, winner_folder)
        return expected, load(winner_folder).answers(rows)


TASK_RULES: tuple[Rule, ...] = (
    padding_and_other_rows_do_not_bear_on_a_loss,
    a_whole_is_the_weighted_mean_of_its_parts,
    answers_come_back_in_order,
    written_answers_score_the_same,
    the_baseline_answers_every_row,
    the_largest_batch_bounds_every_batch,
    rows_without_truths_are_encoded,
    answers_are_shown,
    memory_is_predicted,
    folds_pack,
    a_saved_winner_answers_the_same,
)


def check_task(task: Task, family: str | None = None) -> list[TaskFinding]:
    """Test a kind of task against every rule, on a tiny model of a family that has its class.

    Args:
        task: an instance; its `example` gives the rows.
        family: a key of `autopeft.testing.FAMILIES`, or of `IMAGE_FAMILIES` for images; default: the first.
    """
    found = []
    for rule in TASK_RULES:
        statement, _, advice = (inspect.getdoc(rule) or "").partition("\n")
        seen, skipped, fault = "", "", Fault()
        try:
            rule(TaskCase(task, family))
        except NotAskedError as reason:
            skipped = str(reason)
        except Exception as error:  # a task may raise anything
            seen = error.seen if isinstance(error, BrokenRuleError) else f"{type(error).__name__}: {error}"
            fault = fault_of(task, error)
        told = (statement, " ".join(advice.split()), seen, skipped, fault.place, fault.trace)
        found.append(TaskFinding(rule.__name__, *told))
    return found

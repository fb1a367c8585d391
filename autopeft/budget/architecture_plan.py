"""Whether a method can train a model of some architecture on a GPU, without weights, rows or the GPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.common.exceptions import MethodError, SpecError
from autopeft.data.encoded import Encoded, Field, token_fields
from autopeft.methods.candidate import CandidateSpace
from autopeft.models import known
from autopeft.models.architecture import describe
from autopeft.models.base import BaseModel
from autopeft.models.device import ADAMW, AbsentCard, Device

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from autopeft.common.params import ParamValue
    from autopeft.methods.contract import PeftMethod
    from autopeft.tasks.contract import Task


@dataclass(frozen=True)
class Question:
    """A model and its rows, and the GPU to train it on.

    Attributes:
        model: as for `known.config_of`.
        tokens: of each row.
        answer_tokens: how many of these are trained on.
        quantization: "none", "8bit" or "4bit".
        card: bytes of the GPU.
        optimizer: how its moments are kept, as named in [model] of a study.
    """

    model: str
    tokens: int = 2048
    answer_tokens: int = 512
    quantization: str = "none"
    card: int = 16 * 2**30
    optimizer: str = ADAMW


@dataclass(frozen=True)
class Answer:
    """What a candidate needs on the GPU.

    Attributes:
        params: of the method, those that were set.
        batch_size: rows of an update.
        execution: how a batch is run.
        trained: parameters.
        memory: bytes at the peak of a step, in its parts and as `peak`.
        fits: whether the GPU has room for the peak.
    """

    params: Mapping[str, ParamValue]
    batch_size: int
    execution: str
    trained: int
    memory: Mapping[str, int]
    fits: bool


def answers(
    question: Question,
    method: PeftMethod,
    task: Task,
    settings: Sequence[Mapping[str, Any]],
    batch_sizes: Sequence[int],
) -> Iterator[Answer]:
    """What training needs with each of the method's settings and each batch size.

    Args:
        question: the model, the rows and the card.
        method: the method; what is not set has its default.
        task: a kind that writes texts, with its settings.
        settings: of the method, by name.
        batch_sizes: rows of an update.

    Raises:
        ModelError: there is no such model, or it is not a language model.
        MethodError: the method does not support it.
        SpecError: the rows are longer than the model can read, or the method does not have a setting.
    """
    config = known.config_of(question.model)
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions and question.tokens > positions:
        raise SpecError(
            f"`--tokens` must be at most {positions:,}, the most that the model can read, but is {question.tokens:,}; "
            "lower it."
        )
    task.facts_of_config(config)
    base = _base(config, task)
    if not (support := method.supports(base.spec)):
        raise MethodError(f"{method.name} must support the model, but does not: {support.reason}")
    card = AbsentCard if not torch.cuda.is_available() else Device
    data = _rows(question, max(batch_sizes))
    device = card("cuda", torch.bfloat16, question.optimizer)
    estimator = CostEstimator(base, task, device, data, question.card, question.quantization)
    default = CandidateSpace.build([method], base.spec, {}, ())[method.name].default()
    for chosen in settings:
        unknown = {*chosen} - {*default.params}
        if unknown:
            raise SpecError(
                f"{method.name} has the settings {', '.join(default.params)}, but not {', '.join(unknown)}."
            )
        for size in batch_sizes:
            candidate = replace(
                default, params={**default.params, **chosen}, hyper=replace(default.hyper, batch_size=size)
            )
            usage = estimator(candidate)
            execution, memory = usage.fit_memory()
            told = {**asdict(memory), "peak": memory.peak}
            fits = memory.peak <= question.card
            yield Answer(chosen, size, str(execution), usage.trainable_params, told, fits)


def _base(config: Any, task: Task) -> BaseModel:
    """The model as a study holds it on a GPU, with the linear maps of its layers in bfloat16."""
    module = known.skeleton(config, task.auto_class)
    spec = describe(module, task.kind, task.peft_task_type, (), new_head=task.new_head)
    task.adapt(module)
    base = BaseModel(module, None, spec)
    base.lower(torch.bfloat16)
    return base


def _rows(question: Question, count: int) -> Encoded:
    """As many rows as the largest batch has, all of the question's length."""
    learnt = min(question.answer_tokens, question.tokens - 1)
    tokens, answered = (np.arange(count + 1) * each for each in (question.tokens, learnt))
    fields = {
        **token_fields({"input_ids": np.zeros(tokens[-1], np.int32)}, tokens, 0),
        "answer_at": Field(np.zeros(answered[-1], np.int64), answered),
        "labels": Field(np.zeros(answered[-1], np.int64), answered, -100),
    }
    return Encoded(fields, np.zeros(count), axis="input_ids", units=np.full(count, learnt))

"""What `autopeft plan --model-config` does: whether a card can train a model of which there is only a description."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from autopeft.cli.options import find_plugins, print_json
from autopeft.common.console import make_console
from autopeft.common.exceptions import UserInputError, brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.budget.architecture_plan import Answer

ModelConfig = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Plan for a language model without its weights: qwen3-8b, …, or a folder with its config.json.",
    ),
]
Tokens = Annotated[int, typer.Option(min=2, help="Tokens of a row, with --model-config.")]
AnswerTokens = Annotated[int, typer.Option(min=1, help="How many of these tokens the model learns to write.")]
Quantization = Annotated[str, typer.Option(help="Quantization of the model's layers: none, 8bit or 4bit.")]
Optimizer = Annotated[str, typer.Option(help="Optimizer: adamw, adamw_8bit or paged_adamw_8bit.")]
Method = Annotated[str, typer.Option(help="Method that trains the model.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting of the study file: search.epochs=4; with --model-config, of the method: r=8,64.",
    ),
]
Batch = Annotated[list[int] | None, typer.Option(min=1, help="Rows in a training step. Repeatable.")]

PARTS = ("weights", "optimizer", "activations")
"""Parts of the memory that are shown beside its peak, where there is room."""

KIND = "causal-lm"
"""The kind of task that is planned for: of language models, where a card is soon too small."""


@dataclass(frozen=True)
class Asked:
    """The options of the command, as they were given."""

    model: str
    tokens: int
    answer_tokens: int
    quantization: str
    optimizer: str
    device: str | None
    method: str
    settings: Sequence[str]
    batch: Sequence[int]
    block: list[str] | None


def tell(asked: Asked, *, as_json: bool) -> None:
    """Print what training takes, a line for each setting and batch size as it is worked out.

    Raises:
        UserInputError: an option is wrong.
    """
    from autopeft.common.units import format_bytes, parse_bytes

    for option in ("quantization", "optimizer"):
        _require_one_of_model(option, getattr(asked, option))
    try:
        card = parse_bytes(asked.device or "16 GiB")
    except ValueError as error:
        raise UserInputError(f"`--device` {error}.") from None
    settings = _settings(asked.settings)
    registry = find_plugins(asked.block)
    method = registry[asked.method]
    from autopeft.budget.architecture_plan import Question, answers
    from autopeft.tasks.registry import find_task

    task = find_task(KIND, registry.blocked).configured({}).taking(["text"])
    question = Question(asked.model, asked.tokens, asked.answer_tokens, asked.quantization, card, asked.optimizer)
    found = []
    for answer in answers(question, method, task, settings, asked.batch or (1, 8)):
        found.append(answer)
        if not as_json:
            make_console(stderr=True).print(f"{_named(answer)}: {format_bytes(answer.memory['peak'])}", soft_wrap=True)
    if as_json:
        print_json([asdict(answer) for answer in found])
        return
    make_console().print(_table(found, asked, format_bytes(card)))


def _require_one_of_model(option: str, given: str) -> None:
    """See that an option is what the setting of that name in [model] can be."""
    from autopeft.study.sections import ModelSection  # and pydantic with it

    *others, last = get_args(ModelSection.model_fields[option].annotation)
    if given not in (*others, last):
        raise UserInputError(f'`--{option}` must be {", ".join(others)} or {last}, but got "{brief(given)}".')


def _settings(given: Sequence[str]) -> list[dict[str, Any]]:
    """`r=8,16` and the like: each combination of the values."""
    choices: dict[str, list[Any]] = {}
    for setting in given:
        name, sign, values = setting.partition("=")
        if not sign or not values:
            raise UserInputError(f'`--set` must be a name and values, such as r=8,16, but got "{setting}".')
        choices[name.strip()] = [_value(value.strip()) for value in values.split(",")]
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def _value(text: str) -> Any:
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        return text


def _named(answer: Answer) -> str:
    settings = " ".join(f"{name}={value}" for name, value in answer.params.items()) or "defaults"
    return f"{settings}, batch of {answer.batch_size}"


def _table(found: Sequence[Answer], asked: Asked, card: str) -> Any:
    from autopeft.common.line_table import Column, LineTable, Row
    from autopeft.common.units import format_bytes

    held = f"{asked.quantization} quantization, {asked.optimizer}"
    title = f"{asked.method} on {asked.model}, {asked.tokens:,} tokens a row, {held}, {card}"
    columns = [Column("settings", cut=True), Column("batch", number=True), Column("trained", 1, number=True)]
    columns += [Column(part, 2, number=True) for part in PARTS]
    columns += [Column("peak", number=True), Column("run as", 3), Column("fits")]
    rows = []
    for answer in found:
        parts = (format_bytes(answer.memory[part]) for part in (*PARTS, "peak"))
        settings = " ".join(f"{name}={value}" for name, value in answer.params.items()) or "defaults"
        fits = "yes" if answer.fits else "no"
        rows.append(Row((settings, str(answer.batch_size), f"{answer.trained:,}", *parts, answer.execution, fits)))
    return LineTable(columns, rows, title)

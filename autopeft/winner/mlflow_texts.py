"""Writes a winner that writes texts in MLflow's transformers flavour, which has the interface of chat services."""

from __future__ import annotations

import logging
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import UserInputError
from autopeft.tasks.writing import Writing
from autopeft.winner.task import task_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from autopeft.winner.winner import Winner

CHAT, COMPLETIONS = "llm/v1/chat", "llm/v1/completions"
"""MLflow's names for tasks that take messages, and a prompt."""

REQUIREMENTS = ("torch", "transformers")
"""What loading needs besides MLflow, whose own list has torchvision, which models of texts do not need."""

LICENSE = "LICENSE.txt"
"""MLflow writes this file, which sends readers to the hub for a model of that name."""


def write(winner: Winner, folder: Path, say: Callable[[str], None] | None = None) -> None:
    """Merge the winner and write it for `mlflow.pyfunc` and `mlflow.transformers`; it writes greedily, texts as long.

    Args:
        winner: one whose kind of task writes.
        folder: an empty one.
        say: called with a sentence on each difference from the winner.

    Raises:
        UserInputError: its task does not write, or writes with an encoder and a decoder; or it cannot be merged.
    """
    import mlflow.transformers
    from transformers import GenerationConfig

    task = _task(winner)
    plain: Any = winner.merge()
    tokenizer: Any = winner.reader.standalone().processor
    tokenizer.chat_template = task.chat_template(tokenizer)
    limits = task.limits
    new, _ = limits.room
    plain.generation_config = GenerationConfig(
        max_new_tokens=new, eos_token_id=[*limits.ends], pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    # Not a name that the hub could have: MLflow would look there for a card and a licence.
    plain.name_or_path = f"{winner.card.method} (by autopeft)"
    settings: dict[str, Any] = {"max_new_tokens": new, "do_sample": False}
    if tokenizer.chat_template:  # the template itself writes the tokens that begin a text
        settings["add_special_tokens"] = False
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.transformers.save_model(
            {"model": plain, "tokenizer": tokenizer},
            str(folder),
            task=CHAT if tokenizer.chat_template else COMPLETIONS,
            model_config=settings,
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
        )
    (folder / LICENSE).unlink(missing_ok=True)
    if say:
        say("MLflow drops white space before an answer; the winner itself keeps it.")


def asked(winner: Winner) -> str:
    """Python code of an input for such a model."""
    task = _task(winner)
    sample = task.sample(winner.reader.cells())
    if task.chat_template(winner.reader.processor) is None:
        return repr({"prompt": next(iter(sample.values()))[0]})
    return repr({"messages": [{"role": "user", "content": winner.reader.cells()[0]}]})


def _task(winner: Winner) -> Writing:
    task = task_of(winner.card)
    instead = "export as mlflow, which runs the winner itself"
    if not isinstance(task, Writing):
        raise UserInputError(f"MLflow's {CHAT} is for winners that write, and {task.kind} does not; {instead}.")
    if task.limits.begin:
        raise UserInputError(
            f"MLflow's {CHAT} and {COMPLETIONS} are for models that continue a text, and {task.kind} reads one text "
            f"and writes another, for which transformers 5 has no pipeline; {instead}."
        )
    return task

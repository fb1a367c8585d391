"""The command that answers rows with a saved winner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from autopeft.cli.options import ANY_OF_WINNER, EPILOG, AsJson, OfTask, Trust, app
from autopeft.cli.stdin_lines import batches_of_stdin
from autopeft.common.collector import loading
from autopeft.common.exceptions import UserInputError
from autopeft.common.streams import tell
from autopeft.common.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from autopeft.cli.answer_files import AnswerFile
    from autopeft.winner.winner import Winner

    Blocks = Iterator[tuple[pd.DataFrame, pd.DataFrame]]


Folder = Annotated[Path, typer.Argument(metavar="WINNER", help=ANY_OF_WINNER)]
Input = Annotated[
    Path | None,
    typer.Option(
        "--input",
        metavar="FILE",
        help="Rows to answer: a file as for a study, or a folder of images. Default: stdin, one input a line.",
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Option("--text", metavar="TEXT", help="An input to answer. Repeatable."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The file to write; it must be new: .csv, .tsv, .jsonl or .parquet. Default: stdout."
    ),
]
Sheet = Annotated[str | None, typer.Option(metavar="NAME", help="Sheet of a spreadsheet. Default: the first.")]
DeviceName = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda or cuda:1. Default: a GPU if the machine has one.")
]

OnMissing = Annotated[
    Literal["error", "drop"],
    typer.Option(
        help="drop: leave out rows with an empty input cell, and say how many. error: stop at a cell without a value; "
        "an empty text is answered."
    ),
]
ON_MISSING_ADVICE = ", or give `--on-missing drop` to leave such rows out"
"""What else can be done about an empty cell."""


@app.command(epilog=f"Example: autopeft predict outputs/quickstart/winner --input rows.csv > labels.csv. {EPILOG}")
def predict(
    winner: Folder,
    input_file: Input = None,
    texts: Texts = None,
    output: Output = None,
    sheet: Sheet = None,
    on_missing: OnMissing = "error",
    device: DeviceName = None,
    as_json: AsJson = False,
    trust_remote_code: Trust = False,
    task: OfTask = None,
) -> None:
    """Predict with a saved winner: print the rows with the answers beside them.

    The rows need the input columns of the study's table, under the same
    names; all other columns are kept. If the input already has a column with
    the name of an answer, such as `label`, all names of answers begin with
    `predicted_`.

    Lines on stdin are answered as they come. JSON, also in a .jsonl file, has
    everything known about an answer, such as the probability of each label.
    """
    if texts and input_file is not None:
        raise UserInputError("rows come from --input or from --text, but both are given; remove one.")
    if as_json and output is not None:
        raise UserInputError("--json is for stdout, and the suffix of --output names its format; remove --json.")
    if sheet is not None and input_file is None:
        raise UserInputError("--sheet names a sheet of the --input file, but --input is missing; give both.")
    if on_missing != "error" and input_file is None:
        raise UserInputError("--on-missing is for empty cells of the --input file, but --input is missing; give both.")
    from autopeft.cli.answer_files import answer_file, check_file
    from autopeft.study.place import winner_of

    if output is not None:
        check_file(output, input_file)
    winner = winner_of(winner, task)
    with loading():
        # Before the model is loaded, so that what is wrong with the rows is told soon.
        blocks = _rows(winner, input_file, texts, sheet, on_missing)
        loaded = _load(winner, device, trust_remote_code)
    with answer_file(output, as_json=as_json) as target:
        count = _answer(loaded, blocks, target)
    if output is not None:
        tell(f"Answered {counted(count, 'row')}: {output}.")


def _rows(winner: Path, source: Path | None, texts: Sequence[str] | None, sheet: str | None, on_missing: str) -> Blocks:
    """The rows to answer, those of a file checked."""
    from autopeft.study.card import Card
    from autopeft.winner.task import task_of

    card = Card.read(winner)
    task = task_of(card, winner)
    names = card.called(task.inputs)
    if source is None:
        if len(names) > 1:
            needed = ", ".join(names.values())
            raise UserInputError(f"this winner needs the columns {needed}; give a file with --input.")
        return _blocks(iter([texts]) if texts else batches_of_stdin(), names)
    from autopeft.data.asked_rows import open_rows
    from autopeft.data.missing import DROP

    told: list[str] = []
    rows = open_rows(source, names, task.columns, told.append, sheet, drop=on_missing == DROP)
    rows.check(ON_MISSING_ADVICE)
    for sentence in told:  # what is told from here on is of columns that are kept, and not read
        tell(sentence)
    return rows.blocks()


def _load(folder: Path, device: str | None, trust_remote_code: bool) -> Winner:
    from autopeft.models.device import named_device
    from autopeft.winner import winner as artifact

    return artifact.load(folder, named_device(device), trust_remote_code=trust_remote_code)


def _blocks(batches: Iterator[Sequence[str]], names: Mapping[str, str]) -> Blocks:
    """Lines as rows, no more at a time than of a file."""
    import pandas as pd

    from autopeft.data.asked_rows import BLOCK

    ((key, name),) = names.items()
    first = 1
    for batch in batches:
        for start in range(0, len(batch), BLOCK):
            cells = pd.Series(batch[start : start + BLOCK], dtype=object)
            cells.index = pd.RangeIndex(first, first + len(cells))
            first += len(cells)
            yield cells.to_frame(key), cells.to_frame(name)


def _answer(winner: Winner, blocks: Blocks, target: AnswerFile) -> int:
    """Write the answers to all rows; returns how many there are."""
    from autopeft.cli.answer_names import AnswerNames

    told, count, names = set[str](), 0, None

    def once(sentence: str) -> None:
        if sentence not in told:
            told.add(sentence)
            tell(sentence)

    for inputs, kept in blocks:
        names = names or AnswerNames([*kept.columns], tell)
        answers = _answers(winner, inputs, target, once if winner.writes else None)
        target.add(kept, answers.set_axis([*names.of([*answers.columns]).values()], axis="columns"))
        count += len(kept)
    if not count:
        raise UserInputError("prediction needs at least one row, but stdin is empty; give lines, --text or --input.")
    target.finish()
    for sentence in () if winner.writes else winner.reader.told(winner.truncated):
        tell(sentence)
    return count


def _answers(winner: Winner, inputs: pd.DataFrame, target: AnswerFile, say: Any) -> pd.DataFrame:
    import pandas as pd

    if not target.detailed:
        return winner.table(inputs, say).set_axis(inputs.index, axis="index")
    found = winner.as_json(inputs, say)
    names = dict.fromkeys(name for answer in found for name in answer)
    columns = {name: pd.Series([answer.get(name) for answer in found], inputs.index, dtype=object) for name in names}
    return pd.DataFrame(columns, index=inputs.index)

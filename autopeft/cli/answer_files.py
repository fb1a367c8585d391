"""Where answers go, with the columns of the input beside them: stdout, or a file whose suffix names the format."""

from __future__ import annotations

import base64
import csv
import json
import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from autopeft.common.exceptions import DataError, StreamError, UserInputError, in_a_line
from autopeft.common.files import whole
from autopeft.common.streams import for_stdout
from autopeft.data.cells import is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pandas as pd

FORMATS = ("csv", "tsv", "jsonl", "parquet")
DIGITS = 6
"""Behind the point, of numbers in a table that people read."""


def check_file(path: Path, source: Path | None) -> None:
    """Refuse a file that answers cannot go to, before anything is loaded.

    Args:
        path: to be written.
        source: the rows to answer.

    Raises:
        UserInputError: its suffix names no format, its folder is not there, or it is there itself.
    """
    if path.suffix.lower().lstrip(".") not in FORMATS:
        raise UserInputError(f"--output must end in .{', .'.join(FORMATS)}, which names the format, but is {path}.")
    if os.path.lexists(path):
        what = "the --input file" if source and path.resolve() == source.resolve() else "an existing file"
        raise UserInputError(
            f"--output must name a new file, but {path} is {what}; name another file, or remove this one first."
        )
    if not path.parent.is_dir():
        raise UserInputError(
            f"--output must be in an existing folder, but {path.parent} does not exist; create it first."
        )


class AnswerFile(ABC):
    """Takes answers, some rows at a time.

    Attributes:
        detailed: whether it takes all that is known of each answer (`Task.as_json`), or a table (`Task.table`).
    """

    detailed = False

    @abstractmethod
    def add(self, kept: pd.DataFrame, answers: pd.DataFrame) -> None:
        """Take the rows of the input, and as many of answers, whose columns have other names."""

    def finish(self) -> None:
        """Write what is left. Default: nothing is."""
        return


class Delimited(AnswerFile):
    """CSV or TSV: a list of the input is JSON there, and bytes that are not text are base64."""

    def __init__(self, write: Callable[[str], None], delimiter: str) -> None:
        self._write, self._delimiter, self._begun = write, delimiter, False

    def add(self, kept: pd.DataFrame, answers: pd.DataFrame) -> None:
        """Write them; numbers of answers have six digits behind the point."""
        import pandas as pd

        # `DataFrame.map` would make numbers of a column with an empty cell floats, which changes large ids.
        fields = {name: pd.Series([*map(_in_a_field, kept[name])], kept.index, dtype=object) for name in kept}
        table = pd.DataFrame(fields, index=kept.index).join(answers.round(DIGITS))
        self._write(as_csv(table, delimiter=self._delimiter, header=not self._begun))
        self._begun = True


class JsonLines(AnswerFile):
    """An object a row."""

    detailed = True

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def add(self, kept: pd.DataFrame, answers: pd.DataFrame) -> None:
        """Write them."""
        rows = ({**first, **second} for first, second in zip(_rows(kept), _rows(answers), strict=True))
        self._write("".join(json.dumps(row) + "\n" for row in rows))


class Parquet(AnswerFile):
    """A parquet file, whose columns have types that are known once all rows are: it is written at the end."""

    def __init__(self, path: Path) -> None:
        self._path, self._tables = path, list[Any]()

    def add(self, kept: pd.DataFrame, answers: pd.DataFrame) -> None:
        """Keep them for the end."""
        import pyarrow as pa

        with _of_one_type():
            self._tables.append(pa.Table.from_pandas(kept.join(answers), preserve_index=False))

    def finish(self) -> None:
        """Write the file."""
        import pyarrow as pa
        from pyarrow import parquet

        with _of_one_type():
            table = pa.concat_tables(self._tables, promote_options="permissive")
        parquet.write_table(table.replace_schema_metadata(None), self._path)


@contextmanager
def answer_file(path: Path | None, *, as_json: bool) -> Iterator[AnswerFile]:
    """What takes answers; a file is there whole at the end, or not at all.

    Args:
        path: a file with one of the suffixes in `FORMATS`; None: stdout.
        as_json: whether stdout gets JSON.
    """
    if path is None:
        yield JsonLines(_to_stdout) if as_json else Delimited(_to_stdout, ",")
        return
    kind = path.suffix.lower()
    with whole(path) as draft:
        if kind == ".parquet":
            yield Parquet(draft)
            return
        with draft.open("w", encoding="utf-8", newline="") as stream:
            write = _to(stream)
            yield JsonLines(write) if kind == ".jsonl" else Delimited(write, "," if kind == ".csv" else "\t")


def as_csv(table: pd.DataFrame, *, delimiter: str = ",", header: bool = True) -> str:
    """A table as any reader of CSV has it again: a lone carriage return is quoted too, which pandas leaves bare."""
    bare = any(isinstance(cell, str) and "\r" in cell for name in table for cell in (name, *table[name]))
    quoting: Any = csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL
    return table.to_csv(index=False, sep=delimiter, header=header, quoting=quoting)


def _to(stream: IO[str]) -> Callable[[str], None]:
    def write(text: str) -> None:
        stream.write(text)

    return write


def _to_stdout(text: str) -> None:
    """Write at once, since somebody may wait for these rows before there are more."""
    try:
        sys.stdout.write(for_stdout(text))
        sys.stdout.flush()
    except BrokenPipeError:  # as of `| head`; what is still buffered goes nowhere, or Python would complain at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StreamError from None


@contextmanager
def _of_one_type() -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OverflowError, ValueError) as error:
        raise DataError(
            "a column of a parquet file has values of one type, but one of the input has several "
            f"({in_a_line(error)}); write .jsonl or .csv."
        ) from None


def _rows(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    names = [*frame.columns]
    for cells in frame.itertuples(index=False, name=None):
        yield {name: _plain(cell) for name, cell in zip(names, cells, strict=True)}


def _in_a_field(cell: Any) -> Any:
    """A cell of the input as a field: empty where it holds nothing."""
    if isinstance(cell, Mapping | Sequence) and not isinstance(cell, str | bytes | bytearray):
        return json.dumps(_plain(cell), ensure_ascii=False)
    return _plain(cell) if isinstance(cell, bytes | bytearray | memoryview) else cell


def _plain(cell: Any) -> Any:
    """A cell as JSON has it: null for what holds nothing, and text for what JSON has no kind of."""
    if isinstance(cell, str | bool | int):
        return cell
    if is_missing(cell):
        return None
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else str(cell)
    if isinstance(cell, Mapping):
        return {str(key): _plain(one) for key, one in cell.items()}
    if isinstance(cell, bytes | bytearray | memoryview):
        try:
            return bytes(cell).decode("utf-8")
        except UnicodeDecodeError:
            return base64.b64encode(bytes(cell)).decode()
    if hasattr(cell, "tolist"):  # of NumPy
        return _plain(cell.tolist())
    return [_plain(one) for one in cell] if isinstance(cell, Sequence) else str(cell)

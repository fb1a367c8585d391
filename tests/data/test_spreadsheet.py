"""Sheets of xlsx and ods files: their values come as they are, and what is not a table is told in a sentence."""

import datetime
import sys
import zipfile

import pandas as pd
import pytest

from autopeft.common.exceptions import DataError
from autopeft.data import spreadsheet
from autopeft.data.cells import FormulaError, Texts
from autopeft.data.load import load_rows
from autopeft.data.table import open_table, read_table
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from tests.conftest import tiny_rows

openpyxl = pytest.importorskip("openpyxl")
pytest.importorskip("odf")

DAY, MOMENT = datetime.date(2024, 1, 5), datetime.datetime(2024, 1, 5, 10, 30)
ROWS = [
    ["text", "label", "day", "moment", "flag", "share"],
    ["one", 1, DAY, MOMENT, True, 0.5],
    ["007", "01", DAY, MOMENT, False, 2.25],
    [],
    ["NA", 3, None, None, None, None],
]


def write_xlsx(path, **sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def write_ods(path, **sheets):
    from odf.opendocument import OpenDocumentSpreadsheet
    from odf.table import Table, TableCell, TableRow
    from odf.text import P

    book = OpenDocumentSpreadsheet()
    for name, rows in sheets.items():
        sheet = Table(name=name)
        for row in rows:
            line = TableRow()
            for value in row:
                line.addElement(_ods_cell(value, TableCell, P))
            sheet.addElement(line)
        sheet.addElement(TableRow(numberrowsrepeated=1_048_000))  # as LibreOffice fills its sheets up
        book.spreadsheet.addElement(sheet)
    book.save(str(path))
    return path


def _ods_cell(value, cell, paragraph):
    match value:
        case None:
            return cell()
        case bool():
            made = cell(valuetype="boolean", booleanvalue=str(value).lower())
        case int() | float():
            made = cell(valuetype="float", value=value)
        case datetime.date():
            made = cell(valuetype="date", datevalue=value.isoformat())
        case _:
            made = cell(valuetype="string")
    made.addElement(paragraph(text=str(value)))
    return made


WRITE = {"xlsx": write_xlsx, "ods": write_ods}


@pytest.fixture(params=["xlsx", "ods"])
def suffix(request):
    return request.param


def test_values_come_as_they_are_with_the_rows_of_the_sheet(suffix, tmp_path):
    path = WRITE[suffix](tmp_path / f"book.{suffix}", tickets=ROWS)
    notes = []
    found = read_table(path, note=notes.append)
    assert found.index.tolist() == [2, 3, 5], "rows are numbered as the sheet has them, and empty ones left out"
    assert found["text"].tolist() == ["one", "007", "NA"]
    assert found["label"].tolist() == [1, "01", 3]
    assert found["day"].tolist() == [DAY, DAY, None]
    assert not any(isinstance(cell, datetime.datetime) for cell in found["day"])
    assert found["moment"].tolist() == [MOMENT, MOMENT, None]
    assert found["flag"].tolist() == [True, False, None]
    assert found["share"].tolist() == [0.5, 2.25, None]
    assert Texts().of("label", found["label"]) == ["1", "01", "3"]
    assert [note.partition(" of ")[0] for note in notes] == [
        f'The column "{name}"' for name in ("day", "moment", "flag")
    ]
    assert notes[0].endswith('they are read as texts such as "2024-01-05".')


def test_the_first_sheet_is_read_or_the_one_that_is_named(suffix, tmp_path):
    path = WRITE[suffix](tmp_path / f"book.{suffix}", first=[["text"], ["a"]], second=[["text"], ["b"]])
    notes = []
    assert read_table(path, note=notes.append)["text"].tolist() == ["a"]
    assert notes == [f'book.{suffix} has 2 sheets; the first, "first", is read. Name another as `sheet`.']
    assert read_table(path, sheet="second", note=notes.append)["text"].tolist() == ["b"]
    assert len(notes) == 1
    with pytest.raises(DataError, match='has no sheet "secnd"; did you mean "second"'):
        read_table(path, sheet="secnd")


def test_a_study_reads_the_sheets_that_it_names(suffix, tmp_path):
    rows = tiny_rows()
    table = [["message", "queue"], *rows.to_numpy().tolist()]
    WRITE[suffix](tmp_path / f"book.{suffix}", notes=[["of no use"]], train=table, held_out=[table[0], *table[1::7]])
    data = {"train": f"book.{suffix}", "test": f"book.{suffix}", "sheet": "train", "test_sheet": "held_out",
            "text": "message", "label": "queue"}  # fmt: skip
    content = {"name": "s", "model": {"name_or_path": "m"}, "task": {"kind": "text-classification"}, "data": data}
    found = load_rows(StudySpec.from_mapping(content, folder=tmp_path), find_task("text-classification"))
    assert len(found.test) == len(table[1::7])
    assert {*found.train["text"]} | {*found.test["text"]} == {*rows["text"]}


def test_a_header_further_down_and_columns_without_a_name(suffix, tmp_path):
    rows = [[], [None, "text", None, "label"], [], [1, "a", None, "b", "more"], [2, "c", None, "d"]]
    table = open_table(WRITE[suffix](tmp_path / f"book.{suffix}", one=rows))
    assert table.names == ["", "text", "label", ""], "an empty column is none"
    (block,) = table.blocks(["text", "label"])
    assert (block.index.tolist(), block["label"].tolist()) == ([4, 5], ["b", "d"])


def test_formulas_that_failed_are_told(tmp_path):
    path = write_xlsx(tmp_path / "book.xlsx", one=[["text", "label"], ["a", "#N/A"], ["b", "c"]])
    book = openpyxl.load_workbook(path)
    book["one"]["B2"].data_type = "e"
    book.save(path)
    found = read_table(path)
    assert isinstance(found["label"].iloc[0], FormulaError)
    assert str(found["label"].iloc[0]) == "#N/A"
    texts = Texts()
    texts.of("label", found["label"])
    with pytest.raises(DataError, match=r"row 2: .* but this one is the error #N/A .*fix it in the spreadsheet"):
        texts.check("book.xlsx", {"label": "label"})


@pytest.mark.parametrize("name", ["book.xlsx", "book.ods"])
def test_what_is_no_spreadsheet_is_told(name, tmp_path):
    for content in (b"", b"text,label\na,b\n", b"PK\x03\x04"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="must be a spreadsheet as its name says"):
            open_table(tmp_path / name)
    other = "ods" if name.endswith("xlsx") else "xlsx"
    WRITE[other](tmp_path / f"other.{other}", one=ROWS).replace(tmp_path / name)
    with pytest.raises(DataError, match="of another kind"):
        open_table(tmp_path / name)
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for part in spreadsheet.PART.values():
            archive.writestr(part, "<a/>")
    with pytest.raises(DataError, match=r"cannot be read|is damaged, or locked"):
        open_table(tmp_path / name)


@pytest.mark.parametrize("suffix", spreadsheet.OTHERS)
def test_other_spreadsheets_are_refused_in_a_sentence(suffix, tmp_path):
    (tmp_path / f"book.{suffix}").write_bytes(b"x")
    with pytest.raises(DataError, match=r"that autopeft does not read; save it as \.xlsx or as \.csv"):
        open_table(tmp_path / f"book.{suffix}")


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    path = write_xlsx(tmp_path / "book.xlsx", one=ROWS)
    for name in [name for name in sys.modules if name == "autopeft.data.xlsx" or name.startswith("openpyxl")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("autopeft.data.xlsx", raising=False)
    monkeypatch.setitem(sys.modules, "openpyxl", None)  # as if it were not installed
    with pytest.raises(DataError, match=r'needs openpyxl; install it with `pip install "autopeft\[tables\]"`, or save'):
        open_table(path)
    path = write_ods(tmp_path / "book.ods", one=ROWS)
    assert len(read_table(path)) == 3, "what the standard library reads needs nothing"


def test_a_file_that_unpacks_to_more_than_there_is_room_for_is_refused(tmp_path, monkeypatch):
    path = write_xlsx(tmp_path / "book.xlsx", one=ROWS)
    monkeypatch.setattr(spreadsheet, "free_memory", lambda: 1000)
    with pytest.raises(DataError, match=r"unpacks to .*, but 1,?000 .* are free|unpacks to .* are free; save it as"):
        open_table(path)


def test_a_cell_at_the_far_end_of_a_sheet_costs_no_memory(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["text", "label"])
    book.active.append(["a", "b"])
    book.active["XFD200000"] = "stray"
    book.save(tmp_path / "book.xlsx")
    found = read_table(tmp_path / "book.xlsx", ["text", "label"])
    assert len(found) == 2
    assert found["text"].tolist() == ["a", None]


def test_what_a_sheet_repeats_without_end_is_refused(tmp_path):
    from odf.opendocument import OpenDocumentSpreadsheet
    from odf.table import Table, TableCell, TableRow
    from odf.text import P

    for rows, columns, words in ((2**40, 1, "rows"), (1, 2**40, "columns")):
        book, sheet, row = OpenDocumentSpreadsheet(), Table(name="one"), TableRow(numberrowsrepeated=rows)
        cell = TableCell(valuetype="string", numbercolumnsrepeated=columns)
        cell.addElement(P(text="a"))
        row.addElement(cell)
        sheet.addElement(row)
        book.spreadsheet.addElement(sheet)
        book.save(str(tmp_path / "book.ods"))
        with pytest.raises(DataError, match=f"must have at most .* {words}"):
            open_table(tmp_path / "book.ods")


def test_a_table_of_pandas_is_read_again(suffix, tmp_path):
    rows = tiny_rows()
    rows.to_excel(tmp_path / f"book.{suffix}", index=False, engine="openpyxl" if suffix == "xlsx" else "odf")
    found = read_table(tmp_path / f"book.{suffix}")
    pd.testing.assert_frame_equal(found.reset_index(drop=True).astype(str), rows.astype(str), check_dtype=False)


def test_an_ods_file_that_is_damaged_in_its_midst_is_not_read_in_part(tmp_path):
    path = write_ods(tmp_path / "whole.ods", one=ROWS)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["content.xml"] = parts["content.xml"].replace(b"007</text:p>", b"007")
    with zipfile.ZipFile(tmp_path / "book.ods", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match="is damaged, or locked with a password"):
        open_table(tmp_path / "book.ods")


def test_spaces_and_line_ends_of_an_ods_cell_are_kept(tmp_path):
    from odf.opendocument import OpenDocumentSpreadsheet
    from odf.table import Table, TableCell, TableRow
    from odf.teletype import addTextToElement
    from odf.text import P

    book, sheet = OpenDocumentSpreadsheet(), Table(name="one")
    for text in ("text", "a   b\tc\nd", " e "):
        row, cell, paragraph = TableRow(), TableCell(valuetype="string"), P()
        addTextToElement(paragraph, text)
        cell.addElement(paragraph)
        row.addElement(cell)
        sheet.addElement(row)
    book.spreadsheet.addElement(sheet)
    book.save(str(tmp_path / "book.ods"))
    assert read_table(tmp_path / "book.ods")["text"].tolist() == ["a   b\tc\nd", " e "]

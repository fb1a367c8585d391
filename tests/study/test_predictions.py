"""The predictions kept of the held-out rows, as they are read back."""

import os

import pytest

from autopeft.study.predictions import HeldOut

ANSWERS = HeldOut(("7", "8"), ("yes", "no"), {"winner": ("yes", "a\r\nb, c"), "majority_class": ("no", "")})


def test_what_is_read_is_what_was_written(tmp_path):
    ANSWERS.write(tmp_path / "file")
    assert HeldOut.read(tmp_path / "file") == ANSWERS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"row,label,winner\n", "must hold the columns"),
        (b"row,label,winner,winner\n1,a,b,c\n", "each once"),
        (b"a" * 1_000_000, "must be a CSV file"),
        (b"row,label,winner\n1,a\n", "row 1 has another number"),
        (b"row,label,winner\n1,a,b\n1,a,b,c\n", "row 2 has another number"),
        (b"row,label,winner\n1,a,\xff\n", "must be a CSV file"),
        (b'row,label,winner\n1,a,"b', "must be a CSV file"),
        (b"row,label,winner\n1,a," + b"x" * 200_000, "must be a CSV file"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, content, words):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        HeldOut.read(tmp_path / "file")
    assert len(str(error.value)) < 500


def test_what_is_no_file_is_refused_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        HeldOut.read(tmp_path / "file")
    os.mkfifo(tmp_path / "file")
    with pytest.raises(ValueError, match="must be a plain file"):
        HeldOut.read(tmp_path / "file")

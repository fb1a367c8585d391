"""Files that somebody else may have written are read without waiting, within a limit, or refused in a sentence."""

import os

import pytest

from autopeft.common import plain_file
from autopeft.common.exceptions import UserInputError


@pytest.mark.parametrize(
    "make",
    [
        os.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: os.truncate(path, path.touch() or 2**40),
    ],
    ids=["folder", "pipe", "loop", "device", "terabyte"],
)
def test_what_is_no_small_plain_file_is_refused_at_once(tmp_path, make):
    make(tmp_path / "file")
    with pytest.raises(UserInputError, match="file must") as error:
        plain_file.read(tmp_path / "file")
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_told_apart(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "none", tmp_path / "file" / "none"):
        with pytest.raises(FileNotFoundError):
            plain_file.read(path)


def test_a_link_to_a_file_is_followed_and_a_mark_of_the_byte_order_left_out(tmp_path):
    (tmp_path / "file").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    (tmp_path / "link").symlink_to("file")  # as in the cache of the hub
    assert plain_file.read_json(tmp_path / "link") == {"a": 1}


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"9" * 5_000, b'"\xff"', b'"\\ud800"', b"\0", b"nul"])
def test_what_is_no_json_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserInputError, match="must hold JSON, but cannot be parsed") as error:
        plain_file.read_json(tmp_path / "file")
    assert len(str(error.value)) < 400

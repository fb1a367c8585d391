import os
from pathlib import Path

import pytest

from autopeft.common import cache

NAMES = [cache.key(text) for text in "abc"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_kept_is_found_again(place):
    assert cache.read(NAMES[0]) is None
    cache.keep(NAMES[0], b"content")
    cache.keep(NAMES[1], b"")
    assert (cache.read(NAMES[0]), cache.read(NAMES[1])) == (b"content", b"")
    cache.keep(NAMES[0], b"another")
    assert cache.read(NAMES[0]) == b"another"
    assert sorted(path.name for path in place.iterdir()) == sorted(NAMES[:2])  # no draft is left
    assert place.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-1], lambda raw: raw[:-1] + b"?", lambda raw: b"", lambda raw: b"x"]
)
def test_a_damaged_entry_is_not_there_and_is_written_anew(place, damage):
    cache.keep(NAMES[0], b"content")
    (place / NAMES[0]).write_bytes(damage((place / NAMES[0]).read_bytes()))
    assert cache.read(NAMES[0]) is None
    cache.keep(NAMES[0], b"content")
    assert cache.read(NAMES[0]) == b"content"


def test_a_pipe_in_place_of_an_entry_is_not_waited_for(place):
    place.mkdir()
    os.mkfifo(place / NAMES[0])
    assert cache.read(NAMES[0]) is None


def test_a_folder_that_cannot_be_is_no_error(place):
    place.write_text("a file where the folder should be")
    cache.keep(NAMES[0], b"content")
    assert cache.read(NAMES[0]) is None
    assert place.read_text() == "a file where the folder should be"


def test_what_was_used_longest_ago_goes_first_and_other_files_stay(place, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 2 * (cache.DIGEST + 100))
    for age, name in enumerate(reversed(NAMES[:2])):
        cache.keep(name, bytes(100))
        os.utime(place / name, (1000 + age, 1000 + age))
    (place / "thesis.txt").write_bytes(bytes(10_000))
    assert cache.read(NAMES[1]) is not None  # the older one, which is now the newer
    cache.keep(NAMES[2], bytes(100))
    assert {path.name for path in place.iterdir()} == {NAMES[1], NAMES[2], "thesis.txt"}


def test_where_the_folder_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folder() == tmp_path / "cache"
    monkeypatch.delenv("AUTOPEFT_CACHE")
    assert cache.folder() == tmp_path / "xdg" / "autopeft"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == tmp_path / "home" / ".cache" / "autopeft"


def test_keys_tell_parts_apart():
    assert len({cache.key("ab", "c"), cache.key("a", "bc"), cache.key("abc"), cache.key("c", "ab")}) == 4
    assert cache.key("a lone surrogate \ud800")

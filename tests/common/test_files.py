import os
import subprocess
import sys
import time

import pytest
from safetensors.torch import save_file
from torch import zeros

from autopeft.common.files import DRAFT, IN_WORK, draft_folder, put, remove_drafts, whole


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize("lasting", [True, False])
def test_a_file_is_whole_or_as_it_was_and_its_draft_is_gone(tmp_path, lasting):
    path = tmp_path / "result.json"
    with whole(path, lasting=lasting) as draft:
        draft.write_text("first")
        assert not path.exists()
        assert DRAFT.fullmatch(draft.name)
    with pytest.raises(IsADirectoryError), whole(path, lasting=lasting) as draft:  # noqa: PT012  # both are the block
        draft.write_text("half of the sec")
        tmp_path.write_text("")  # anything that fails
    assert path.read_text() == "first"
    assert [found.name for found in tmp_path.iterdir()] == ["result.json"]


def test_what_a_library_writes_for_the_user_alone_follows_the_umask(tmp_path, umask):
    with whole(tmp_path / "weights") as draft:
        save_file({"a": zeros(1)}, draft)
    with draft_folder(tmp_path / "winner") as draft:
        made = draft / "winner"
        made.mkdir()
        save_file({"a": zeros(1)}, made / "weights")
        (made / "card").write_text("{}")
        put(made, tmp_path / "winner", (), last="card")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()} == {0o640}


def filled(folder, **files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", "/")).parent.mkdir(exist_ok=True)
        (folder / name.replace("__", "/")).write_text(text)
    return folder


def read(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_was_written_before_goes_and_what_is_somebody_elses_stays(tmp_path):
    mine = {
        "notes": "mine",
        "data__notes": "mine",
        "data__other": "mine",
        "data__card": "mine",
    }  # a copy of another one
    filled(tmp_path / "winner", card="old", weights="old", other="old", **mine)
    new = filled(tmp_path / "new", card="new", weights="new", data__more="new")
    put(new, tmp_path / "winner", {"other"}, last="card")
    ours = {"card": "new", "weights": "new", "data/more": "new"}
    assert read(tmp_path / "winner") == {**ours, **{name.replace("__", "/"): text for name, text in mine.items()}}


def test_the_file_that_makes_a_folder_whole_goes_first_and_comes_last(tmp_path):
    filled(tmp_path / "winner", card="old", a="old")
    new = filled(tmp_path / "new", card="new", a="new", zzz="new")
    (tmp_path / "winner" / "zzz").mkdir()  # in the way
    (tmp_path / "winner" / "zzz" / "mine").touch()
    with pytest.raises(OSError, match="zzz"):
        put(new, tmp_path / "winner", (), last="card")
    assert not (tmp_path / "winner" / "card").exists()


def test_a_folder_that_was_replaced_by_a_link_is_written_through_it(tmp_path):
    filled(tmp_path / "elsewhere", card="old", notes="mine")
    (tmp_path / "winner").symlink_to(tmp_path / "elsewhere")
    put(filled(tmp_path / "new", card="new"), tmp_path / "winner", (), last="card")
    assert read(tmp_path / "elsewhere") == {"card": "new", "notes": "mine"}


def test_drafts_that_were_left_go_and_nothing_else(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    kept = [".mine.draft", "notes.draft", f".winner.{gone.pid}-0123456.draft", f".mine.{os.getpid()}-0123abcd.draft"]
    for name in (*kept, f".result.json.{gone.pid}-0123abcd.draft", f".result.json.{os.getpid()}-0123abcd.draft"):
        (tmp_path / name).touch()
    long_ago = time.time() - 2 * IN_WORK  # in a container, the process before had the pid that this one has
    os.utime(tmp_path / f".result.json.{os.getpid()}-0123abcd.draft", (long_ago, long_ago))
    filled(tmp_path / f".winner.{gone.pid}-0123abcd.draft", card="half")
    remove_drafts(tmp_path, tmp_path / "nowhere")
    assert {path.name for path in tmp_path.iterdir()} == set(kept)

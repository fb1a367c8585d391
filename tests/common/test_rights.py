import os
from contextlib import contextmanager

import pytest

from autopeft.common import cache
from autopeft.common.rights import follow_umask
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.learner import Learner
from autopeft.winner import mlflow_model
from autopeft.winner import winner as artifact
from autopeft.winner.export import export
from tests.conftest import tiny_rows, trained_winner
from tests.training.test_learner import HYPER, lora


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def rights(folder):
    """Of files and of folders, as sets: {"0o644"}, {"0o755"}."""
    found = list(folder.rglob("*"))
    return tuple(
        {oct(path.stat().st_mode & 0o777) for path in found if path.is_dir() is kind} for kind in (False, True)
    )


@pytest.mark.parametrize(("mask", "files", "folders"), [(0o022, "0o644", "0o755"), (0o077, "0o600", "0o700")])
def test_all_that_a_winner_is_made_of_follows_the_umask(tiny_study, monkeypatch, mask, files, folders):
    monkeypatch.chdir(tiny_study.parent)
    made = tiny_study.parent / "made"
    with umask(mask):
        winner = trained_winner(tiny_study, "lora")
        winner.save(made / "winner")
        if mask == 0o022:  # once is enough for what takes seconds
            trained_winner(tiny_study, "adapter").save(made / "of-a-plugin")
            export(winner, made / "merged", "merged")
            mlflow_model.save(made / "winner", made / "registered", tiny_rows())
        export(winner, made / "peft", "peft")
    assert rights(made) == ({files}, {folders})
    assert {path.suffix for path in made.rglob("*")} >= {".safetensors", ".json"}
    assert artifact.load(made / "winner").card.method == "lora"


def test_caches_and_checkpoints_follow_it_too(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path / "cache"))

    with umask(0o022):
        cache.keep(cache.key("x"), b"content")
        Checkpoint.of(tmp_path, {"r": 1}).keep([0], Learner(lora(), HYPER, 8), [[(0.5, 1.0)]])
    assert rights(tmp_path)[0] == {"0o644"}
    assert rights(tmp_path)[1] == {"0o755", "0o700"}  # the cache's folder is the user's alone


def test_a_link_is_not_followed_out_of_the_folder(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "secret").touch(mode=0o600)
    (tmp_path / "own" / "link").symlink_to(tmp_path / "secret")
    with umask(0o022):
        follow_umask(tmp_path / "own")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600

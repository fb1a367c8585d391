"""A base model has an identity: what is not the same any more is noticed, on resume, on load and on export."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

import autopeft
from autopeft.common.console import make_console
from autopeft.common.exceptions import ModelError
from autopeft.methods.registry import discover
from autopeft.models import digest
from autopeft.models.load import load_base
from autopeft.reporting.progress import make_progress
from autopeft.search.resume import GIVEN
from autopeft.search.run import run
from autopeft.study.card import CARD, Card
from autopeft.study.file import StudySpec
from autopeft.study.journal import open_journal
from autopeft.study.storage import StudyStorage
from autopeft.tasks.registry import find_task
from autopeft.winner import winner as artifact
from tests.conftest import autopeft_here, few, tiny_rows, trained_winner
from tests.tiny_models import tiny

OPTIONS = {"task": find_task("text-classification"), "seed": 0}


@pytest.fixture
def folder(tmp_path, tiny_model) -> Path:
    """A tiny BERT of this test's own."""
    return Path(shutil.copytree(tiny_model, tmp_path / "base"))


@pytest.fixture
def study(tiny_study, tiny_model, monkeypatch) -> Path:
    """A study of two trials, whose base model is a folder of its own."""
    monkeypatch.chdir(tiny_study.parent)
    base = tiny_study.parent / "model"
    base.unlink()
    shutil.copytree(tiny_model, base)
    text = tiny_study.read_text().replace("trials = 4", "trials = 1").replace("epochs = 4", "epochs = 1")
    tiny_study.write_text(text.replace('methods = ["adapter", "lora", "prefix_tuning"]', 'methods = ["lora"]'))
    return tiny_study


def replace_weights(folder: Path) -> None:
    """Other weights of the same names and shapes, in a file of the same size and times."""
    path = folder / "model.safetensors"
    before = path.stat()
    tiny("bert", seed=1).save_pretrained(folder)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_the_same_files_are_the_same_model_wherever_they_are(folder, tmp_path):
    found = digest.of(folder)
    assert found.startswith("sha256:")
    assert digest.of(Path(shutil.copytree(folder, tmp_path / "copy"))) == found
    (tmp_path / "link").symlink_to(folder)
    assert digest.of(tmp_path / "link") == found
    (folder / "README.md").write_text("Something else.")
    assert digest.of(folder) == found


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_byte_of_what_decides_makes_another_model(folder, name):
    found = digest.of(folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + (b" " if content[-1:] == b"\n" else bytes([content[-1] ^ 1])))
    assert digest.of(folder) != found
    (folder / name).write_bytes(content)
    assert digest.of(folder) == found


def test_so_does_a_file_that_is_added_or_renamed(folder):
    found = {digest.of(folder)}
    (folder / "added_tokens.json").write_text("{}")
    found.add(digest.of(folder))
    (folder / "added_tokens.json").rename(folder / "special_tokens_map.json")
    found.add(digest.of(folder))
    assert len(found) == 3


def test_pieces_are_hashed_in_their_order(folder, monkeypatch):
    monkeypatch.setattr(digest, "PIECE", 1000)
    found = digest.of(folder)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-2000] + content[-1000:] + content[-2000:-1000])
    assert digest.of(folder) != found


def test_what_is_known_of_a_folder_is_known_no_more_once_a_file_changed(folder, monkeypatch):
    monkeypatch.setattr(digest, "SETTLED", -1.0)  # as if the files were old
    found = digest.of(folder)
    assert digest.of(folder) == found
    replace_weights(folder)
    assert digest.of(folder) != found


def test_files_that_changed_just_now_are_read_anew(folder):
    digest.of(folder)
    assert folder not in digest._known
    old = time.time() - 3600
    for path in folder.iterdir():
        os.utime(path, (old, old))  # sets the time of the last write, not that of the last change
    digest.of(folder)
    assert folder not in digest._known


def test_a_folder_that_holds_no_model_has_no_identity(tmp_path):
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        digest.of(tmp_path)
    with pytest.raises(ModelError, match="must be a Hugging Face model folder"):
        digest.of(tmp_path / "none")


def test_a_winner_on_a_base_that_was_replaced_is_not_loaded_nor_exported(study):
    base, place = study.parent / "model", study.parent
    winner = trained_winner(study, "lora")
    card = Card.read(place / "lora")
    replace(card, base_digest=digest.of(base)).write(place / "lora")
    winner = artifact.load(place / "lora")
    replace_weights(base)
    words = r"base model .*model is not the one that the winner was trained on \(digest sha256:.*restore the old files"
    with pytest.raises(ModelError, match=words):
        artifact.load(place / "lora")
    for given in (place / "lora", winner):
        with pytest.raises(ModelError, match=words):
            autopeft.export(given, place / "exported", "peft")
    done = autopeft_here("predict", place / "lora", "--input", place / "rows.csv", cwd=place)
    assert done.returncode == 2
    assert "is not the one that the winner was trained on" in " ".join(done.stderr.split())
    shutil.rmtree(base)
    with pytest.raises(ModelError, match=r"the winner's base model cannot be found: .* no longer exists"):
        artifact.load(place / "lora")


def test_a_card_from_before_there_were_digests_loads_without_a_word(study):
    winner = trained_winner(study, "lora")
    path = study.parent / "lora" / CARD
    content = json.loads(path.read_text())
    del content["base_digest"], content["digests"]
    path.write_text(json.dumps(content))
    expected = winner.predict_proba(["w1 w2"])
    np.testing.assert_array_equal(artifact.load(study.parent / "lora").predict_proba(["w1 w2"]), expected)


@pytest.mark.exhaustive
def test_a_study_goes_on_with_its_base_model_alone(study):
    place, base = study.parent, study.parent / "model"
    assert autopeft_here("run", "study.toml", cwd=place).returncode == 0
    output = place / "outputs" / "tiny"
    found = digest.of(base)
    given = open_journal(output).get_all_studies()[0].user_attrs[GIVEN]
    assert given["base_digest"] == Card.read(output / "winner").base_digest == found
    assert given["kinds"] == {"model.name_or_path": "local", "data.train": "local"}

    weights = (base / "model.safetensors").read_bytes()
    replace_weights(base)
    done = autopeft_here("run", "study.toml", cwd=place)
    assert done.returncode == 2
    assert "the base model model is not the one that the study" in " ".join(done.stderr.split())
    (base / "model.safetensors").write_bytes(weights)

    base.rename(place / "elsewhere")
    done = autopeft_here("run", "study.toml", cwd=place)
    told = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert '`name_or_path` in [model]: "model" was a local path when this began' in told
    assert "huggingface" not in told
    (place / "elsewhere").rename(base)

    storage = StudyStorage(output)  # as a study from before these were kept has it
    number = storage.get_all_studies()[0]._study_id
    storage.set_study_user_attr(number, GIVEN, {k: v for k, v in given.items() if k not in ("base_digest", "kinds")})
    assert autopeft_here("run", "study.toml", cwd=place).returncode == 0
    assert open_journal(output).get_all_studies()[0].user_attrs[GIVEN] == given


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", few(["removed", "replaced"], "removed"))
def test_a_base_that_goes_in_mid_study_is_named_and_no_trial_is_lost(study, how):
    base, place = study.parent / "model", study.parent

    spec = StudySpec.from_file(study)
    progress = make_progress(make_console(quiet=True))
    usual = progress.say

    def say(text: str) -> None:
        usual(text)
        if text.startswith("Refitting the winner") and base.is_dir():
            shutil.copytree(base, place / "kept")
            if how == "removed":
                shutil.rmtree(base)
            else:
                replace_weights(base)

    progress.say = say
    with pytest.raises(ModelError) as caught:
        run(spec, discover(), progress)
    told = str(caught.value)
    assert "base model" in told
    assert str(base) in told
    assert "no trial completed" not in told
    assert "huggingface" not in told
    shutil.rmtree(base, ignore_errors=True)
    (place / "kept").rename(base)
    result = run(spec, discover(), make_progress(make_console(quiet=True)))
    assert [record.state for record in result.records] == ["COMPLETE"]
    assert result.test.winner is not None


@pytest.fixture
def cached(tmp_path, tiny_model, monkeypatch) -> Path:
    """The hub's cache with two commits of one model, of which `main` is at the first; nothing is asked of a network."""
    cache = tmp_path / "cache"
    model = cache / "models--org--name"
    for commit, seed in (("a" * 40, 0), ("b" * 40, 1)):
        place = model / "snapshots" / commit
        shutil.copytree(tiny_model, place)
        tiny("bert", seed=seed).save_pretrained(place)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return model


@pytest.mark.exhaustive
def test_a_model_of_the_hub_is_its_commit_and_a_study_and_its_winner_keep_to_it(study, cached):
    place = study.parent
    study.write_text(study.read_text().replace('name_or_path = "model"', 'name_or_path = "org/name"'))
    done = autopeft_here("run", "study.toml", cwd=place)
    assert done.returncode == 0, done.stderr
    output = place / "outputs" / "tiny"
    assert Card.read(output / "winner").base_digest == "commit:" + "a" * 40
    expected = artifact.load(output / "winner").predict_proba(tiny_rows())
    (cached / "refs" / "main").write_text("b" * 40)
    np.testing.assert_array_equal(artifact.load(output / "winner").predict_proba(tiny_rows()), expected)
    assert autopeft_here("run", "study.toml", cwd=place).returncode == 0
    study.write_text(study.read_text().replace('"org/name"', '"org/name"\nrevision = "main"'))
    done = autopeft_here("run", "study.toml", cwd=place)
    assert done.returncode == 2
    assert f'set `revision = "{"a" * 40}"` in [model]' in " ".join(done.stderr.split())


def test_what_is_on_the_hub_is_examined_as_a_folder_is(cached):
    snapshot = cached / "snapshots" / ("a" * 40)
    load_base("org/name", **OPTIONS)
    (snapshot / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds an adapter beside the model"):
        load_base("org/name", **OPTIONS)
    (snapshot / "adapter_config.json").unlink()
    (snapshot / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"model\.safetensors is a git-lfs pointer"):
        load_base("org/name", **OPTIONS)
    with pytest.raises(ModelError, match="org/none cannot be loaded"):
        load_base("org/none", **OPTIONS)


def test_a_folder_that_has_the_name_of_a_model_on_the_hub_is_not_read_for_it(cached, tiny_model, tmp_path, monkeypatch):
    shutil.copytree(tiny_model, tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="transformers would load the folder of that name"):
        load_base("org/name", **OPTIONS)

import pytest
from transformers import AutoTokenizer

from autopeft import disk_cache, token_cache
from autopeft.problem import Problem
from autopeft.registry import discover
from autopeft.spec import StudySpec
from autopeft.token_cache import CachedTokenizer
from tests.conftest import THREE, autopeft_here
from tests.test_study import edit

TEXTS = ["w1 w2 w3", "w4", "", "w5 w6 ünknown w7 w8"]
PAIRS = ["w9", "w1 w2", "w3", "w4"]
OPTIONS = {"truncation": True, "max_length": 5, "padding": False}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def entries(place) -> set[str]:
    return {path.name for path in place.iterdir()} if place.exists() else set()


@pytest.mark.parametrize("texts", [(TEXTS,), (TEXTS, PAIRS)])
def test_first_and_later_calls_give_what_the_tokenizer_gives(place, tokenizer, tiny_model, texts):
    expected = tokenizer(*texts, **OPTIONS)
    assert dict(CachedTokenizer(tokenizer)(*texts, **OPTIONS)) == dict(expected)
    assert len(entries(place)) == 1
    again = CachedTokenizer(AutoTokenizer.from_pretrained(tiny_model))  # as another process has it
    assert dict(again(*texts, **OPTIONS)) == dict(expected)
    assert len(entries(place)) == 1
    assert again.pad_token_id == tokenizer.pad_token_id


def test_later_calls_come_from_the_disk(place, tokenizer):
    CachedTokenizer(tokenizer)(TEXTS, **OPTIONS)
    (name,) = entries(place)
    token_cache._keep(name, token_cache._pack({"input_ids": [[1], [2, 300_000], [], [4]]}))
    assert dict(CachedTokenizer(tokenizer)(TEXTS, **OPTIONS)) == {"input_ids": [[1], [2, 300_000], [], [4]]}


@pytest.mark.parametrize("content", [b"no safetensors", b""])
def test_an_entry_of_another_form_is_ignored_and_rewritten(place, tokenizer, content):
    expected = dict(CachedTokenizer(tokenizer)(TEXTS, **OPTIONS))
    (name,) = entries(place)
    good = disk_cache.read(name)
    disk_cache.keep(name, content)
    assert dict(CachedTokenizer(tokenizer)(TEXTS, **OPTIONS)) == expected
    assert disk_cache.read(name) == good


def test_whatever_the_tokens_depend_on_makes_an_entry_of_its_own(place, tokenizer):
    cached = CachedTokenizer(tokenizer)
    for texts, options in (
        ((TEXTS,), OPTIONS),
        ((TEXTS[::-1],), OPTIONS),
        ((TEXTS, PAIRS), OPTIONS),
        ((TEXTS,), {**OPTIONS, "max_length": 6}),
    ):
        before = len(entries(place))
        assert dict(cached(*texts, **options)) == dict(tokenizer(*texts, **options))
        assert len(entries(place)) == before + 1
    tokenizer.add_tokens(["w4"])
    assert dict(cached(TEXTS, **OPTIONS)) == dict(tokenizer(TEXTS, **OPTIONS))
    tokenizer.truncation_side = "left"
    assert dict(cached(TEXTS, **OPTIONS)) == dict(tokenizer(TEXTS, **OPTIONS))
    assert len(entries(place)) == 6


def test_other_calls_and_other_tokenizers_go_through(place, tokenizer):
    cached = CachedTokenizer(tokenizer)
    assert cached("w1 w2")["input_ids"] == tokenizer("w1 w2")["input_ids"]
    assert cached(PAIRS, padding=True, return_tensors="pt")["input_ids"].shape == (4, 4)
    offsets = cached(TEXTS, return_offsets_mapping=True)["offset_mapping"]
    assert offsets == tokenizer(TEXTS, return_offsets_mapping=True)["offset_mapping"]

    class Own(type(tokenizer)):
        """Of a stranger: its code may change while its name does not."""

    strange = Own(tokenizer_object=tokenizer.backend_tokenizer)
    assert CachedTokenizer(strange)(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert entries(place) == set()


def test_a_study_tokenises_its_rows_once_and_keeps_none_that_it_predicts(place, tiny_study):
    first = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    kept = entries(place)
    assert len(kept) == 2  # training and held-out rows
    again = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    assert entries(place) == kept
    for one, other in ((first.train, again.train), (first.test, again.test)):
        assert one.columns.keys() == other.columns.keys()
        assert all((one.columns[name] == other.columns[name]).all() for name in one.columns)
        assert (one.offsets == other.offsets).all()
        assert (one.labels == other.labels).all()
        assert one.columns["input_ids"].dtype == other.columns["input_ids"].dtype
    edit(tiny_study, (THREE, 'methods = ["lora"]'), ("trials = 4", "trials = 1\nepochs = 2"), ("epochs = 4\n", ""))
    assert autopeft_here("run", tiny_study.name, cwd=tiny_study.parent).returncode == 0
    ran = entries(place)
    assert len(ran - kept) == 1  # MLflow's tables
    assert autopeft_here("predict", "outputs/tiny/winner", "--input", "rows.csv", cwd=tiny_study.parent).returncode == 0
    assert entries(place) == ran


def test_a_cache_that_cannot_be_written_changes_nothing(place, tokenizer):
    place.write_text("a file where the folder should be")
    for _ in range(2):
        assert dict(CachedTokenizer(tokenizer)(TEXTS, **OPTIONS)) == dict(tokenizer(TEXTS, **OPTIONS))

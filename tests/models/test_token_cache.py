import numpy as np
import pytest
from transformers import AutoTokenizer

from autopeft.common import cache
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models import token_cache
from autopeft.models.row_tokenizer import RowTokenizer, TokenRows
from autopeft.models.token_cache import CachedRowTokenizer
from autopeft.models.tokenizer import prepare
from autopeft.study.file import StudySpec
from tests.conftest import THREE, autopeft_here
from tests.search.test_run import edit

TEXTS = ["w1 w2 w3 w4 w5", "w4", "", "w5 w6 ünknown w7 w8"]
PAIRS = ["w9", "w1 w2", "w3", "w4"]
MOST = 5


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def entries(place) -> set[str]:
    return {path.name for path in place.iterdir()} if place.exists() else set()


def equal(one: TokenRows, other: TokenRows) -> bool:
    assert one.columns.keys() == other.columns.keys()
    pairs = [*((one.columns[name], other.columns[name]) for name in one.columns)]
    pairs += [(one.offsets, other.offsets), (one.whole, other.whole)]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("texts", [(TEXTS,), (TEXTS, PAIRS)])
def test_first_and_later_calls_give_what_the_tokenizer_gives(place, tokenizer, tiny_model, texts):
    expected = RowTokenizer(tokenizer, MOST)(*texts)
    assert equal(CachedRowTokenizer(tokenizer, MOST)(*texts), expected)
    assert len(entries(place)) == 1
    again = CachedRowTokenizer(AutoTokenizer.from_pretrained(tiny_model), MOST)  # as another process has it
    assert equal(again(*texts), expected)
    assert len(entries(place)) == 1


def test_later_calls_come_from_the_disk(place, tokenizer):
    CachedRowTokenizer(tokenizer, MOST)(TEXTS)
    (name,) = entries(place)
    kept = TokenRows(
        {"input_ids": np.array([1, 2, 300_000, 4], np.int32)}, np.array([0, 1, 3, 3, 4]), np.array([1, 70_000, 0, 1])
    )
    token_cache._keep(name, kept)
    assert equal(CachedRowTokenizer(tokenizer, MOST)(TEXTS), kept)


@pytest.mark.parametrize("content", [b"no safetensors", b""])
def test_an_entry_of_another_form_is_ignored_and_rewritten(place, tokenizer, content):
    expected = CachedRowTokenizer(tokenizer, MOST)(TEXTS)
    (name,) = entries(place)
    good = cache.read(name)
    cache.keep(name, content)
    assert equal(CachedRowTokenizer(tokenizer, MOST)(TEXTS), expected)
    assert cache.read(name) == good


def test_whatever_the_tokens_depend_on_makes_an_entry_of_its_own(place, tokenizer):
    def count(*texts, most=MOST, truncation=None) -> int:
        found = CachedRowTokenizer(tokenizer, most, truncation)(*texts)
        assert equal(found, RowTokenizer(tokenizer, most, truncation)(*texts))
        return len(entries(place))

    assert count(TEXTS) == count(TEXTS, truncation="head") == 1
    assert count(TEXTS[::-1]) == 2
    assert count(TEXTS, PAIRS) == 3
    assert count(TEXTS, most=6) == 4
    assert count(TEXTS, truncation="both") == 5
    tokenizer.truncation_side = "left"
    assert count(TEXTS) == count(TEXTS, truncation="tail") == 6
    prepare(tokenizer)  # control tokens are text from here on
    assert count(TEXTS) == 7
    tokenizer.add_tokens(["w4"])
    assert count(TEXTS) == 8


def test_a_control_token_that_was_kept_as_one_is_not_found_again(place, tokenizer):
    before = CachedRowTokenizer(tokenizer, 20)(["w1 [SEP] w2"])
    prepare(tokenizer)
    after = CachedRowTokenizer(tokenizer, 20)(["w1 [SEP] w2"])
    assert before.columns["input_ids"].tolist().count(tokenizer.sep_token_id) == 2
    assert after.columns["input_ids"].tolist().count(tokenizer.sep_token_id) == 1


def test_tokenizers_of_strangers_are_not_kept(place, tokenizer):
    class Own(type(tokenizer)):
        """Its code may change while its name does not."""

    strange = Own(tokenizer_object=tokenizer.backend_tokenizer)
    assert equal(CachedRowTokenizer(strange, MOST)(TEXTS), RowTokenizer(tokenizer, MOST)(TEXTS))
    assert entries(place) == set()


@pytest.mark.exhaustive
def test_a_study_tokenises_its_rows_once_and_keeps_none_that_it_predicts(place, tiny_study):
    first = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    kept = entries(place)
    assert len(kept) == 2  # training and held-out rows
    again = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    assert entries(place) == kept
    for one, other in ((first.train, again.train), (first.test, again.test)):
        assert one.fields.keys() == other.fields.keys()
        pairs = [(one.fields[name], other.fields[name]) for name in one.fields]
        assert all((a.values == b.values).all() for a, b in pairs)
        assert (one.lengths == other.lengths).all()
        assert (one.truths == other.truths).all()
        assert all(a.values.dtype == b.values.dtype for a, b in pairs)
    edit(tiny_study, (THREE, 'methods = ["lora"]'), ("trials = 4", "trials = 1\nepochs = 2"), ("epochs = 4\n", ""))
    assert autopeft_here("run", tiny_study.name, cwd=tiny_study.parent).returncode == 0
    ran = entries(place)
    assert len(ran - kept) == 1  # MLflow's tables
    assert autopeft_here("predict", "outputs/tiny/winner", "--input", "rows.csv", cwd=tiny_study.parent).returncode == 0
    assert entries(place) == ran


def test_a_cache_that_cannot_be_written_changes_nothing(place, tokenizer):
    place.write_text("a file where the folder should be")
    for _ in range(2):
        assert equal(CachedRowTokenizer(tokenizer, MOST)(TEXTS), RowTokenizer(tokenizer, MOST)(TEXTS))

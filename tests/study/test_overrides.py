"""Settings from a command line: typed as the study file has them, and refused by a sentence that helps."""

import pytest

from autopeft.common.exceptions import SpecError
from autopeft.study.file import StudySpec
from autopeft.study.overrides import overridden

CONTENT = {"name": "n", "model": {"name_or_path": "m"}, "task": {"kind": "k"}, "data": {"train": "t.csv"}}


def spec(*settings: str) -> StudySpec:
    return StudySpec.from_mapping(overridden(CONTENT, settings, StudySpec))


@pytest.mark.parametrize(
    ("setting", "table", "key", "value"),
    [
        ("search.trials=5", "search", "trials", 5),
        ("search.timeout=10m", "search", "timeout", 600),
        ("search.timeout=90", "search", "timeout", 90),
        ("search.workers=auto", "search", "workers", "auto"),
        ("search.methods=lora", "search", "methods", ["lora"]),
        ("search.methods=lora, ia3", "search", "methods", ["lora", "ia3"]),
        ('search.methods=["lora"]', "search", "methods", ["lora"]),
        ("search.references=false", "search", "references", False),
        ("methods.fusion.sources=outputs/a, b", "methods", "settings", {"fusion": {"sources": ["outputs/a", "b"]}}),
        ("search.warm_start=outputs/earlier", "search", "warm_start", "outputs/earlier"),
        ("data.text=1", "data", "text", "1"),
        ('data.text="a = b"', "data", "text", "a = b"),
        ("data.label=a=b", "data", "label", "a=b"),
        ("data.max_rows=100", "data", "max_rows", 100),
        ("data.question=q", "data", "columns", {"question": "q"}),
        ("model.dtype=float32", "model", "dtype", "float32"),
        ("budget.max_trainable_params=1%", "budget", "max_trainable_params", 0.01),
        ("budget.max_gpu_memory=2 GiB", "budget", "max_gpu_memory", 2**31),
        ("search.lora.r=4,32", "search", "overrides", {"lora": {"r": [4, 32]}}),
        ("search.lora.r=[4, 32]", "search", "overrides", {"lora": {"r": [4, 32]}}),
        ("search.lora.target_modules=attention", "search", "overrides", {"lora": {"target_modules": "attention"}}),
        ("search.learning_rate=3e-4", "search", "overrides", {"learning_rate": 3e-4}),
        ("search.lora.use_rslora=true", "search", "overrides", {"lora": {"use_rslora": True}}),
        ("task.delimiter=;", "task", "options", {"delimiter": ";"}),
    ],
)
def test_a_value_has_the_type_that_the_study_file_has(setting, table, key, value):
    assert getattr(getattr(spec(setting), table), key) == value


def test_top_level_settings_and_several_at_once():
    found = spec("seed=3", "name=2024", "search.trials=2", "search.trials=3")
    assert (found.seed, found.name, found.search.trials) == (3, "2024", 3)
    assert CONTENT["model"] == {"name_or_path": "m"}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("search.trials", "such as search.trials=5"),
        ("=5", "such as search.trials=5"),
        ("serch.trials=5", 'did you mean "search"'),
        ("trials=5", 'did you mean "search.trials"'),
        ("lr=5", "--set search.learning_rate="),
        ("validation.epochs=5", "--set search.epochs="),
        ("validation.fold=5", 'did you mean "folds"'),
        ("validation=5", "such as validation.folds"),
        ("seed.x=5", "`seed` is not a table"),
        ("validation.folds.x=5", "is not a table"),
        ("search.trials=many", "whole number"),
        ("folder=x", "is not a setting"),
    ],
)
def test_what_is_no_setting_is_refused_with_where_it_is(setting, words):
    with pytest.raises(SpecError) as error:
        spec(setting)
    assert words in str(error.value)

"""The schema of a study file: it takes what the program takes, and the page that is made of it is current."""

import json
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from autopeft.common.exceptions import SpecError
from autopeft.methods.reference import search_schema, training_schema
from autopeft.methods.registry import discover
from autopeft.methods.training_space import TRAINING_SPACE
from autopeft.study.file import StudySpec
from autopeft.study.schema import json_schema, reference
from autopeft.study.sections import GATHERED, NO_SETTINGS
from tests.conftest import TINY_STUDY, autopeft_here

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "studies").rglob("*.toml"))


def validator() -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("text", [TINY_STUDY, *(path.read_text() for path in STUDIES)])
def test_it_takes_real_study_files(text):
    validator().validate(tomllib.loads(text))


@pytest.mark.parametrize(
    ("table", "setting", "value", "fits"),
    [
        ("budget", "max_trainable_params", "0.5%", True),
        ("budget", "max_gpu_memory", 2**30, True),
        ("search", "timeout", "10m", True),
        ("search", "lora", {"r": [4, 8]}, True),
        ("search", "trials", 0, False),
        ("search", "pruner", "guess", False),
        ("validation", "folds", "three", False),
        ("validation", "fold", 3, False),
        ("model", "trust_remote_code", "yes", False),
    ],
)
def test_it_says_of_a_setting_what_the_program_says(table, setting, value, fits):
    content = tomllib.loads(TINY_STUDY)
    content[table] = {**content.get(table, {}), setting: value}
    assert validator().is_valid(content) == fits
    if fits:
        StudySpec.from_mapping(content)
    else:
        with pytest.raises(SpecError, match=setting):
            StudySpec.from_mapping(content)


def test_the_page_is_current_and_describes_every_setting():
    assert (ROOT / "docs" / "study-file.md").read_text() == reference(training_schema())
    assert " |  |\n" not in reference()
    for section in StudySpec.model_fields.values():
        for name in getattr(section.annotation, "model_fields", {}):
            hidden = {*NO_SETTINGS, *chain.from_iterable(GATHERED.values())}
            assert name in hidden or f"| `{name}` |" in reference()


@pytest.mark.parametrize(
    ("search", "fits"),
    [
        ({"epochs": 3, "learning_rate": [1e-4, 1e-3], "lora": {"r": [4, 32], "epochs": 2}}, True),
        ({"lora": {"target_modules": ["attention", "all_linear"]}, "batch_size": [16, 32, 64]}, True),
        ({"epochs": 0}, False),
        ({"learning_rate": "fast"}, False),
        ({"lora": {"r": "eight"}}, False),
        ({"lora": 3}, False),
    ],
)
def test_it_knows_what_training_and_methods_take(search, fits):
    content = tomllib.loads(TINY_STUDY)
    content["search"] = search
    assert Draft202012Validator(json_schema(search_schema(discover()))).is_valid(content) == fits


def test_the_pages_list_every_dimension_with_its_default():
    methods = (ROOT / "docs" / "methods.md").read_text()
    study = (ROOT / "docs" / "study-file.md").read_text()
    assert all(f"| `{name}` |" in study for name in TRAINING_SPACE)
    assert methods == autopeft_here("methods", "--markdown", cwd=ROOT).stdout
    for name, method in discover().methods.items():
        part = methods.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert all(f"| `{key}` |" in part for key in (*method.search_space(), *TRAINING_SPACE))


def test_the_command_prints_it(tmp_path):
    assert json.loads(autopeft_here("schema", cwd=tmp_path).stdout) == json_schema(search_schema(discover()))

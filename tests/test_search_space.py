import optuna
import pytest

from autopeft import Categorical, Float, Integer, SearchSpace
from autopeft.exceptions import SpecError

SPACE = SearchSpace(
    {
        "r": Integer(low=1, high=64, log=True, default=8),
        "dropout": Float(low=0.0, high=0.3, default=0.1),
        "projection": Categorical(choices=(False, True), default=False),
        "width": Integer(low=32, high=512, log=True, default=128, when=("projection", True)),
    }
)


def trial(seed: int) -> optuna.Trial:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()


def test_every_drawn_point_lies_in_the_space_and_conditions_hold():
    drawn = [SPACE.suggest(trial(seed), "lora.") for seed in range(30)]
    assert all(SPACE.holds(params) for params in drawn)
    assert {("width" in params) == params["projection"] for params in drawn} == {True}
    assert {params["projection"] for params in drawn} == {True, False}


def test_a_condition_on_several_values_holds_for_each_and_narrows_with_them():
    width = Integer(low=1, high=9, default=2, when=("parts", ("a", "a+b")))
    space = SearchSpace({"parts": Categorical(choices=("a", "b", "a+b"), default="a+b"), "width": width})
    found = {params["parts"]: "width" in params for params in space.corners()}
    assert found == {"a": True, "b": False, "a+b": True}
    assert space.narrowed({"parts": ["a", "b"]}, "x")["width"].when == ("parts", "a")
    assert set(space.narrowed({"parts": "b"}, "x")) == {"parts"}
    with pytest.raises(ValueError, match="'c'"):
        SearchSpace({"parts": space["parts"], "width": Integer(low=1, high=2, default=1, when=("parts", ("a", "c")))})


def test_optuna_knows_the_dimensions_by_their_prefixed_names():
    asked = trial(0)
    SPACE.suggest(asked, "lora.")
    assert {"lora.r", "lora.dropout", "lora.projection"} <= set(asked.params)


def test_defaults_leave_out_inactive_dimensions():
    assert SPACE.defaults() == {"r": 8, "dropout": 0.1, "projection": False}
    assert SPACE.holds(SPACE.defaults())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"r": 8, "dropout": 0.2, "projection": False}, {"r": 8, "dropout": 0.2, "projection": False}),
        ({"r": 100, "dropout": -1, "projection": False}, {"r": 64, "dropout": 0.0, "projection": False}),
        ({"r": "8", "dropout": True, "projection": 1}, {"r": 8, "dropout": 0.1, "projection": False}),
        ({"r": float("nan"), "projection": True}, {"r": 8, "dropout": 0.1, "projection": True, "width": 128}),
        ({"width": 64, "unknown": 3}, {"r": 8, "dropout": 0.1, "projection": False}),
    ],
)
def test_the_nearest_point_clamps_numbers_and_takes_the_default_otherwise(values, expected):
    found = SPACE.nearest(values)
    assert found == expected
    assert SPACE.holds(found)


def test_the_nearest_value_keeps_to_steps_and_choices():
    assert [Integer(low=16, high=60, step=16, default=16).nearest(n) for n in (0, 23, 25, 99, 40.4)] == [
        16,
        16,
        32,
        48,
        48,
    ]
    numbers = Categorical(choices=(4, 16, 64), default=4)
    assert [numbers.nearest(value) for value in (5, 30, 64.0, "64", True)] == [4, 16, 64, 4, 4]
    assert Categorical(choices=("a", "b"), default="a").nearest("b") == "b"
    assert Categorical(choices=("a", "b"), default="a").nearest("c") == "a"


def test_fixing_a_dimension_drops_those_that_it_rules_out():
    assert list(SPACE.narrowed({"projection": False}, "[search] lora")) == ["r", "dropout", "projection"]
    assert list(SPACE.narrowed({"projection": True}, "[search] lora")) == list(SPACE)
    assert "width" not in SPACE.narrowed({"projection": False, "width": 64}, "[search] lora")


def test_corners_are_the_extremes_each_once():
    corners = list(SPACE.corners())
    assert len(corners) == 2 * 2 * (1 + 2)
    assert all(SPACE.holds(corner) for corner in corners)


@pytest.mark.parametrize(
    "params",
    [
        {"r": 65, "dropout": 0.1, "projection": False},
        {"r": True, "dropout": 0.1, "projection": False},
        {"r": 8, "dropout": 0.1, "projection": False, "width": 64},
        {"r": 8, "dropout": 0.1, "projection": True},
        {"r": 8, "dropout": 0.1, "projection": 0},
    ],
)
def test_points_outside_are_told_apart(params):
    assert not SPACE.holds(params)


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ({"r": Integer(low=4, high=1, default=4)}, "low <= high"),
        ({"r": Integer(low=1, high=4, default=8)}, "default"),
        ({"lr": Float(low=0.0, high=1.0, default=0.1, log=True)}, "low > 0"),
        ({"a": Categorical(choices=(), default="x")}, "at least one choice"),
        ({"w": Integer(low=1, high=2, default=1, when=("absent", True))}, '"absent"'),
    ],
)
def test_a_broken_declaration_is_refused(dimensions, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace(dimensions)


def test_a_study_file_fixes_ranges_and_chooses():
    space = SPACE.narrowed({"r": [4, 16], "dropout": 0.2, "projection": True, "width": [64, 128, 256]}, "[search] lora")
    assert (space["r"].low, space["r"].high, space["r"].log) == (4, 16, True)
    assert space.defaults() == {"r": 8, "dropout": 0.2, "projection": True, "width": 128}
    assert space["width"].choices == (64, 128, 256)


def test_narrowing_moves_the_default_inside():
    assert SPACE.narrowed({"r": [16, 32]}, "[search] lora").defaults()["r"] == 16


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"rr": 4}, ['"rr"', 'did you mean "r"']),
        ({"r": 4.5}, ["whole number", "4.5"]),
        ({"r": [32, 4]}, ["swap"]),
        ({"r": []}, ["empty list"]),
        ({"r": 0}, ["above zero"]),
        ({"projection": "yes"}, ["one of", "'yes'"]),
    ],
)
def test_a_wrong_narrowing_is_one_clear_sentence(overrides, words):
    with pytest.raises(SpecError) as error:
        SPACE.narrowed(overrides, "[search] lora")
    assert all(word in str(error.value) for word in ["[search] lora", *words])

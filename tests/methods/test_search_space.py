import optuna
import pytest

from autopeft import Bounds, Categorical, Float, Integer, SearchSpace
from autopeft.common.exceptions import SpecError
from autopeft.methods.candidate import CandidateSpace, within_bounds
from autopeft.methods.registry import discover

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
        ({"a": Categorical(choices=(1, 2, 1), default=1)}, "once"),
        ({"r": Integer(low=1, high=10**400, default=1)}, "low <= high"),
        ({"r": Integer(low=1, high=8, default=1, step=0)}, "step"),
        ({"r": Integer(low=1, high=8, default=1, step=2, log=True)}, "step"),
        ({"d": Float(low=0.0, high=1.0, default=0.5, bounds=Bounds(below=1))}, "below 1"),
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
        ({"r": 0}, ["at least 1", "got 0", "1…64"]),
        ({"r": True}, ["whole number", "True"]),
        ({"r": 10**400}, ["at most 2147483647", "401 digits"]),
        ({"r": [[4]]}, ["whole number", "[4]"]),
        ({"r": [4, 8, 4]}, ["each choice once", "4 twice"]),
        ({"r": list(range(1, 2000))}, ["at most 1000 choices", "1,999"]),
        ({"dropout": 1.0}, ["at least 0 and below 1", "got 1.0"]),
        ({"dropout": [0.0, float("nan")]}, ["at least 0 and below 1", "got nan"]),
        ({"dropout": float("inf")}, ["below 1", "got inf"]),
        ({"dropout": 10**400}, ["below 1", "401 digits"]),
        ({"dropout": "x" * 100_000}, ["a number", "…"]),
        ({"lr": 0}, ["above 0", "got 0"]),
        ({"lr": [0.0, 0.1]}, ["above 0", "got 0.0"]),
        ({"lr": float("inf")}, ["above 0", "got inf"]),
        ({"shift": float("-inf")}, ["a finite number", "got -inf"]),
        ({"projection": [True, False, True]}, ["each choice once", "True twice"]),
        ({"x" * 100_000: 1}, ["not a dimension", "…"]),
        ({"projection": "yes"}, ["one of", "'yes'"]),
    ],
)
def test_a_wrong_narrowing_is_one_clear_sentence(overrides, words):
    more = {
        "dropout": Float(low=0.0, high=0.3, default=0.1, bounds=Bounds(least=0, below=1)),
        "lr": Float(low=1e-4, high=1e-2, default=1e-3, log=True),
        "shift": Float(low=-1.0, high=1.0, default=0.0),
    }
    with pytest.raises(SpecError) as error:
        SPACE.merged(SearchSpace(more)).narrowed(overrides, "[search] lora")
    assert all(word in str(error.value) for word in ["[search] lora", *words])
    assert len(str(error.value)) < 400


def test_a_study_file_may_leave_the_declared_range_but_not_the_bounds():
    space = SPACE.narrowed({"r": [128, 256], "dropout": [0.5, 0.9]}, "[search] lora")
    assert (space["r"].low, space["r"].high, space["dropout"].high) == (128, 256, 0.9)
    again = space.narrowed({"r": 2}, "[search] lora")  # of the declared range, not of the one that was given
    assert again["r"].low == 2
    with pytest.raises(SpecError, match="at least 1"):
        space.narrowed({"r": 0}, "[search] lora")


@pytest.mark.parametrize(
    ("dimension", "valid", "invalid"),
    [
        (Integer(low=1, high=8, default=2), 1, 0),
        (Integer(low=0, high=8, default=2), 0, -1),
        (Integer(low=-5, high=8, default=2), -100, 2**40),
        (Float(low=1e-4, high=1.0, default=0.1, log=True), 1e-300, 0.0),
        (Float(low=0.0, high=1.0, default=0.1), 0.0, -1e-300),
        (Float(low=-1.0, high=1.0, default=0.1), -1e300, float("nan")),
    ],
)
def test_bounds_that_are_not_declared_follow_from_the_range(dimension, valid, invalid):
    assert valid in dimension.valid
    assert invalid not in dimension.valid


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("epochs", 0, "at least 1"),
        ("epochs", [0, 4], "at least 1"),
        ("epochs", 10**9, "at most 10000"),
        ("batch_size", 0, "at least 1"),
        ("batch_size", -8, "at least 1"),
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", float("nan"), "above 0"),
        ("warmup_ratio", 1.01, "at least 0 and at most 1"),
        ("weight_decay", -0.1, "at least 0"),
    ],
)
def test_no_training_dimension_can_be_what_cannot_train(key, value, rule):
    methods = [found for found in discover().methods.values() if found.name in ("lora", "ia3")]
    for overrides in ({key: value}, {"ia3": {key: value}}):  # ia3 has ranges of its own for two of them
        with pytest.raises(SpecError, match=rule):
            CandidateSpace.build(methods, None, overrides, ())


def test_every_shipped_dimension_refuses_what_lies_beyond_its_bounds():
    for method in discover().methods.values():
        for space in (method.search_space(), within_bounds(method.training_space())):
            for name, dimension in space.items():
                if isinstance(dimension, Categorical):
                    continue
                signed = dimension.low < 0  # such as the weights of a sum
                for value in (float("nan"), float("inf"), 10**400, True, *(() if signed else (-1,))):
                    with pytest.raises(SpecError, match=name):
                        space.narrowed({name: value}, f"[search] {method.name}")


def test_a_method_cannot_widen_what_the_host_can_train_with():
    for dimension in (Integer(low=0, high=4, default=1), Categorical(choices=(0, 4), default=4)):
        with pytest.raises(ValueError, match='"epochs" must be at least 1'):
            within_bounds(SearchSpace({"epochs": dimension}))


def test_an_optional_dimension_is_there_where_a_study_names_it_alone():
    lora = discover().methods["lora"]
    plain, named = (
        CandidateSpace.build([lora], None, {"lora": table}, ())["lora"]
        for table in ({}, {"loraplus_lr_ratio": [1, 4, 16], "init_lora_weights": ["pissa", "default"]})
    )
    assert set(named.own) - set(plain.own) == {"loraplus_lr_ratio", "init_lora_weights"}
    assert named.default().params["loraplus_lr_ratio"] == 1
    assert named.default().params["init_lora_weights"] == "default"
    drawn = [named.suggest(trial(seed)).params["loraplus_lr_ratio"] for seed in range(30)]
    assert {*drawn} == {1, 4, 16}
    with pytest.raises(SpecError, match=r"must be one of default \| gaussian"):
        CandidateSpace.build([lora], None, {"lora": {"init_lora_weights": "pisa"}}, ())
    some = SearchSpace({"kind": Categorical(choices=("a", "b"), default="a", refused=(("c", "it needs a bias."),))})
    with pytest.raises(SpecError, match=r"x\.kind cannot be 'c' here: it needs a bias\."):
        some.narrowed({"kind": ["a", "c"]}, "x")
    inner = Integer(low=1, high=2, default=1, when=("a", True))
    outer = Categorical(choices=(False, True), default=False, optional=True)
    with pytest.raises(ValueError, match='"b" depends on "a", which is optional'):
        SearchSpace({"a": outer, "b": inner})
    both = SearchSpace({"a": outer, "b": Integer(low=1, high=2, default=1, when=("a", True), optional=True)})
    assert set(both.narrowed({"a": True, "b": [1, 2]}, "x")) == {"a", "b"}
    assert not both.narrowed({"b": 2}, "x")
    with pytest.raises(ValueError, match='"epochs" is needed for all training'):
        within_bounds(SearchSpace({"epochs": Integer(low=1, high=2, default=1, optional=True)}))

"""The scikit-learn classifier: scikit-learn's own checks, and its tools, on real tiny studies."""

import json
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

import autopeft
from autopeft.common.exceptions import UserInputError
from tests.conftest import DTYPE, WORDS, tiny_rows
from tests.tiny_models import tiny

QUICK = {"search": {"epochs": 1, "batch_size": 32}, "validation": {"packing": "off"}}
CHECKS = [check for _, check in estimator_checks_generator(autopeft.AutoPeftClassifier())]
"""Every one of scikit-learn's; none is ruled out."""


def quick(model, **params) -> autopeft.AutoPeftClassifier:
    given = {"methods": ["bitfit"], "trials": 1, "folds": 2, "settings": QUICK, **params}
    return autopeft.AutoPeftClassifier({"name_or_path": str(model), "dtype": DTYPE}, **given)


@pytest.fixture(scope="module")
def headless(tiny_model, tmp_path_factory):
    """The tiny encoder without a classifier, which would fix how many classes there are."""
    folder = tmp_path_factory.mktemp("headless")
    tiny("bert").bert.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, folder)
    return folder


@pytest.fixture(scope="module")
def fitted(headless):
    rows = tiny_rows()
    settings = {"search": {"epochs": 4, "batch_size": 8, "learning_rate": 0.02}, "validation": {"packing": "off"}}
    return quick(headless, methods=["lora"], settings=settings).fit(rows["text"], rows["label"])


@pytest.mark.exhaustive  # some sixty studies of a few seconds each
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.func.__name__}{[*check.keywords.values()]}")
def test_it_is_a_classifier_to_scikit_learn(headless, check):
    check(quick(headless))


def test_texts_come_in_many_forms(fitted):
    texts = tiny_rows()["text"].tolist()[::7]
    expected = fitted.predict_proba(texts)
    assert expected.shape == (len(texts), 3)
    assert list(fitted.classes_) == ["maybe", "no", "yes"]
    assert (fitted.predict(texts) == fitted.classes_[expected.argmax(axis=1)]).all()
    forms = [np.array(texts), np.array(texts, dtype=object), pd.Series(texts), np.array(texts)[:, None], tuple(texts)]
    for form in (*forms, pd.DataFrame({"anything": texts})):
        np.testing.assert_array_equal(fitted.predict_proba(form), expected)
    assert fitted.n_features_in_ == 1
    assert fitted.score(texts, fitted.predict(texts)) == 1.0


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("one text", "several texts"),
        ([1.0, 2.0], "Reshape your data"),
        (["w1", None], "must hold texts, but has None"),
        ([["w1"], [None]], "NaN or None"),
        ([["w1", "w2"]], "2 features, but AutoPeftClassifier is expecting 1"),
        ([], "minimum of 1 is required"),
        ([["w1"], [{"a": 1}]], "a cell of row 2 is a mapping"),
        (["w1", "\ud800"], r"a cell of row 2 holds .ud800, which is half a character"),
        (pd.DataFrame({"anything": ["w1", b"\xff"]}), "a cell of row 2 holds bytes that are not UTF-8"),
    ],
)
def test_what_is_no_text_is_refused(fitted, rows, words):
    with pytest.raises(ValueError, match=words):
        fitted.predict(rows)


def test_columns_of_a_frame_are_taken_by_name(headless):
    rows = tiny_rows().assign(row=range(60), text_pair=lambda frame: frame["text"].str[::-1])
    pairs = quick(headless, task="text-pair-classification").fit(rows, rows["label"])
    assert pairs.winner_.inputs == ("text", "text_pair")
    assert list(pairs.feature_names_in_) == ["text", "text_pair"]
    proba = pairs.predict_proba(rows)
    shuffled = rows.assign(row=0, label="")
    np.testing.assert_array_equal(pairs.predict_proba(shuffled), proba)
    np.testing.assert_array_equal(pairs.predict_proba(rows[["text_pair", "text"]]), proba)
    with pytest.raises(ValueError, match="feature names"):
        pairs.predict(rows[["text"]])


@pytest.mark.exhaustive
@pytest.mark.parametrize("labels", [[10, 9, 2], [True, False, True]])
def test_labels_of_any_kind_come_back_as_they_were(headless, labels):
    texts = tiny_rows()["text"]
    y = np.repeat(labels, 20)
    found = quick(headless).fit(texts, y)
    assert found.classes_.tolist() == sorted(set(labels))
    assert found.predict(texts).dtype == y.dtype
    names = found.winner_.predict(texts)
    assert [str(label) for label in found.predict(texts).tolist()] == names


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a", None, "b"], r"y contains NaN or None \(in 1 rows, the first is row 2\)"),
        ([None, "a", "b"], "y contains NaN or None"),
        (pd.Series(["a", pd.NA, "b"], dtype="string"), "NaN|NA"),
        (pd.array([1, pd.NA, 2], dtype="Int64"), "NaN|NA"),
        ([1.0, np.nan, 2.0], "NaN"),
        (np.array([1, "a", 2], dtype=object), "Unknown label type|one kind"),
        (np.array(["a", 1, "b"], dtype=object), "Unknown label type|one kind"),
        (np.array([b"a", b"b", b"a"]), "bytes"),
        (["a", "", "b"], "row 2 is blank"),
        (["a", "\ud800", "b"], "row 2 holds .ud800"),
    ],
)
def test_labels_that_are_none_are_a_value_error(headless, labels, words):
    with pytest.raises(ValueError, match=words):
        quick(headless).fit(["w1", "w2", "w3"], labels)


def test_what_was_found_and_where_it_goes(fitted, tmp_path):
    assert fitted.leaderboard_["method"].tolist() == ["lora"]
    assert fitted.best_.score == fitted.leaderboard_["score"].iloc[0]
    assert fitted.test_scores_["baseline"] == pytest.approx(1 / 3)
    texts = tiny_rows()["text"]
    expected = fitted.predict_proba(texts)
    fitted.save(tmp_path / "kept")
    assert {path.suffix for path in (tmp_path / "kept").iterdir()} <= {".json", ".safetensors", ".md", ".txt"}
    loaded = autopeft.AutoPeftClassifier.load(tmp_path / "kept")
    for other in (loaded, pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(other.predict_proba(texts), expected)
        np.testing.assert_array_equal(other.classes_, fitted.classes_)
        assert other.best_ == fitted.best_
        assert other.get_params() == fitted.get_params()
        pd.testing.assert_frame_equal(other.leaderboard_, fitted.leaderboard_)
    assert autopeft.load(tmp_path / "kept").predict(texts) == fitted.predict(texts).tolist()
    with pytest.raises(UserInputError, match=r"holds no estimator\.json"):
        autopeft.AutoPeftClassifier.load(tmp_path)
    kept = tmp_path / "kept" / "estimator.json"
    content = json.loads(kept.read_text())
    classes = {**content["classes"], "values": content["classes"]["values"][:2]}
    for odd in ([], {**content, "classes": classes}, {**content, "best": 1}, {**content, "params": {"x": 1}}):
        kept.write_text(json.dumps(odd))
        with pytest.raises(UserInputError, match=r"estimator\.json cannot be read"):
            autopeft.AutoPeftClassifier.load(tmp_path / "kept")
    fitted.winner_.save(tmp_path / "kept")  # and no classifier any more
    assert not kept.exists()


@pytest.mark.exhaustive
def test_scikit_learns_tools_take_it(headless):
    rows = tiny_rows()
    classifier = quick(headless)
    assert cross_val_score(classifier, rows["text"], rows["label"], cv=2).shape == (2,)
    piped = make_pipeline(FunctionTransformer(lambda texts: texts.str.replace("w", "w")), classifier)
    grid = GridSearchCV(piped, {"autopeftclassifier__max_trainable_params": [200, None]}, cv=2, error_score=0.0)
    with pytest.warns(FitFailedWarning, match="2 fits failed"):  # biases are more than 200 parameters
        grid.fit(rows["text"], rows["label"])
    assert grid.best_params_ == {"autopeftclassifier__max_trainable_params": None}
    assert len(grid.predict(rows["text"])) == 60
    twin = clone(grid.best_estimator_[-1])
    assert twin.get_params() == classifier.get_params()
    assert not hasattr(twin, "classes_")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"trials": 0}, "`trials` must be at least 1, but got 0"),
        ({"methods": ["loar"]}, 'did you mean "lora"'),
        ({"settings": {"search": {"trails": 2}}}, '"trails" in .search. is not a setting'),
        ({"settings": {"serach": {}}}, '"serach" in `settings` is not a table.*"search"'),
        ({"max_gpu_memory": "10 KiB"}, "nothing in the search space fits"),
        ({"model": "/nowhere"}, "/nowhere"),
        ({"callbacks": print}, "`callbacks` must be a list of functions"),
    ],
)
def test_a_wrong_parameter_is_a_value_error_of_fit(headless, params, words):
    rows = tiny_rows()
    with pytest.raises(ValueError, match=words):
        quick(headless).set_params(**params).fit(rows["text"], rows["label"])


def test_the_defaults_are_those_of_study_files():
    from autopeft.study.file import StudySpec

    content = {"model": {"name_or_path": "m"}, "task": {"kind": "t"}, "data": {"train": "rows.csv"}, "name": "n"}
    spec = StudySpec.from_mapping(content)
    params = autopeft.AutoPeftClassifier().get_params()
    for section in ("search", "validation", "data", "budget"):
        own = getattr(spec, section)
        assert {name: params[name] for name in params if hasattr(own, name)} == {
            name: getattr(own, name) for name in params if hasattr(own, name)
        }
    assert params["seed"] == spec.seed


REGRESSOR_CHECKS = [check for _, check in estimator_checks_generator(autopeft.AutoPeftRegressor())]


def quick_regressor(model, **params) -> autopeft.AutoPeftRegressor:
    given = {"methods": ["bitfit"], "trials": 1, "folds": 2, "settings": QUICK, **params}
    return autopeft.AutoPeftRegressor({"name_or_path": str(model), "dtype": DTYPE}, **given)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "check", REGRESSOR_CHECKS, ids=lambda check: f"{check.func.__name__}{[*check.keywords.values()]}"
)
def test_it_is_a_regressor_to_scikit_learn(headless, check):
    check(quick_regressor(headless))


@pytest.mark.exhaustive
def test_a_regressor_learns_numbers_on_any_scale_and_comes_back_from_its_folder(headless, tmp_path):
    often = np.random.default_rng(0).integers(0, 6, 80)
    words = np.random.default_rng(1).choice(WORDS[10:], (80, 7))
    texts, numbers = (
        [" ".join(["w0"] * n + [*some[n:]]) for n, some in zip(often, words, strict=True)],
        1e4 + 500.0 * often,
    )
    settings = {"search": {"epochs": 12, "batch_size": 8, "learning_rate": 0.02}}
    found = quick_regressor(headless, methods=["lora"], settings=settings).fit(texts, numbers)
    answers = found.predict(texts)
    assert answers.dtype == np.float64
    assert found.score(texts, numbers) > 0.5  # R squared
    assert found.test_scores_["baseline_name"] == "mean of the training rows"
    found.save(tmp_path / "kept")
    again = autopeft.AutoPeftRegressor.load(tmp_path / "kept")
    np.testing.assert_allclose(again.predict(texts), answers, rtol=1e-6)
    assert again.get_params() == found.get_params()
    with pytest.raises(UserInputError, match="cannot be read"):
        autopeft.AutoPeftClassifier.load(tmp_path / "kept")
    clone(found)


def test_a_regressor_needs_finite_numbers(headless):
    for odd in ([1.0, np.nan, 2.0], ["one", "two", "three"]):
        with pytest.raises(ValueError, match="one finite number for each row"):
            quick_regressor(headless).fit(["w1", "w2", "w3"], odd)


SEVERAL = [["a"], ["a", "b"], []]


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.array([[0, 1], [1, 1], [0, 0]]), "it has 2 columns"),
        (pd.DataFrame({"a": [0, 1, 1], "b": [1, 1, 0]}), "it has 2 columns"),
        (csr_array(np.array([[0, 1], [1, 1], [0, 0]])), "it has 2 columns"),
        (SEVERAL, "row 2 has 2"),
        (pd.Series(SEVERAL), "row 2 has 2"),
        ([{"a"}, {"b"}, {"a", "b"}], "row 3 has 2"),
    ],
)
@pytest.mark.parametrize("kind", [quick, quick_regressor])
def test_several_labels_of_a_row_are_for_tune(headless, kind, y, words):
    with pytest.raises(ValueError, match=f"^y must hold one value for each row, but {words}; .*`autopeft.tune`.*study"):
        kind(headless).fit(["w1", "w2", "w3"], y)


def test_a_classifiers_folder_is_no_regressors(fitted, tmp_path):
    fitted.save(tmp_path / "kept")
    with pytest.raises(UserInputError, match="it is a classifier's"):
        autopeft.AutoPeftRegressor.load(tmp_path / "kept")

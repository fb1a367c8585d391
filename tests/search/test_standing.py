"""What is believed of a study's candidates, who runs next, who wins, and the sentence that says how sure that is."""

import json
from dataclasses import replace

import pytest

from autopeft.search.standing import Beforehand, Pair, Standing, usual
from autopeft.study.raced import RACE, FreshRun, Raced, may_win, numbers
from autopeft.study.record import TrialRecord, ranked


def record(number, method, *scores, cost=100, **more):
    mean = sum(scores) / len(scores)
    return TrialRecord(
        number, f"{method} {number}", method, "COMPLETE", "", mean, scores, (mean,), 4, cost, cost, 1, 1, 1.0, **more
    )


LORA = record(0, "lora", 0.70, 0.74, 0.69)
ADAPTER = record(1, "adapter", 0.75, 0.78, 0.75, cost=300)
TUNED = record(2, "lora", 0.76, 0.77, 0.74, cost=200)
EVERY = [LORA, ADAPTER, TUNED]
KNOWN = Beforehand(usual(200))


def standing(found=EVERY, raced=None, defaults=(0,), metric="accuracy", known=KNOWN):
    return Standing.of(found, raced, defaults, metric, known)


def after(*runs, finalists=(0, 1, 2), **more):
    return Raced((0, 1, 2), finalists, tuple(FreshRun(*run) for run in runs), **more)


def fresh(count):
    return list(range(count))


def test_leaders_and_the_best_default_run_and_a_pair_shares_a_fold():
    raced = after(finalists=standing().finalists())
    assert {*raced.finalists} == {0, 1, 2}
    pair = standing(raced=raced).turn(fresh)
    assert pair.fold == 0
    assert {*pair.numbers} == {1, 2}, "the leader, and whoever is most likely to be better"
    assert standing(raced=raced).turn(lambda count: []) is None, "no fold is fresh"
    worse = [*EVERY, record(3, "bitfit", 0.5, 0.5, 0.4), record(4, "vera", 0.4, 0.4, 0.4)]
    assert {*standing(worse, defaults=(0, 3, 4)).finalists()} == {0, 1, 2}
    assert {*standing(worse, defaults=(0, 3, 4)).finalists([3])} == {0, 1, 2, 3}


@pytest.mark.parametrize("first", [1, 2])
def test_half_a_pair_changes_nothing_and_the_other_half_comes_next(first):
    before, other = after((1, 0, 0.76), (2, 0, 0.77)), 3 - first
    half = replace(before, runs=(*before.runs, FreshRun(first, 1, 0.9)))
    assert standing(raced=before).turn(fresh) in (Pair(1, (1, 2)), Pair(1, (2, 1)))
    assert standing(raced=half).turn(fresh) == Pair(1, (other,))
    one, two = standing(raced=before).ruling(), standing(raced=half).ruling()
    assert (one.winner, one.rival) == (two.winner, two.rival)
    assert one.chance == pytest.approx(two.chance)
    assert one.expected == pytest.approx(two.expected)


def test_fresh_folds_overturn_a_lucky_score_and_the_level_stays_that_of_the_search():
    lucky = [LORA, record(1, "adapter", 0.80, 0.84, 0.79), TUNED]
    assert standing(lucky).ruling().winner == 1
    raced = after(*((number, fold, score) for fold in range(6) for number, score in ((1, 0.72), (2, 0.77), (0, 0.72))))
    found = standing(lucky, raced).ruling()
    assert found.winner == 2
    assert all(0.70 < score < 0.80 for score in found.expected.values())


def test_the_sentence_says_how_sure_the_lead_over_the_best_default_is():
    raced = after(
        *(
            (number, fold, score)
            for fold, d in enumerate((0.0, 0.04, -0.01, 0.02))
            for number, score in ((0, 0.74), (2, 0.74 + d))
        )
    )
    found = standing([LORA, record(1, "adapter", 0.72, 0.76, 0.70), TUNED], raced).ruling()
    assert (found.winner, found.rival) == (2, 0)
    assert 0.5 < found.chance < 1
    assert found.sentence.startswith(
        f"It is better than lora's default with a probability of {found.chance:.2f} (3 + 4"
    )
    assert f"3 + 4 folds; probability of a tie within 0.5 points: {found.alike:.2f})" in found.sentence


def test_a_default_that_wins_is_said_to_and_a_tie_is_its():
    close = [record(0, "lora", 0.761, 0.772, 0.741), ADAPTER, record(2, "lora", 0.761, 0.772, 0.742)]
    found = standing(close).ruling()
    assert found.winner == 0
    assert found.rival is None
    assert found.chance is None
    assert found.sentence.startswith("lora's untuned default won: no candidate was better with a probability above 0.")
    assert (
        "is ahead by at most 0.25 points, and in such a tie a default or the cheaper candidate wins." in found.sentence
    )
    clear = [record(0, "lora", 0.86, 0.87, 0.84), ADAPTER, TUNED]
    assert standing(clear).ruling().sentence == (
        "lora's untuned default won: no candidate was better with a probability above 0.01 (3 + 0 folds)."
    )


def test_without_a_default_there_is_none_to_compare_with():
    found = standing(defaults=()).ruling()
    assert found.chance is None
    assert found.sentence.startswith(
        "No untuned default completed, so there is nothing to compare it with (3 + 0 folds)"
    )


@pytest.mark.parametrize("times", [1e-6, 1.0, 1e6])
def test_scores_in_another_unit_are_judged_by_how_folds_deviate(times):
    def errors(record):
        scores = tuple(-times * (1 - score) for score in record.fold_scores)
        return replace(record, fold_scores=scores, score=sum(scores) / len(scores))

    found = standing([*map(errors, EVERY)], metric="neg_mean_absolute_error").ruling()
    usual = standing([*map(errors, EVERY)], metric="own:error").ruling()
    assert found == usual
    once = Standing.of([replace(one, fold_scores=tuple(s - 1 for s in one.fold_scores)) for one in EVERY], None, (0,),
                       "neg_mean_absolute_error", KNOWN).ruling()  # fmt: skip
    assert found.winner == once.winner
    assert found.chance == pytest.approx(once.chance)
    assert "of a fold's deviation" in found.sentence
    assert "points" not in found.sentence


def test_folds_that_do_not_deviate_have_no_unit_of_their_own():
    even = [record(0, "lora", -2.0, -2.0), record(1, "adapter", -1.0, -1.0)]
    assert standing(even, metric="neg_root_mean_squared_error").unit == 1.0


def test_who_left_is_out_and_what_is_kept_is_read_back():
    raced = after((1, 0, 0.76), (2, 0, 0.70), left={1: "why"})
    found = standing(raced=raced)
    assert [one.number for one in found.records] == [0, 2]
    assert 1 not in found.finalists()
    ruled = replace(raced, ruling=found.ruling())
    assert 1 not in ruled.ruling.expected
    assert Raced.read({RACE: json.loads(json.dumps(ruled.kept()))}) == ruled
    alone = standing(raced=replace(raced, left={1: "why", 0: "why"}))
    assert alone.turn(fresh) is None
    assert alone.ruling().winner == 2


def test_a_race_holds_for_the_trials_it_was_among_and_ranks_them():
    ruled = replace(after(), ruling=standing(raced=after(finalists=(1, 2))).ruling())
    assert ruled.ruling.winner in (1, 2)
    chosen = ruled.put_in(EVERY)
    assert ranked(chosen)[0].number == ruled.ruling.winner
    assert ranked(chosen)[-1].place is None, "who did not run comes last"
    more = [*EVERY, record(3, "adapter", 0.9, 0.9, 0.9)]
    assert ruled.put_in(more) == more
    assert replace(ruled, ruling=None).put_in(EVERY) == EVERY
    collapsed = [*EVERY, record(3, "adapter", 0.9, 0.9, 0.3, collapsed=1)]
    assert numbers(collapsed) == (0, 1, 2)
    assert not may_win(collapsed[-1])
    assert ranked(ruled.put_in(collapsed))[0].number == ruled.ruling.winner


def test_what_is_expected_of_a_method_decides_where_folds_say_little_and_yields_where_they_say_much():
    close = [record(0, "lora", 0.70, 0.74, 0.66), record(1, "prefix_tuning", 0.72, 0.73, 0.68, cost=50)]
    wary = Beforehand(usual(50), {"prefix_tuning": -0.06})
    assert standing(close, known=Beforehand(usual(50))).ruling().winner == 1
    assert standing(close, known=wary).ruling().winner == 0
    clear = [close[0], record(1, "prefix_tuning", 0.86, 0.90, 0.82, cost=50)]
    assert standing(clear, known=wary).ruling().winner == 1


def test_a_method_on_several_base_models_is_one_method():
    each = [
        record(0, "lora on large", 0.90, 0.90, 0.90, params={"method": "lora"}),
        record(1, "lora on large", 0.89, 0.89, 0.89, params={"method": "lora"}),
        record(2, "lora on small", 0.88, 0.88, 0.88, params={"method": "lora"}),
        record(3, "adapter on small", 0.87, 0.87, 0.87, params={"method": "adapter"}),
    ]
    assert standing(each, defaults=()).finalists() == (0, 1, 3)  # three leaders, of two methods
    entrants = standing(each, known=Beforehand(usual(50), {"adapter": -0.02})).race.entrants
    assert [one.prior for one in entrants] == [0, 0, 0, -0.02]


def test_a_fold_with_more_rows_is_taken_to_deviate_less():
    one, four = usual(50), usual(200)
    assert one.folds == pytest.approx(4 * four.folds) == pytest.approx(0.05**2)
    few, many = (standing(known=Beforehand(variances)).ruling().chance for variances in (one, four))
    assert 0.5 < few < many < 1

"""A plan, and what a kind of task keeps to, in a terminal of 80 columns: no word is broken and none is missing."""

import pytest

from autopeft.budget.limits import Budget
from autopeft.budget.plan import MethodPlan, Planned
from autopeft.reporting.plan_view import PARTS, show
from autopeft.testing.task_rules import TaskFinding
from autopeft.testing.view import show_task
from tests.reporting.test_leaderboard import text

SETTINGS = "num_virtual_tokens=64 prefix_projection=True encoder_hidden_size=397 layers=every_second lr=0.0026 epochs=6"
LIMITS = ("max_trainable_params", "max_gpu_memory", "max_saved_size")


def plan_of(name, parts, broken=()):
    memory = {part: 2**20 * 123 * (part in parts) for part in PARTS} | {"peak": 2**20 * 987}
    one = Planned(f"{name} {SETTINGS}", 16, 1_225_066, 1_225_066, 2**20 * 5, memory, broken)
    return MethodPlan(name, {"layers": "all | top_half"}, one, [one], dict.fromkeys(LIMITS, 0.25), 0.25, one, None)


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("parts", [("weights", "optimizer", "activations"), tuple(PARTS)])
def test_a_plan_breaks_no_word(width, parts):
    plans = [plan_of("prefix_tuning", parts, LIMITS[:2]), plan_of("adapter", parts)]
    shown = text(show(plans, Budget(max_gpu_memory=2**30)), width)
    assert max(map(len, shown.splitlines())) <= width
    assert {*SETTINGS.split(), *LIMITS, "prefix_tuning", "1,225,066", "987.0", "96%"} <= set(shown.split())
    assert {"no:", f"{LIMITS[0]},"} <= set(shown.split())
    heads = next(line for line in shown.splitlines() if "weights" in line).split()
    assert heads[:2] == ["method", "weights"]
    assert heads[-4:] == ["peak", "of", "the", "limit"]
    kept = [head for head in heads if head in parts]
    assert kept == [*parts] if width == 160 or len(parts) == 3 else {"weights", "optimizer", "activations"} <= {*kept}


def test_a_kind_of_task_on_many_models_has_a_line_for_each_rule():
    rule = "padding_and_other_rows_do_not_bear_on_a_loss"
    families = ["bert", "deberta-v2", "distilbert", "mobilebert", "roberta", "xlm-roberta"]
    found = {
        family: [
            TaskFinding(rule, "", "", seen="it bears" * (family == "mobilebert")),
            TaskFinding("folds_pack", "", "", skipped="no folds are packed"),
        ]
        for family in families
    }
    shown = text(show_task("text-classification", found), 80)
    assert max(map(len, shown.splitlines())) <= 80
    assert f"{rule} failed on mobilebert; ok on 5" in " ".join(shown.split())
    assert "folds_pack: not tested, no folds are packed" in shown

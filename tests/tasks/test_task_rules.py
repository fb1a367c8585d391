"""Every kind of task keeps the rules, and what breaks one is told."""

import pytest
import torch

from autopeft.tasks.registry import find_task, task_kinds
from autopeft.testing.task_case import families_of
from autopeft.testing.task_rules import TASK_RULES, check_task
from autopeft.testing.tiny import IMAGE_FAMILIES, PAIR_FAMILIES, WRITING_FAMILIES
from tests.conftest import autopeft_here, few

FAMILIES = ("bert", "roberta", "gpt2", "llama", "modernbert", "distilbert", "deberta-v2", "t5")


@pytest.mark.parametrize("kind", sorted(kind for kind in task_kinds() if not kind.startswith("image-")))
@pytest.mark.parametrize("family", few(FAMILIES, "bert"))
def test_every_kind_of_texts_keeps_every_rule(kind, family):
    if family not in families_of(find_task(kind)):
        pytest.skip(f"transformers has no {family} for it")
    assert [f"{found.rule}: {found.seen}" for found in check_task(find_task(kind), family) if found.seen] == []


@pytest.mark.parametrize("family", few(("gpt2", "opt", "llama"), "gpt2"))
def test_the_kind_that_writes_keeps_every_rule(family):
    found = check_task(find_task("causal-lm"), family)
    assert [f"{one.rule}: {one.seen}" for one in found if one.seen] == []


@pytest.mark.parametrize("family", few(WRITING_FAMILIES, "t5", "bart"))
def test_the_kind_of_a_text_for_a_text_keeps_every_rule(family):
    found = check_task(find_task("seq2seq"), family)
    assert [f"{one.rule}: {one.seen}" for one in found if one.seen] == []


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_every_kind_of_images_keeps_every_rule(family):
    kind = "image-classification"
    assert [f"{found.rule}: {found.seen}" for found in check_task(find_task(kind), family) if found.seen] == []


@pytest.mark.parametrize("family", few(PAIR_FAMILIES, "vision-text-dual-encoder"))
def test_the_kind_of_pairs_keeps_every_rule_but_that_of_parts(family):
    found = check_task(find_task("image-text-matching"), family)
    assert [f"{one.rule}: {one.seen}" for one in found if one.seen] == []
    assert [one.rule for one in found if one.skipped] == ["a_whole_is_the_weighted_mean_of_its_parts"]


def broken(**changes):
    """A classification of texts with something of it changed."""
    kind = type(find_task("text-classification"))
    return type("Broken", (kind,), changes)().configured({})


def summed(self, outputs, batch):
    return torch.nn.functional.cross_entropy(outputs.logits.float(), batch["labels"], reduction="sum")


def shifted(self, outputs, batch):
    """Depends on how far the batch is padded."""
    return kind_loss(self, outputs, batch) + 0.1 * (batch["attention_mask"] == 0).float().mean()


def kind_loss(self, outputs, batch):
    return type(find_task("text-classification")).loss(self, outputs, batch)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"loss": shifted}, "padding_and_other_rows_do_not_bear_on_a_loss"),
        ({"loss": summed}, "a_whole_is_the_weighted_mean_of_its_parts"),
        pytest.param(
            {"answer": lambda self, o, b: o.logits.float().softmax(-1).flip(0)},
            "answers_come_back_in_order",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            {"written": lambda self, answers, labels: [labels[1 - i] for i in answers.argmax(-1)]},
            "written_answers_score_the_same",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param({"table": lambda self, answers, labels: []}, "answers_are_shown", marks=pytest.mark.exhaustive),
        ({"taught": ("labels", "input_ids")}, "padding_and_other_rows_do_not_bear_on_a_loss"),
    ],
)
def test_what_breaks_a_rule_is_told(changes, rule):
    seen = {found.rule: found.seen for found in check_task(broken(**changes))}
    assert seen[rule]
    assert len(seen) == len(TASK_RULES)


def test_the_command_checks_a_kind_of_task(tmp_path):
    done = autopeft_here("check", "regression", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "memory_is_predicted" in done.stdout
    assert "failed" not in done.stdout
    done = autopeft_here("check", "regression", "--family", "bart", cwd=tmp_path)
    assert done.returncode == 2
    assert 'no tiny model of the family "bart"' in done.stderr

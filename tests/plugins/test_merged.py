"""Merged LoRAs: each combination's formula, what is trained, which sources are refused, and a whole study."""

import shutil
from dataclasses import replace

import pytest
import torch
from autopeft_lora import Merged
from autopeft_lora.merged import MergedOptions
from autopeft_lora.merging import merged
from peft import LoraConfig, get_peft_model

from autopeft import load
from autopeft.common.exceptions import SpecError
from autopeft.models.attach import attach, trainable
from autopeft.winner.export import export
from tests.conftest import THREE, TINY_STUDY, autopeft_here, write_tiny_study
from tests.plugins.fusion_sources import problem_of, saved_winner
from tests.tiny_models import batch

PARAMS = {"sources": "all", "combination": "cat", "weight_1": 1.0, "weight_2": 1.0, "trained": "head"}


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_model):
    """A study, and three winners that it can merge: `a` and `c` alike, and `b` with another rank, scale and targets."""
    folder = tmp_path_factory.mktemp("merged")
    study = write_tiny_study(folder, tiny_model)
    saved_winner(study, folder / "a" / "winner", "lora", seed=1, r=4, lora_alpha=4)
    saved_winner(study, folder / "b" / "winner", "lora", seed=2, r=2, lora_alpha=6, target_modules="attention")
    saved_winner(study, folder / "c" / "winner", "lora", seed=3, r=4, lora_alpha=8)
    return folder


@pytest.fixture(scope="module")
def base(home):
    return problem_of(home / "study.toml").base


def configured(folder, *sources):
    return Merged().configured(MergedOptions(sources=list(sources)), folder)


def logits(model):
    with torch.no_grad():
        return model.eval()(**batch()).logits


def product(folder, name, linear):
    """scale · B A of a winner, from its files."""
    winner = load(folder / name / "winner")
    layer = winner.module.get_submodule(f"base_model.model.{linear.name}")
    return layer.get_delta_weight("default").detach() if hasattr(layer, "lora_A") else torch.zeros(())


@pytest.mark.parametrize("first", [{}, {"init_lora_weights": "pissa"}, {"use_rslora": True, "r": 16}])
def test_one_source_alone_is_that_lora(home, base, first, tmp_path):
    shutil.copytree(home / "b", tmp_path / "b")
    saved_winner(home / "study.toml", tmp_path / "one" / "winner", "lora", seed=4, **first)
    lora = load(tmp_path / "one" / "winner").module
    model = attach(base, configured(tmp_path, "b", "one"), {"sources": "only_one", "trained": "head"})
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(lora.get_parameter(name))
    torch.testing.assert_close(logits(model), logits(lora), atol=2e-6, rtol=1e-5)
    assert float((logits(lora) - logits(load(home / "a" / "winner").module)).abs().max()) > 0.01


def test_cat_is_the_weighted_mean_of_the_products_also_of_other_ranks_and_targets(home, base):
    method = configured(home, "a", "b")
    pairs = merged(
        method.sources, base.spec, method._weights({**PARAMS, "weight_1": 3.0, "weight_2": -0.5}), "cat", None
    )
    roles = {linear.role for linear in base.spec.linears if linear.name in pairs}
    assert roles == {"query", "key", "value", "attention_output"}
    for linear in base.spec.linears:
        if linear.name in pairs:
            down, up = pairs[linear.name]
            expected = 1.5 * product(home, "a", linear) - 0.25 * product(home, "b", linear)
            torch.testing.assert_close(up @ down, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("combination", ["linear", "ties"])
def test_other_combinations_are_what_peft_makes_of_the_sources_on_the_model(home, base, combination):
    method, weights, density = configured(home, "a", "c"), [0.7, 1.6], None if combination == "linear" else 0.4
    found = merged(method.sources, base.spec, weights, combination, density)
    model = None
    for source in method.sources:
        names = [linear.name for linear in source.linears(base.spec)]
        config = LoraConfig(r=4, lora_alpha=int(source.scale * 4), target_modules=names)
        if model is None:
            model = get_peft_model(base.copy(), config, adapter_name=source.name)
        else:
            model.add_adapter(source.name, config)
        for name, tensor in source.saved.tensors.items():
            if ".lora_" in name:
                model.get_parameter(name.replace(".weight", f".{source.name}.weight")).data = torch.from_numpy(tensor)
    more = {} if density is None else {"density": density}
    model.add_weighted_adapter(["a", "c"], weights, "both", combination_type=combination, **more)
    for name, (down, up) in found.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        torch.testing.assert_close(up @ down, layer.get_delta_weight("both"), atol=1e-6, rtol=1e-5)


def test_dare_keeps_a_share_of_the_values_and_scales_them_up(home, base):
    (source,) = configured(home, "c").sources
    none = replace(source, name="none", scale=0.0)
    torch.manual_seed(0)
    found = merged([source, none], base.spec, [1.0, 1.0], "dare_linear", 0.3)
    kept = []
    for linear in source.linears(base.spec):
        own = torch.from_numpy(source.saved.tensors[f"base_model.model.{linear.name}.lora_A.weight"])
        values = found[linear.name][0]
        kept.append(values != 0)
        torch.testing.assert_close(values[kept[-1]], (own * source.scale**0.5 / 0.3)[kept[-1]])
    assert 0.25 < float(torch.cat(kept).float().mean()) < 0.35


@pytest.mark.parametrize(
    ("trained", "parts"), [("head", {"classifier"}), ("add_on", {"classifier", "lora_A", "lora_B"})]
)
def test_the_head_is_trained_or_all_of_it(home, base, trained, parts):
    method, params = configured(home, "a", "b"), {**PARAMS, "trained": trained}
    found = trainable(attach(base, method, params))
    assert {part for name in found for part in name.split(".") if part in ("classifier", "lora_A", "lora_B")} == parts
    count = sum(one.numel() for name, one in found.items() if ".lora_" in name)
    assert method.trained_params(params, base.spec) == count


def test_weights_mean_the_same_for_sums_and_for_means():
    method = Merged().example()
    assert method._weights(PARAMS) == [0.5, 0.5]
    assert method._weights({**PARAMS, "combination": "ties"}) == [1.0, 1.0]
    assert method._weights({"sources": "only_first"}) == [1.0]


def test_without_a_head_only_the_whole_is_trained(base):
    spec = replace(base.spec, head=())
    assert Merged().example().search_space(spec)["trained"].choices == ("add_on",)


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [("dora", {}, "only LoRAs can be merged"), ("bitfit", {}, "only LoRAs can be merged")],
)
def test_a_winner_of_another_method_is_refused(home, name, params, words):
    saved_winner(home / "study.toml", home / name, name, **params)
    with pytest.raises(SpecError, match=words):
        configured(home, name)


def test_a_winner_on_another_base_model_or_of_another_shape_is_refused(home, base):
    method = configured(home, "a", "b")
    assert method.supports(base.spec)
    assert "another base model" in method.supports(replace(base.spec, digest="sha256:other")).reason
    narrow = tuple(replace(linear, in_features=7) for linear in base.spec.linears)
    assert "must be [4, 7]" in method.supports(replace(base.spec, linears=narrow)).reason
    assert "[methods.merged]" in Merged().supports(base.spec).reason


@pytest.mark.parametrize("facts", [{"names": []}, {"ranks": [0, 2]}, {"scales": ["x", 1.0]}, {"digests": []}])
def test_damaged_facts_are_refused(home, facts):
    with pytest.raises(SpecError, match="damaged"):
        Merged().knowing({**configured(home, "a", "b").facts(), **facts})


@pytest.mark.exhaustive
def test_a_study_finds_weights_and_its_winner_is_an_ordinary_lora(home, tmp_path):
    text = TINY_STUDY.replace(THREE, 'methods = ["merged"]').replace("trials = 4", "trials = 3")
    study = home / "both.toml"
    study.write_text(text.replace('"tiny"', '"both"') + '[methods.merged]\nsources = ["a", "b"]\n')
    said = autopeft_here("run", "both.toml", cwd=home)
    assert said.returncode == 0, said.stderr
    winner = load(home / "outputs" / "both" / "winner")
    assert winner.card.method_facts["names"] == ["a", "b"]
    rows = ["w0 w12", "w1 w30 w31"]
    export(winner, tmp_path / "peft", "peft")
    assert (tmp_path / "peft" / "adapter_model.safetensors").is_file()
    assert winner.merge() is not None
    for name in ("a", "b"):
        shutil.move(home / name, tmp_path / name)
    again = load(home / "outputs" / "both" / "winner")
    assert (again.predict_proba(rows) == winner.predict_proba(rows)).all()
    for name in ("a", "b"):
        shutil.move(tmp_path / name, home / name)


def test_a_lora_is_not_merged_with_itself_by_two_paths(home):
    with pytest.raises(SpecError, match="once"):
        configured(home, "a", "./a")

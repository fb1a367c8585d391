"""AdapterFusion: its formula, its sources, what it trains, and a study from its settings to its report."""

import json
import shutil
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
from autopeft_adapter import Adapter
from autopeft_fusion import Fusion
from autopeft_fusion.fused import Fused, SourceAdapter, fusions, without
from autopeft_fusion.report import attention
from autopeft_fusion.sources import AdapterSources

from autopeft import load, testing
from autopeft.cli import without_file
from autopeft.common.exceptions import MethodError, SpecError, UserInputError
from autopeft.methods.registry import discover
from autopeft.methods.training_rows import TrainingRows
from autopeft.models.attach import attach, trainable
from autopeft.study import finished
from autopeft.study.file import StudySpec
from autopeft.tasks.study_methods import with_settings
from autopeft.winner.export import export
from autopeft.winner.winner import save
from tests.conftest import THREE, TINY_STUDY, autopeft_here, write_tiny_study
from tests.plugins.fusion_sources import ADAPTER, problem_of, saved_winner
from tests.tiny_models import batch

PARAMS = {"sources": "all", "values": "dynamic", "dropout": 0.0, "layers": "all"}


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_model):
    """A study, and two winners that it can fuse: `a`, and `b` with smaller adapters in the upper half."""
    folder = tmp_path_factory.mktemp("fusion")
    study = write_tiny_study(folder, tiny_model)
    saved_winner(study, folder / "a" / "winner", seed=1)
    saved_winner(study, folder / "b" / "winner", seed=2, reduction_factor=8, non_linearity="gelu", layers="top_half")
    return folder


def configured(folder, *sources):
    return Fusion().configured(AdapterSources(sources=list(sources)), folder)


@pytest.fixture(scope="module")
def base(home):
    return problem_of(home / "study.toml").base


def logits(model, rows=None):
    with torch.no_grad():
        return model.eval()(**(rows or batch())).logits


def with_head_of(model, other):
    """The model with the other's head: a fusion has a new one."""
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name.startswith("classifier."):
                model.get_parameter(name).copy_(parameter)
    return model


@pytest.mark.parametrize(("values", "close"), [("static", 0.0), ("dynamic", 1e-4)])
@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby"])
def test_with_one_source_it_is_that_adapter(home, base, values, close, placement, tmp_path):
    saved_winner(home / "study.toml", tmp_path / "one", placement=placement)
    adapter = load(tmp_path / "one").module
    fused = attach(base, configured(tmp_path, "one"), {**PARAMS, "values": values})
    expected = logits(adapter)
    assert float((logits(with_head_of(fused, adapter)) - expected).abs().max()) <= close
    assert float((logits(with_head_of(attach(base, Adapter(), ADAPTER), adapter)) - expected).abs().max()) > 0.01


@pytest.mark.parametrize("values", [True, False])
def test_it_adds_what_the_formula_says(values):
    torch.manual_seed(0)
    width, base = 6, torch.nn.Linear(4, 6)
    adapters = [SourceAdapter(width, size, "relu", torch.empty(0)) for size in (2, 3)]
    module = Fused(base, adapters, (0, 1), width, values=values, dropout=0.0)
    with torch.no_grad():
        for parameter in (*module.query.parameters(), *module.key.parameters()):
            parameter.normal_()
        if values:
            module.value.weight.normal_()
    x = torch.randn(2, 3, 4)
    found, h = module(x), base(x)
    for row in range(2):
        for token in range(3):
            q = module.query(h[row, token])
            z = [adapter(h[row, token]) for adapter in adapters]
            scores = torch.stack([q @ module.key(one) for one in z])
            shares = scores.exp() / scores.exp().sum()
            v = [module.value(one) if values else one for one in z]
            expected = h[row, token] + sum(share * one for share, one in zip(shares, v, strict=True))
            torch.testing.assert_close(found[row, token], expected)


def test_it_starts_and_is_held_as_in_the_paper(home, base):
    method = configured(home, "a", "b")
    model = attach(base, method, PARAMS)
    found = list(fusions(model).values())
    assert [module.places for module in found] == [(0,), (0,), (0, 1), (0, 1)]
    for module in found:
        off = module.value.weight - torch.eye(32)
        assert off.diagonal().abs().max() == 0
        torch.testing.assert_close(off + torch.diag(torch.full((32,), 1e-6)), torch.full((32, 32), 1e-6))
        for linear in (module.query, module.key):
            assert 0.017 < float(linear.weight.detach().std()) < 0.023
            assert not linear.bias.any()
    penalty = method.callback(model, PARAMS, base.spec)
    with torch.no_grad():
        found[0].value.weight[0, 1] += 2.0
        found[1].value.weight[3, 3] -= 1.0
    torch.testing.assert_close(penalty.loss(), torch.tensor(0.01 * (4.0 + 1.0)), atol=1e-6, rtol=1e-4)
    static = {**PARAMS, "values": "static"}
    assert method.callback(attach(base, method, static), static, base.spec).loss() is None


def test_sources_are_copied_and_frozen_and_the_rest_is_trained(home, base):
    model = attach(base, configured(home, "a", "b"), PARAMS)
    tensors = configured(home, "b").sources[0].tensors()
    (name, module) = list(fusions(model).items())[-1]
    for part, parameter in module.sources[1].named_parameters():
        assert not parameter.requires_grad
        np.testing.assert_array_equal(parameter.numpy(), tensors[f"{name}.adapter.{part}"])
    kinds = {key.rpartition(".")[0].rpartition(".")[2] for key in trainable(model) if ".dense." in key}
    assert kinds == {"query", "key", "value"}
    assert any(key.startswith("classifier.") for key in trainable(model))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, ("all",)),
        (2, ("all", "without_first", "without_second")),
        (3, ("all", *(f"{how}_{name}" for how in ("without", "only") for name in ("first", "second", "third")))),
    ],
)
def test_the_choices_of_sources_are_all_and_each_left_out_and_every_subset_of_three(count, expected):
    method = Fusion().example()
    method.sources = method.sources[:count]
    assert method.search_space()["sources"].choices == expected
    chosen = [method._chosen(choice) for choice in expected]
    assert len(set(chosen)) == len(chosen)
    assert all(chosen)


def test_layers_without_a_source_are_not_offered(home, base):
    assert "every_second" in configured(home, "a").search_space(base.spec)["layers"].choices
    saved_winner(home / "study.toml", home / "odd", layers="top_quarter")
    offered = configured(home, "odd").search_space(base.spec)["layers"].choices
    assert all(configured(home, "odd")._sites(base.spec, "all", range(4)) for _ in offered)
    assert configured(home, "odd").trained_params(PARAMS, base.spec) == 3 * 32 * 32 + 2 * 32


@pytest.mark.parametrize("family", ["bert"])
def test_it_keeps_the_contract_with_real_sources(home, family):
    findings = testing.check(configured(home, "a", "b"), [family])
    assert [str(one) for one in findings if one.state in (testing.FAILED, testing.UNSUPPORTED)] == []


# Sources that cannot be used.


def test_what_is_no_winner_of_adapters_is_refused_with_the_reason(home, base):
    study = home / "study.toml"
    saved_winner(study, home / "biases", "bitfit")
    saved_winner(study, home / "beside", placement="parallel")
    saved_winner(study, home / "both", placement="houlsby")
    for sources, words in (
        (["nowhere"], "holds no autopeft.json"),
        (["biases"], "only adapters can be used"),
        (["beside"], "placement `parallel`"),
        (["a", "both"], "must have one placement"),
        (["a", "./a"], "once"),
    ):
        with pytest.raises(SpecError, match=words):
            configured(home, *sources)


def test_a_winner_on_another_base_model_is_refused(home, base):
    method = configured(home, "a", "b")
    assert method.supports(base.spec)
    assert "another base model" in method.supports(replace(base.spec, digest="sha256:other")).reason
    assert "cannot be compared" in method.supports(replace(base.spec, digest="commit:other")).reason
    assert '`quantization = "none"` in [model]' in method.supports(replace(base.spec, quantization="4bit")).reason
    assert "must be" in method.supports(replace(base.spec, hidden_size=64)).reason


def test_a_source_for_each_of_several_tasks_must_be_named(home, tmp_path):
    shutil.copytree(home / "a" / "winner", tmp_path / "several" / "winner" / "tone")
    (tmp_path / "several" / "winner" / "tasks.json").write_text('{"tasks": ["tone"]}')
    for given in ("several", "several/winner"):
        with pytest.raises(SpecError, match=r"winner holds a winner for each of several tasks; give .* in it: tone"):
            configured(tmp_path, given)
    (source,) = configured(tmp_path, "several/winner/tone").sources
    assert source.name == "tone"


def test_a_winner_whose_weights_were_changed_is_refused(home, base, tmp_path):
    folder = shutil.copytree(home / "a", tmp_path / "a")
    path = folder / "winner" / "addon.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserInputError, match="SHA-256"):
        configured(tmp_path, "a").supports(base.spec)


def test_a_winner_of_several_models_is_refused(home, base, tmp_path):
    found = load(home / "a" / "winner")
    models = [found.module, found.module]
    save(models, Adapter(), found.reader, found.card, tmp_path / "several")
    with pytest.raises(SpecError, match="the models of 2 folds"):
        configured(tmp_path, "several")


def test_winners_of_one_name_get_names_of_their_own(home, tmp_path):
    shutil.copytree(home / "a", tmp_path / "x" / "a")
    method = Fusion().configured(AdapterSources(sources=[str(home / "a"), "x/a/winner"]), tmp_path)
    assert [source.name for source in method.sources] == ["a", "a_2"]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"names": ["a"]},
        {"names": ["a"], "placement": "nowhere"},
        {"reduction_factors": [0, 4]},
        {"layers": ["all"]},
    ],
)
def test_damaged_facts_are_refused(home, facts):
    whole = configured(home, "a", "b").facts()
    with pytest.raises(SpecError, match="damaged"):
        Fusion().knowing({**whole, **facts} if facts else {})


# Settings in a study file.


def study_of(home, **methods):
    return StudySpec.from_mapping(
        {
            "name": "new",
            "model": {"name_or_path": "model"},
            "task": {"kind": "text-classification"},
            "data": {"train": "rows.csv"},
            "methods": methods,
        },
        folder=home,
    )


def test_it_is_searched_only_where_its_sources_are_given(home):
    registry = discover()
    assert "fusion" not in with_settings(registry, study_of(home)).chosen(None, ())
    given = with_settings(registry, study_of(home, fusion={"sources": ["a", "b"]}))
    assert "fusion" in given.chosen(None, ())
    assert [source.name for source in given["fusion"].sources] == ["a", "b"]
    assert registry["fusion"].options is None  # the one that was found stays as it was
    assert "`sources` in [methods.fusion]" in autopeft_here("methods", cwd=home).stdout


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"fusion": {}}, "`sources` is missing"),
        ({"fusion": {"sources": []}}, "at least one"),
        ({"fusion": {"sources": ["a"], "source": 1}}, '"source" in .methods.fusion. is not a setting; did you mean'),
        ({"fusion": {"source": ["a"]}}, '"source" in .methods.fusion. is not a setting; did you mean "sources"'),
        ({"lora": {"sources": ["a"]}}, '"sources" in .methods.lora. is not a setting, because lora has none; what is'),
        ({"fuson": {"sources": ["a"]}}, 'did you mean "fusion"'),
    ],
)
def test_wrong_settings_are_told_with_the_setting(home, methods, words):
    with pytest.raises(SpecError, match=words):
        with_settings(discover(), study_of(home, **methods))


def test_a_study_that_names_it_must_give_its_sources(home):
    spec = study_of(home)
    spec = spec.model_copy(update={"search": spec.search.model_copy(update={"methods": ["fusion"]})})
    with pytest.raises(SpecError, match="`sources` is missing"):
        with_settings(discover(), spec)


def test_a_study_without_a_file_keeps_whole_paths_of_sources(home, monkeypatch):
    monkeypatch.chdir(home)
    options = without_file.Options("model", "rows.csv", None, "text-classification", "text", "label", None)
    spec, mistakes = without_file.study_of(options, ["methods.fusion.sources=a,b,nowhere"], ())
    assert not mistakes
    expected = {"sources": [str(home / "a"), str(home / "b"), "nowhere"]}
    assert spec.methods.settings["fusion"] == expected
    assert tomllib.loads(spec.text)["methods"]["fusion"] == expected


# A whole study.


@pytest.fixture(scope="module")
def ended(home):
    """A finished study of fusion; its sources are gone."""
    text = TINY_STUDY.replace(THREE, 'methods = ["fusion"]').replace("trials = 4", "trials = 2").replace("0.02", "1e-3")
    (home / "fused.toml").write_text(
        text.replace('"tiny"', '"fused"').replace("[model]", 'output = "fused"\n[model]')
        + '[methods.fusion]\nsources = ["c", "b"]\n'
    )
    shutil.copytree(home / "a", home / "c")
    said = autopeft_here("run", "fused.toml", cwd=home)
    assert said.returncode == 0, said.stderr
    before = load(home / "fused" / "winner").predict_proba(["w0 w12", "w1 w30 w31"])
    shutil.move(home / "c", home / "gone")
    return home, before


@pytest.mark.exhaustive
def test_the_winner_stands_alone_and_the_study_stays_finished(ended):
    home, before = ended
    winner = load(home / "fused" / "winner")
    np.testing.assert_array_equal(winner.predict_proba(["w0 w12", "w1 w30 w31"]), before)
    assert winner.card.method_facts["names"] == ["c", "b"]
    said = autopeft_here("run", "fused.toml", cwd=home)
    assert said.returncode == 0
    assert finished.NOTHING_TO_DO in said.stdout


@pytest.mark.exhaustive
def test_the_report_shows_the_attention_and_each_source_left_out(ended):
    home, _ = ended
    sections = {one["title"]: one for one in json.loads((home / "fused" / "report_sections.json").read_text())}
    table = sections["Attention to each source"]["table"]
    assert table["shaded"]
    for row in table["rows"]:
        assert sum(float(cell) for cell in row[1:] if cell != "–") == pytest.approx(1, abs=0.02)
    page = (home / "fused" / "report.html").read_text()
    assert "color-mix(in srgb, var(--shade)" in page
    variants = sections.get("Variants of the winner")
    chosen = load(home / "fused" / "winner").card.params["sources"]
    names = [row[0] for row in variants["table"]["rows"]] if variants else []
    assert names == (["as it is", "without c", "without b"] if chosen == "all" else [])


@pytest.mark.exhaustive
def test_other_sources_are_another_study(ended):
    home, _ = ended
    for sources in ('["gone", "b"]', '["b"]'):
        changed = (home / "fused.toml").read_text().replace('["c", "b"]', sources)
        (home / "changed.toml").write_text(changed)
        said = autopeft_here("run", "changed.toml", cwd=home)
        assert said.returncode == 2
        assert "methods.settings.fusion.sources" in said.stderr


@pytest.mark.exhaustive
def test_a_source_that_was_replaced_is_another_study(ended):
    home, _ = ended
    saved_winner(home / "study.toml", home / "c", seed=5)
    said = autopeft_here("run", "fused.toml", "--set", "search.trials=3", cwd=home)
    assert said.returncode == 2
    assert "method_facts.fusion.digests" in said.stderr
    shutil.rmtree(home / "c")


@pytest.mark.exhaustive
def test_a_winner_is_written_for_adapterhub(ended, tmp_path):
    home, _ = ended
    winner = load(home / "fused" / "winner")
    export(winner, tmp_path / "there", "adapterhub")
    found = json.loads((tmp_path / "there" / "adapter_setup.json").read_text())
    names = [child["children"][0] for child in found["adapter_setup"]["children"]]
    assert (tmp_path / "there" / ",".join(names) / "model_adapter_fusion.safetensors").is_file()
    assert all((tmp_path / "there" / name / "adapter_config.json").is_file() for name in names)
    with pytest.raises(Exception, match="peft has no fusion"):
        export(winner, tmp_path / "other", "peft")


# Attention and variants.


def test_the_attention_is_that_of_the_tokens_and_nothing_stays_on_the_model(home, base):
    model = attach(base, configured(home, "a", "b"), PARAMS).eval()
    rows = batch(6, 9)
    shares = attention(model, [_rows(rows)])
    assert len(shares) == 4
    for module, share in zip(fusions(model).values(), shares.values(), strict=True):
        assert float(share.sum()) == pytest.approx(1)
        assert module.seen is None
    longer = {
        name: torch.nn.functional.pad(tensor, (0, 5)) if tensor.ndim == 2 else tensor for name, tensor in rows.items()
    }
    for name, share in attention(model, [_rows(longer)]).items():
        torch.testing.assert_close(share, shares[name], atol=1e-5, rtol=1e-5)


def _rows(tensors):
    def run(model):
        with torch.no_grad():
            return model(**tensors)

    return TrainingRows(tensors, run)


def test_a_source_left_out_is_as_if_the_others_were_alone(home, base):
    both, alone = attach(base, configured(home, "a", "b"), PARAMS), attach(base, configured(home, "a"), PARAMS)
    with torch.no_grad():
        for name, parameter in trainable(both).items():
            alone.get_parameter(name).copy_(parameter)
    before = logits(both)
    with without(fusions(both).values(), 1):
        torch.testing.assert_close(logits(both), logits(alone))
    assert torch.equal(logits(both), before)
    assert not torch.equal(before, logits(alone))


def test_without_sources_it_says_what_is_missing(base):
    assert "[methods.fusion]" in Fusion().supports(base.spec).reason
    with pytest.raises(MethodError, match="fusion"):
        discover()["fuson"]

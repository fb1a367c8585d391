"""The conformance suite catches what it is there for: for each rule a method that breaks that rule and no other."""

from __future__ import annotations

import io
import json
import os
import random
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from rich.console import Console
from torch import nn

from autopeft import (
    Categorical,
    Float,
    Integer,
    ParameterGroup,
    Params,
    PeftMethod,
    SearchSpace,
    Support,
    TrainingCallback,
    mean_of,
)
from autopeft.common.exceptions import UserInputError
from autopeft.testing import ALL_FAMILIES, FAILED, OK, RULES, UNSUPPORTED, Finding, MethodTests, check
from autopeft.testing.case import Case, covering
from autopeft.testing.suite import judge
from autopeft.testing.view import show
from tests.conftest import autopeft_here, few


class Site(nn.Module):
    """A linear map plus `up · down`."""

    def __init__(self, base: nn.Linear, size: int) -> None:
        super().__init__()
        self.base, device = base, base.weight.device
        self.down = nn.Parameter(0.3 * torch.randn(size, base.in_features, device=device))
        self.up = nn.Parameter(torch.zeros(base.out_features, size, device=device))

    def change(self, x):
        return x @ self.down.T @ self.up.T

    def forward(self, x):
        return self.base(x) + self.change(x)


class Good(PeftMethod):
    """Holds every rule."""

    contract = 1
    name = "good"
    site: ClassVar[type[Site]] = Site

    def search_space(self, spec=None):
        return SearchSpace({"size": Integer(low=1, high=8, default=4)})

    def training_space(self, spec=None):
        return SearchSpace({"learning_rate": Float(low=1e-3, high=3e-2, default=1e-2, log=True)})

    def apply(self, model, params, spec):
        for name in spec.modules("value"):
            model.set_submodule(name, self.site(model.get_submodule(name), int(params.get("size", 4))))
        return model


class Merging(Good):
    def merge(self, model):
        for name, module in list(model.named_modules()):
            if isinstance(module, Site):
                module.base.weight.data += module.up.data @ module.down.data
                model.set_submodule(name, module.base)
        return model


class AddsInsteadOfAveraging(Good):
    def average(self, folds, params, spec):
        return {name: sum(fold[name] for fold in folds) for name in folds[0]}


class Averaging(Good):
    def average(self, folds, params, spec):
        return mean_of(folds)


class Shrinking(TrainingCallback):
    """Takes a little from `up` after each update, more from one to the next."""

    def __init__(self, model):
        self.sites = [module for module in model.modules() if isinstance(module, Site)]
        self.count = torch.zeros(())

    def after_update(self, step):
        self.count += 1
        for site in self.sites:
            site.up.mul_(1 - 0.05 * self.count)

    def state(self):
        return {"count": self.count}

    def load_state(self, state):
        self.count.copy_(state["count"])


class WithCallback(Good):
    def callback(self, model, params, spec):
        return Shrinking(model)


class RaisesWithoutRoles(Good):
    def supports(self, spec):
        return Support("it has no roles") if spec.linears[0].role == "none" else Support()


class NamesATrainingDimension(Good):
    def search_space(self, spec=None):
        return SearchSpace({"batch_size": Integer(low=1, high=2, default=1)})


class NeedsAModel(Good):
    def search_space(self, spec=None):
        return SearchSpace({"size": Integer(low=1, high=spec.hidden_size, default=4)})


class RaisesOnMetaWhenLarge(Good):
    def apply(self, model, params, spec):
        if params["size"] == 8 and next(model.parameters()).is_meta:
            raise ValueError("too large")
        return super().apply(model, params, spec)


class Miscounts(Good):
    def trained_params(self, params, spec):
        linears = [linear for linear in spec.linears if linear.role == "value"]
        return sum(params["size"] * (linear.in_features + linear.out_features) for linear in linears) + 1


class DrawsWithoutTheSeed(Good):
    class site(Site):  # noqa: N801  # in the place of the attribute
        def __init__(self, base, size):
            super().__init__(base, size)
            self.down.data *= 1 + random.SystemRandom().random()


class HasAnIdleParameter(Good):
    class site(Site):  # noqa: N801
        def __init__(self, base, size):
            super().__init__(base, size)
            self.idle = nn.Parameter(torch.zeros(3, device=base.weight.device))


class WritesIntoTheBase(Good):
    class site(Site):  # noqa: N801
        def forward(self, x):
            if self.training:
                with torch.no_grad():
                    self.base.bias.add_(1e-9)
            return super().forward(x)


class DoesNotLearn(Good):
    class site(Site):  # noqa: N801
        def change(self, x):
            return 0.0 * super().change(x)


class NeedsFloat32(Good):
    class site(Site):  # noqa: N801
        def forward(self, x):
            h = self.base(x)
            return torch.lerp(h, h.float() + self.change(x), 1.0)


class RemembersOutsideItsParameters(Good):
    class site(Site):  # noqa: N801
        def __init__(self, base, size):
            super().__init__(base, size)
            self.register_buffer("seen", torch.zeros((), device=base.weight.device), persistent=False)

        def forward(self, x):
            if self.training:
                self.seen += 1
            return super().forward(x) * (1 + self.seen)


class SavesMoreOnMeta(Good):
    def save(self, model):
        kept = {name: p for name, p in model.named_parameters() if p.requires_grad}
        first = next(iter(kept.values()))
        return {**kept, **({"more": first.clone()} if first.is_meta else {})}

    def load(self, model, tensors):
        own = dict(model.named_parameters())
        for name, tensor in tensors.items():
            own[name].data.copy_(tensor)


class ForgetsWhenMerging(Merging):
    def merge(self, model):
        for name, module in list(model.named_modules()):
            if isinstance(module, Site):
                model.set_submodule(name, module.base)
        return model


class MixesRows(Good):
    """At the params that are not its defaults."""

    class site(Site):  # noqa: N801
        mix = False

        def change(self, x):
            return super().change(x) * (x.abs().mean() if self.mix else 1.0)

    def search_space(self, spec=None):
        return SearchSpace({"mix": Categorical(choices=(False, True), default=False)})

    def apply(self, model, params, spec):
        super().apply(model, params, spec)
        for module in model.modules():
            if isinstance(module, Site):
                module.mix = params["mix"]
        return model


class AllocatesByValue(Good):
    class site(Site):  # noqa: N801
        def forward(self, x):
            waste = torch.zeros(int(x.detach().sum().isfinite()) * 500_000)
            return super().forward(x) + waste[0]


class PatchesAClass(Good):
    def apply(self, model, params, spec):
        kind = type(model.get_submodule(spec.layers[0]))
        whole = kind.forward
        kind.forward = lambda self, *args, **kwargs: whole(self, *args, **kwargs)
        return super().apply(model, params, spec)


class SetsTheEnvironment(Good):
    def supports(self, spec):
        os.environ["GOOD_METHOD"] = str(random.getrandbits(64))
        return Support()


class CountsOnTheModel(WithCallback):
    def callback(self, model, params, spec):
        callback = Shrinking(model)
        callback.count = model.__dict__.setdefault("count", callback.count)
        return callback


class Drifts(Good):
    def parameter_groups(self, trained, params, spec):
        return [
            ParameterGroup(tuple(name for name in trained if ".up" in name), rate=1 + random.SystemRandom().random())
        ]


class Measured(Good):
    """`down` starts from means of what the values' map is given."""

    def noise(self):
        return 0.0

    def initial_values(self, model, batches, params, spec):
        found = {}

        def see(name):
            def hook(module, args):
                mean = batch.filled(args[0]).mean(0) + self.noise()
                found[name] = mean.expand(int(params["size"]), -1) + 0.1 * torch.randn(int(params["size"]), len(mean))

            return hook

        sites = [(name, module) for name, module in model.named_modules() if isinstance(module, Site)]
        hooks = [module.register_forward_pre_hook(see(f"{name}.down")) for name, module in sites]
        for batch in batches:
            batch.run(model)
        for hook in hooks:
            hook.remove()
        return found


class StartsByChance(Measured):
    def noise(self):
        return random.SystemRandom().random()


class IsOtherWhereNamed(Good):
    def search_space(self, spec=None):
        return SearchSpace(
            {**super().search_space(spec), "scale": Float(low=1.0, high=2.0, default=1.0, optional=True)}
        )

    def apply(self, model, params, spec):
        model = super().apply(model, params, spec)
        for module in model.modules():
            if isinstance(module, Site):
                module.down.data *= params.get("scale", 2.0)
        return model


class TrainsTheBasesMemory(Good):
    class site(Site):  # noqa: N801
        def __init__(self, base, size):
            super().__init__(base, size)
            self.bias = nn.Parameter(base.bias.data)

        def forward(self, x):
            return super().forward(x) + self.bias


MUTANTS: dict[type[PeftMethod], tuple[str, ...]] = {
    RaisesWithoutRoles: ("support_is_answered",),
    NamesATrainingDimension: ("space_is_plain_data",),
    NeedsAModel: ("space_is_shown_without_a_model",),
    RaisesOnMetaWhenLarge: ("applies_in_every_corner",),
    Miscounts: ("applies_in_every_corner", "weighs_what_is_predicted"),
    DrawsWithoutTheSeed: ("draws_from_the_seed_alone",),
    HasAnIdleParameter: ("trains_its_own_alone",),
    WritesIntoTheBase: ("leaves_the_base_as_it_was",),
    DoesNotLearn: ("learns",),
    NeedsFloat32: ("runs_in_bfloat16",),
    CountsOnTheModel: ("folds_take_turns",),
    RemembersOutsideItsParameters: ("loads_what_it_saved",),
    SavesMoreOnMeta: ("loads_what_it_saved", "weighs_what_is_predicted"),
    ForgetsWhenMerging: ("merges_without_a_trace",),
    AddsInsteadOfAveraging: ("averages_what_it_computes",),
    MixesRows: ("packs_alike_everywhere",),
    AllocatesByValue: ("memory_is_predicted",),
    PatchesAClass: ("leaves_the_process_as_it_was",),
    Drifts: ("groups_hang_on_the_params_alone",),
    StartsByChance: ("starts_from_its_rows_alone",),
    IsOtherWhereNamed: ("is_the_same_without_what_is_optional",),
    SetsTheEnvironment: ("leaves_the_process_as_it_was",),
    TrainsTheBasesMemory: ("trains_its_own_alone", "loads_what_it_saved"),  # loading then writes into the base
}


def broken(method, *families):
    return {finding.rule: finding for finding in check(method, families or ("bert",)) if finding.state == FAILED}


def leaves_a_hook(self, model, batches, params, spec):
    model.register_forward_hook(lambda *given: None)
    return {}


def writes_into_the_model(self, model, batches, params, spec):
    next(module for module in model.modules() if isinstance(module, Site)).up.add_(1)
    return {}


@pytest.mark.parametrize(
    ("function", "seen"),
    [
        (leaves_a_hook, "it changed the hooks of the top module of the model"),
        (writes_into_the_model, r"it changed \S+\.up of the model"),
        (lambda *given: {"down": torch.zeros(1)}, "must name parameters that are trained, but named 'down'"),
        (lambda self, model, *given: {n: torch.zeros(1) for n, _ in model.named_parameters() if ".up" in n}, "shape"),
        (lambda self, model, *given: {n: p + torch.nan for n, p in model.named_parameters() if ".up" in n}, "finite"),
    ],
)
def test_first_values_that_are_wrong_are_told(function, seen):
    method = type("Wrong", (Good,), {"initial_values": function})()
    finding = judge(RULES["starts_from_its_rows_alone"], Case(method, "bert"))
    assert finding.state == FAILED
    assert re.search(seen, finding.seen), finding.seen


@pytest.mark.parametrize("method", [Good, Merging, Averaging, WithCallback, Measured])
def test_a_method_that_holds_the_contract_passes(method):
    assert {rule: str(finding) for rule, finding in broken(method()).items()} == {}


def test_every_rule_has_a_method_that_breaks_it():
    assert {rule for rules in MUTANTS.values() for rule in rules} == set(RULES)


@pytest.mark.parametrize("method", few(MUTANTS, *[*MUTANTS][::3]))
def test_a_broken_method_is_caught_by_the_rule_it_breaks_and_no_other(method):
    found = broken(method())
    assert set(found) == set(MUTANTS[method]), "\n".join(map(str, found.values()))
    (first, *_) = MUTANTS[method]
    text = str(found[first])
    assert RULES[first].statement in text
    assert RULES[first].advice
    assert RULES[first].advice in text


def test_a_fault_is_told_at_the_params_nearest_to_the_defaults():
    class Method(RaisesOnMetaWhenLarge):
        def search_space(self, spec=None):
            others = {name: Categorical(choices=("a", "b"), default="a") for name in ("one", "two")}
            return SearchSpace({**others, **super().search_space(spec)})

    finding = broken(Method())["applies_in_every_corner"]
    assert finding.params == {"one": "a", "two": "a", "size": 8}
    assert "too large" in finding.seen


def test_few_points_hold_every_extreme():
    space = SearchSpace({name: Integer(low=1, high=9, default=5) for name in "abcdefgh"})
    points: list[Params] = covering([space.defaults(), *space.corners()])
    assert points[0] == space.defaults()
    assert {(name, value) for point in points[1:] for name, value in point.items()} == {
        (name, value) for name in space for value in (1, 9)
    }
    assert len(points) == 3


def test_a_plugin_that_imports_torch_to_be_listed_is_caught(tmp_path, monkeypatch):
    (tmp_path / "heavy_plugin.py").write_text(
        "import torch, autopeft\n"
        "class Heavy(autopeft.PeftMethod):\n"
        "    contract, name = 1, 'heavy'\n"
        "    def search_space(self, spec=None): return autopeft.SearchSpace({})\n"
        "    def apply(self, model, params, spec): return model\n"
        "def register_methods(): return [Heavy()]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import heavy_plugin

    finding = broken(heavy_plugin.Heavy())["space_is_shown_without_a_model"]
    assert "imported torch" in finding.seen


def test_a_model_that_is_not_supported_is_told_with_the_reason():
    class Picky(Good):
        def supports(self, spec):
            return Support("it is not a BERT.") if spec.model_type == "gpt2" else Support()

    found = check(Picky(), ["gpt2"])
    assert {finding.seen for finding in found if finding.state == UNSUPPORTED} == {"it is not a BERT."}
    assert not [finding for finding in found if finding.state == FAILED]
    with pytest.raises(UserInputError, match='"gpt3"; did you mean "gpt2"'):
        check(Picky(), ["gpt3"])


def test_the_pytest_class_fails_with_the_finding():
    class TestBroken(MethodTests):
        method = DoesNotLearn()
        families = ("bert",)

    test: Any = TestBroken()
    with pytest.raises(pytest.fail.Exception, match="learns broke on bert"):
        test.test_rule(RULES["learns"], "bert")
    test.test_rule(RULES["runs_in_bfloat16"], "bert")
    with pytest.raises(pytest.skip.Exception, match="cannot be merged"):
        test.test_rule(RULES["merges_without_a_trace"], "bert")


def test_the_command_line_checks_an_installed_method(tmp_path):
    done = autopeft_here("check", "lora", "--family", "bert", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)["findings"]
    assert {entry["rule"] for entry in found} == set(RULES)
    assert {entry["state"] for entry in found} == {OK, "skipped"}
    missing = autopeft_here("check", "lorra", cwd=tmp_path)
    assert missing.returncode == 2
    assert 'did you mean "lora"?' in missing.stderr
    text = autopeft_here("check", "prefix_tuning", "--family", "deberta-v2", cwd=tmp_path)
    assert "deberta-v2: not supported, " in " ".join(text.stdout.split())


BROKEN_PLUGIN = """
from autopeft import PeftMethod, SearchSpace, hookimpl

class Torn(PeftMethod):
    contract, name = 1, "torn"

    def search_space(self, spec=None):
        return SearchSpace({})

    def apply(self, model, params, spec):
        return model.get_submodule("nowhere")

@hookimpl
def register_methods():
    return [Torn()]
"""


def test_check_shows_the_line_of_a_fault_in_80_columns_and_the_traceback_on_request(tmp_path, monkeypatch):
    (tmp_path / "torn_plugin.py").write_text(BROKEN_PLUGIN)
    info = tmp_path / "torn-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torn\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[autopeft]\ntorn = torn_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("autopeft.common.console.WIDTH", 80)
    done = autopeft_here("check", "torn", "--family", "bert", "--family", "gpt2", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "failed" in done.stdout
    assert "Where: torn_plugin.py:11, in apply()" in done.stdout
    assert "Traceback" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    verbose = autopeft_here("check", "torn", "--family", "bert", "--verbose", cwd=tmp_path).stdout
    assert "Traceback (most recent call last):" in verbose
    assert 'return model.get_submodule("nowhere")' in verbose


def test_the_table_names_the_models_on_which_a_rule_broke_and_counts_the_others():
    found = [Finding("learns", family, state) for family, state in zip(ALL_FAMILIES, [FAILED, *[OK] * 14], strict=True)]
    found += [Finding("folds_take_turns", family, "skipped", "the method has no callback") for family in ALL_FAMILIES]
    found += [Finding("space_is_shown_without_a_model", "", OK)]
    console = Console(file=io.StringIO(), width=80)
    console.print(show("mine", found))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert f"learns failed on {next(iter(ALL_FAMILIES))}; ok on 14" in lines
    assert "folds_take_turns nothing to test" in lines
    assert "space_is_shown_without_a_model ok" in lines


def test_a_rule_that_breaks_without_an_error_names_the_class():
    finding = judge(RULES["learns"], Case(DoesNotLearn(), "bert"))
    assert re.search(r"test_testing\.py:\d+, class DoesNotLearn$", finding.place)
    assert finding.place in str(finding)
    assert not finding.trace


def test_the_support_page_is_current():
    from autopeft.methods.registry import discover
    from autopeft.testing.matrix import matrix

    page = (Path(__file__).parents[2] / "docs" / "support.md").read_text(encoding="utf-8")
    shipped = {
        name: method
        for name, method in discover().methods.items()
        if discover().origins[name].distribution == "autopeft"
    }
    assert page == matrix(shipped), "write it anew: autopeft methods --matrix > docs/support.md"

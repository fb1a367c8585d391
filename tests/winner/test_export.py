"""Each export, loaded by the library it is for as its own README says, predicts what the winner predicts."""

import json
import os
import re
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file

import autopeft
from autopeft.common.exceptions import MethodError, UserInputError
from autopeft.winner.export import ExportError
from autopeft.winner.hub import HubError
from tests.conftest import DTYPE, autopeft_here, tiny_rows, trained_winner
from tests.fixtures.hub import Hub

TEXTS = ["w12 w3 w20", "w40 w11", " ".join(f"w{i}" for i in range(50)), "w5"]
CLOSE = 1e-4
ROOT = Path(__file__).parents[2]


def from_readme(folder: Path, base: Path | str) -> dict:
    """What the Python in an export's README defines."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    code = re.sub(r'(?m)^base = ".*$', f"base = {str(base)!r}", code)
    found: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(code, str(folder / "README.md"), "exec"), found)
    return found


def probabilities(found: dict, texts: list[str]) -> np.ndarray:
    tokens = found["tokenizer"](texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return found["model"](**tokens).logits.softmax(-1).numpy()


@pytest.mark.parametrize(
    ("form", "method", "params"),
    [
        ("peft", "lora", {}),
        ("peft", "lora", {"init_lora_weights": "pissa", "use_rslora": True, "loraplus_lr_ratio": 4.0}),
        ("peft", "lora", {"init_lora_weights": "eva"}),
        ("merged", "dora", {"init_lora_weights": "olora"}),
        ("peft", "ia3", {}),
        ("peft", "vera", {}),
        ("peft", "adalora", {}),
        ("peft", "prefix_tuning", {}),
        ("peft", "prefix_tuning", {"prefix_projection": True, "encoder_hidden_size": 7}),
        ("merged", "lora", {}),
        ("merged", "adalora", {}),
        ("merged", "bitfit", {}),
        ("serving", "lora", {}),
        ("serving", "adalora", {}),
        ("serving", "dora", {}),
    ],
)
def test_an_export_predicts_as_the_winner_in_its_own_library(tiny_study, tiny_model, form, method, params):
    winner = trained_winner(tiny_study, method, **params)
    expected = winner.predict_proba(TEXTS)
    folder = autopeft.export(winner, tiny_study.parent / "export", form)
    found = from_readme(folder, tiny_model)
    np.testing.assert_allclose(probabilities(found, TEXTS), expected, atol=CLOSE)
    assert list(found["model"].config.id2label.values()) == list(winner.card.labels)
    assert found["tokenizer"].model_max_length == winner.card.max_length
    assert not [path for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    if form == "serving":
        rank = json.loads((folder / "adapter_config.json").read_text())["r"]
        assert f"--max-lora-rank {rank}\n" in (folder / "README.md").read_text()
    np.testing.assert_array_equal(winner.predict_proba(TEXTS), expected)


def test_mlflow_serves_any_winner(tiny_study):
    winner = trained_winner(tiny_study, "adapter")
    folder = autopeft.export(tiny_study.parent / "adapter", tiny_study.parent / "export", "mlflow")
    served = from_readme(folder, "")["model"].predict(pd.DataFrame({"text": TEXTS}))
    assert served["label"].tolist() == winner.predict(TEXTS)
    np.testing.assert_allclose(served["probability"], winner.predict_proba(TEXTS).max(axis=1), atol=CLOSE)


@pytest.mark.skipif(
    not all(find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")),
    reason='needs pip install "autopeft[onnx]"',
)
@pytest.mark.parametrize("method", ["adapter", "prefix_tuning"])
def test_onnx_runs_any_winner(tiny_study, method):
    winner = trained_winner(tiny_study, method)
    folder = autopeft.export(winner, tiny_study.parent / "export", "onnx")
    found = from_readme(folder, "")
    for texts in (TEXTS, TEXTS[:1], [*TEXTS, "w1 w2"]):
        tokens = found["tokenizer"](texts, padding=True, truncation=True, return_tensors="np")
        inputs = {entry.name: tokens[entry.name] for entry in found["session"].get_inputs()}
        (logits,) = found["session"].run(None, inputs)
        np.testing.assert_allclose(torch.tensor(logits).softmax(-1), winner.predict_proba(texts), atol=CLOSE)
    labels = json.loads((folder / "config.json").read_text())["id2label"]
    assert list(labels.values()) == list(winner.card.labels)


@pytest.mark.skipif(all(find_spec(name) for name in ("onnx", "onnxscript")), reason="all that ONNX needs is installed")
def test_onnx_without_its_packages_says_what_to_install(tiny_study):
    with pytest.raises(ExportError, match=r'pip install "autopeft\[onnx\]"'):
        autopeft.export(trained_winner(tiny_study, "lora"), tiny_study.parent / "export", "onnx")
    assert not (tiny_study.parent / "export").exists()


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_adapters_in_the_layout_of_the_adapters_library(tiny_study, placement):
    winner = trained_winner(tiny_study, "adapter", placement=placement, layers="top_half", reduction_factor=4)
    folder = autopeft.export(winner, tiny_study.parent / "export", "adapterhub")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["config"]["leave_out"] == [0, 1]
    assert config["config"]["mh_adapter"] == (placement == "houlsby")
    assert config["config"]["is_parallel"] == (placement == "parallel")
    weights = load_file(folder / "adapter.safetensors")
    owners = {name.partition(".adapters.")[0] for name in weights}
    places = ("attention.output", "output") if placement == "houlsby" else ("output",)
    assert owners == {f"bert.encoder.layer.{layer}.{place}" for layer in (2, 3) for place in places}
    down = weights["bert.encoder.layer.3.output.adapters.autopeft.adapter_down.0.weight"]
    assert torch.equal(down, winner.module.get_submodule("bert.encoder.layer.3.output.dense.adapter.down").weight)
    head = load_file(folder / "model_head.safetensors")
    assert torch.equal(head["classifier.weight"], winner.module.classifier.weight)
    assert json.loads((folder / "head_config.json").read_text())["label2id"] == {"maybe": 0, "no": 1, "yes": 2}


@pytest.mark.skipif(
    "AUTOPEFT_ADAPTERS_PYTHON" not in os.environ,
    reason="needs AUTOPEFT_ADAPTERS_PYTHON, a Python with the adapters library, which cannot be installed beside "
    "transformers 5; benchmarks/adapterhub.py makes one",
)
def test_the_adapters_library_predicts_the_same(tmp_path):
    command = [
        sys.executable,
        ROOT / "benchmarks" / "adapterhub.py",
        "--python",
        os.environ["AUTOPEFT_ADAPTERS_PYTHON"],
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("form", "method", "params", "words"),
    [
        ("peft", "adapter", {}, "has no bottleneck adapter; use the format `adapterhub`"),
        ("peft", "bitfit", {}, "use the format `merged`"),
        ("peft", "prefix_tuning", {"layers": "top_half"}, "a prefix in every layer"),
        ("adapterhub", "lora", {}, 'the method "lora" has no counterpart there'),
        ("merged", "adapter", {}, '"adapter" cannot'),
        ("pfet", "lora", {}, 'got "pfet"; did you mean "peft"'),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_the_reason_and_nothing_written(
    tiny_study, form, method, params, words
):
    winner = trained_winner(tiny_study, method, **params)
    with pytest.raises((ExportError, MethodError), match=words):
        autopeft.export(winner, tiny_study.parent / "export", form)
    assert not [path for path in tiny_study.parent.iterdir() if "export" in path.name]


def test_adapters_of_other_models_are_refused(tmp_path):
    from autopeft_adapter import Adapter

    from autopeft.testing.tiny import tiny_base

    base = tiny_base("gpt2")
    answer = Adapter().export(base.copy(), {}, base.spec, "adapterhub", tmp_path)
    assert "not for gpt2" in answer.reason
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def study(tiny_model, tmp_path_factory):
    """A finished study of one trial."""
    return autopeft.tune(
        model={"name_or_path": str(tiny_model), "dtype": DTYPE},
        data={"train": tiny_rows(), "test_fraction": 0.5},
        search={"methods": ["lora"], "trials": 1, "epochs": 2, "batch_size": 8, "learning_rate": 0.02},
        validation={"folds": 2, "packing": "off", "metric": "f1_macro"},
        budget={"max_trainable_params": "30%", "max_gpu_memory": "1 GiB"},
        output=tmp_path_factory.mktemp("study"),
        name="words",
        progress=False,
    )


def test_the_command_exports_a_study_with_a_card_of_facts(study, tiny_model, tmp_path):
    done = autopeft_here("export", study.folder, "--to", tmp_path / "merged", "--format", "merged", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = from_readme(tmp_path / "merged", tiny_model)
    np.testing.assert_allclose(probabilities(found, TEXTS), study.winner.predict_proba(TEXTS), atol=CLOSE)
    text = (tmp_path / "merged" / "README.md").read_text()
    evidence = study.winner.evidence
    low, high = evidence.test_interval
    assert low < study.test.winner < high
    for fact in (
        f"**{study.test.winner:.4f}** (95% interval {low:.4f} to {high:.4f})",
        f"{study.best.score:.4f}",
        f"{study.test.baseline:.4f}",
        "on 30 held-out rows",
        "won a search of 1 trial",
        "max_trainable_params = 30.0000% of the base model, max_gpu_memory = 1.0 GiB",
        f"| r | {study.best.params['lora.r']} |",
        f"| trained parameters | {study.best.trainable_params:,} |",
        "a local folder, model",
        "| labels | maybe, no, yes |",
        "| data | rows in memory |",
    ):
        assert fact in text
    assert str(tiny_model.parent) not in text, "a path of this machine is nobody's business"
    card = ModelCard(text)
    assert card.data.library_name == "transformers"
    assert card.data.eval_results[0].metric_value == round(study.test.winner, 4)
    again = autopeft_here("export", study.folder, "--to", tmp_path / "merged", "--format", "peft", cwd=tmp_path)
    assert again.returncode == 2
    assert "must be new or empty" in again.stderr


def test_a_saved_winner_keeps_what_is_known_of_it(study, tmp_path):
    assert (study.folder / "winner" / "README.md").is_file()
    study.winner.save(tmp_path / "copy")
    copied = autopeft.load(tmp_path / "copy")
    assert copied.evidence == study.winner.evidence
    found = from_readme(tmp_path / "copy", "")
    assert found["winner"].predict(TEXTS) == study.winner.predict(TEXTS)
    with pytest.raises(UserInputError, match=r"a folder without autopeft\.json"):
        autopeft.export(tmp_path, tmp_path / "export", "peft")


@pytest.fixture
def hub(monkeypatch):
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server
        server.shutdown()


@pytest.mark.parametrize("large", [(), (".safetensors", "tokenizer.json")], ids=["in the commit", "by git LFS"])
def test_a_winner_goes_to_the_hub_byte_by_byte_and_its_token_nowhere_else(
    study, hub, large, tmp_path, monkeypatch, caplog
):
    caplog.set_level("DEBUG")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", bool(large))  # Xet, where it is, takes the place of git LFS
    hub.large = large
    folder = tmp_path / "merged"
    arguments = ["export", study.folder, "--to", folder, "--format", "merged", "--push-to-hub", "me/words", "--private"]
    done = autopeft_here(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{hub.address}/me/words" in done.stdout
    assert hub.made["name"] == "words"
    assert "private" in (hub.made.get("visibility"), *hub.made)
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert bool(hub.stored) == bool(large)
    assert {path for path, allowed in hub.asked if not allowed} == {f"/storage/{name}" for name in hub.stored}
    assert hub.token not in done.stdout + done.stderr + caplog.text


def test_a_winner_comes_back_from_the_hub_the_same(study, hub, tmp_path):
    assert study.winner.push_to_hub("me/words") == f"{hub.address}/me/words"
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(autopeft.load(tmp_path).predict_proba(TEXTS), study.winner.predict_proba(TEXTS))


def refuse(hub, monkeypatch):
    hub.token = "hf_another"
    return "401.*log in"


def forbid_storage(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    hub.large, hub.storage_works = (".safetensors",), False
    return "Error while uploading .*safetensors"


def go_away(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return "refused"


@pytest.mark.parametrize("fails", [refuse, forbid_storage, go_away])
def test_a_hub_that_fails_is_one_sentence_without_the_token(study, hub, fails, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    token, words = hub.token, fails(hub, monkeypatch)
    with pytest.raises(HubError, match=rf'"me/words" cannot be uploaded to the hub: .*{words}') as caught:
        study.winner.push_to_hub("me/words")
    assert not hub.files
    assert token not in f"{caught.getrepr(style='long')}{caplog.text}"

"""Folders that hold no model, a damaged one or a trap: each ends in one sentence, within seconds."""

import json
import os
import shutil
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from autopeft.common.exceptions import ModelError
from autopeft.models.files import decisive, examine
from autopeft.models.load import load_base
from autopeft.tasks.registry import find_task
from tests.tiny_models import tiny

OPTIONS = {"task": find_task("text-classification"), "seed": 0}


@pytest.fixture
def folder(tmp_path, tiny_model) -> Path:
    """A tiny BERT of this test's own."""
    return Path(shutil.copytree(tiny_model, tmp_path / "base"))


def refused(folder: Path) -> str:
    """Why it is not loaded; a sentence or two, said within seconds."""
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        load_base(folder, **OPTIONS)
    told = str(caught.value)
    assert time.monotonic() - started < 10
    assert "\n" not in told
    assert len(told) < 700
    return told


def configure(folder: Path, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers in config.json must be at most 10,000, but is 1e+06"),
        ({"num_hidden_layers": 10**300}, "but is 1e+300"),
        ({"text_config": {"n_layer": 10**9}}, "n_layer in config.json must be at most 10,000"),
        ({"num_hidden_layers": 9_999}, "config.json describes a model of more than"),
        ({"hidden_size": 10**9}, "config.json describes a model of more than"),
        ({"hidden_size": 10**30}, "cannot be loaded"),
        ({"vocab_size": 10**9}, "config.json describes a model of more than"),
        ({"max_position_embeddings": 10**9}, "config.json describes a model of more than"),
        ({"intermediate_size": 10**9}, "config.json describes a model of more than"),
        ({"hidden_size": "x"}, "cannot be loaded"),
        ({"hidden_size": -1}, "cannot be loaded"),
        ({"num_attention_heads": 0}, "cannot be loaded"),
        ({"hidden_act": "none such"}, "cannot be loaded"),
        ({"model_type": "none such"}, "cannot be loaded"),
        ({"model_type": ["bert"]}, "cannot be loaded"),
        ({"num_labels": 2_000_000}, "config.json must have at most 50,000 labels, but has 2e+06; remove num_labels"),
        ({"id2label": {str(i): "x" for i in range(60_000)}}, "must have at most 50,000 labels"),
        ({"transformers_weights": "adapter_model.bin"}, "must name a safetensors file"),
        ({"transformers_weights": "../base/model.safetensors"}, "must name a safetensors file"),
        ({"hidden_size": 64, "intermediate_size": 96}, "config.json and the weights disagree about"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_configuration_that_the_weights_cannot_fill(folder, values, words):
    configure(folder, **values)
    assert words in refused(folder)


@pytest.mark.parametrize(
    "text", ["", "[1]", "null", '{"a":' * 100_000, '{"a": NaN', "\xff", "[" * 100_000, "{" + " " * 2**26 + "}"]
)
def test_a_configuration_that_is_none(folder, text):
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert "config.json must be a JSON object" in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"])
def test_a_pipe_is_not_waited_for(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert f"{name} must be a regular file, but is a pipe or a device" in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_link_that_leads_nowhere(folder, name):
    (folder / name).unlink()
    (folder / name).symlink_to(folder / name)
    assert f"{name} must be a file, but is a broken link" in refused(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    assert f"{name} must be a regular file" in refused(folder)


def test_a_folder_that_is_a_loop_of_links_or_a_file(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "must be a Hugging Face model folder" in refused(tmp_path / "loop")
    (tmp_path / "file").touch()
    assert "must be a Hugging Face model folder" in refused(tmp_path / "file")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named(folder, name):
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 90\n"
    (folder / name).write_text(text)
    assert f"{name} is a git-lfs pointer instead of the file; fetch the file (`git lfs pull`)" in refused(folder)


def forged(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a safetensors file, or is damaged"),
        (b"x" * 200, "is not a safetensors file, or is damaged"),
        (struct.pack("<Q", 2**62), "is not a safetensors file, or is damaged"),
        (forged(b"[1]"), "is not a safetensors file, or is damaged"),
        (forged(b'{"a": 1}'), "is not a safetensors file, or is damaged"),
        (forged(b'{"a":' * 9_000), "is not a safetensors file, or is damaged"),
        (forged(b"{}"), "its weights lack"),
        (forged(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"1234"), "lacks its last 4 bytes"),
        (forged(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,8]}}', b"12345678"), "cannot be loaded"),
        (forged(b'{"a":{"dtype":"??","shape":[2],"data_offsets":[0,8]}}', b"12345678"), "cannot be loaded"),
    ],
)
def test_weights_that_are_none(folder, content, words):
    (folder / "model.safetensors").write_bytes(content)
    assert words in refused(folder)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (
            {"weight_map": {"a": "none.safetensors"}},
            "none.safetensors, which model.safetensors.index.json names, is missing",
        ),
        ({"weight_map": {"a": "../x.safetensors"}}, "must name only files in that folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "must name only files in that folder"),
        ({"weight_map": []}, "must map tensors to files"),
        ({}, "must map tensors to files"),
    ],
)
def test_an_index_that_leads_nowhere(folder, index, words):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert words in refused(folder)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"a":' * 100_000, '{"version": "1.0", "model": {"type": "WordPiece"}}', "\xff"]
)
def test_a_tokenizer_that_is_none(folder, text):
    (folder / "tokenizer.json").write_text(text, encoding="latin-1")
    (folder / "vocab.txt").unlink(missing_ok=True)
    refused(folder)


@pytest.mark.parametrize("text", ["[]", "null", "7", '{"tokenizer_class": 7}', '{"added_tokens_decoder": 7}'])
def test_a_configuration_of_the_tokenizer_that_is_none(folder, text):
    (folder / "tokenizer_config.json").write_text(text)
    refused(folder)


def test_an_adapter_beside_the_model_is_named(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/x"}))
    assert "holds an adapter beside the model (adapter_config.json)" in refused(folder)
    (folder / "config.json").unlink()
    assert "holds a peft adapter for org/x (adapter_config.json), not a whole model" in refused(folder)
    (folder / "adapter_config.json").write_text("[]")
    assert "holds a peft adapter for another model (adapter_config.json), not a whole model" in refused(folder)


def test_a_whole_model_is_described_by_its_files(folder):
    tensors = load_file(folder / "model.safetensors")
    found = examine(folder)
    assert found.tensors == len(tensors)
    assert found.size == sum(tensor.nbytes for tensor in tensors.values())
    names = [path.name for path in decisive(folder)]
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= {*names}
    (folder / "README.md").touch()
    (folder / "notes.txt").touch()
    (folder / "generation_config.json").touch()
    (folder / "training_args.bin").touch()
    assert [path.name for path in decisive(folder)] == names


def test_a_model_in_shards_is_read(folder):
    whole = examine(folder)
    tensors = sorted(load_file(folder / "model.safetensors").items())
    parts = {"a.safetensors": dict(tensors[::2]), "b.safetensors": dict(tensors[1::2])}
    for name, part in parts.items():
        save_file(part, folder / name, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    places = {key: name for name, part in parts.items() for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert examine(folder) == whole
    assert {"a.safetensors", "b.safetensors"} < {path.name for path in decisive(folder)}
    base = load_base(folder, **OPTIONS)
    assert all(torch.equal(base.module.state_dict()[name], tensor) for name, tensor in tensors)


def test_a_limit_ends_with_its_block(folder):
    configure(folder, hidden_size=10**9)
    refused(folder)
    torch.nn.Embedding(10**5, 10**3, device="meta")
    assert sum(p.numel() for p in tiny("bert").parameters())

"""What a checkpoint lacks of its model is refused where it is the model, and trained where it is a head."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM

from autopeft.common.exceptions import ModelError
from autopeft.models.load import load_base
from autopeft.tasks.registry import find_task
from tests.models.test_files import configure
from tests.tiny_models import FAMILIES, tiny

OPTIONS = {"task": find_task("text-classification"), "seed": 0}


def labelled(count: int) -> dict:
    return {"id2label": {i: f"l{i}" for i in range(count)}, "label2id": {f"l{i}": i for i in range(count)}}


@pytest.fixture
def folder(tmp_path, tiny_model) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "base"))


def rewrite(folder: Path, change) -> dict[str, torch.Tensor]:
    """Change the names in the weights' file; a name that becomes None is left out."""
    tensors = load_file(folder / "model.safetensors")
    kept = {change(name): tensor for name, tensor in tensors.items() if change(name) is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return kept


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_base(folder, **OPTIONS)
    return str(caught.value)


def test_a_configuration_of_more_layers_than_the_file_holds_is_refused(folder):
    configure(folder, num_hidden_layers=6)
    told = refusal(folder)
    assert "its weights lack 32 tensors of the base model (bert.encoder.layer.4." in told
    assert "config.json describes 6 layers, but the file holds 4" in told


@pytest.mark.parametrize(
    ("lost", "count"),
    [
        ("bert.encoder.layer.2.attention.self.query.weight", 1),
        ("bert.encoder.layer.3.output.LayerNorm", 2),
        ("bert.embeddings.word_embeddings", 1),
        ("bert.embeddings.LayerNorm", 2),
        ("bert.pooler.dense.bias", 1),  # half a pooler is a damaged one
        ("bert.", 69),
    ],
)
def test_a_part_of_the_base_that_is_not_there_is_refused(folder, lost, count):
    rewrite(folder, lambda name: None if name.startswith(lost) else name)
    told = refusal(folder)
    assert f"its weights lack {count} tensors of the base model ({lost}" in told
    assert "give " in told


@pytest.mark.parametrize(
    ("family", "lost"),
    [("gpt2", "transformer.ln_f"), ("llama", "model.norm"), ("opt", "model.decoder.final_layer_norm")],
)
def test_nor_may_a_last_norm_be_drawn_at_random(tmp_path, tiny_model, family, lost):
    shutil.copytree(tiny_model, tmp_path / "base")
    tiny(family).save_pretrained(tmp_path / "base")
    rewrite(tmp_path / "base", lambda name: None if name.startswith(lost) else name)
    assert f"of the base model ({lost}" in refusal(tmp_path / "base")


@pytest.mark.parametrize(
    ("prefix", "by"),
    [("_orig_mod.", ", which torch.compile puts"), ("module.", ", which DataParallel puts"), ("net.", "")],
)
def test_a_prefix_of_all_names_is_named(folder, prefix, by):
    rewrite(folder, lambda name: prefix + name)
    told = refusal(folder)
    assert f'those in the file have "{prefix}" before their names{by}' in told
    assert "lack 69 tensors of the base model" in told


def test_a_base_alone_with_a_wrappers_prefix_is_named_too(folder):
    rewrite(folder, lambda name: name.replace("bert.", "_orig_mod.") if name.startswith("bert.") else None)
    assert 'have "_orig_mod." before their names, which torch.compile puts there' in refusal(folder)


def test_a_head_of_another_size_is_drawn_anew_and_told(folder):
    found = load_base(folder, **OPTIONS, config_overrides=labelled(5))
    assert found.spec.head == ("classifier",)
    assert found.module.classifier.weight.shape == (5, 32)
    assert found.notes == (
        "The checkpoint has a head of another size (classifier.weight: 3 by 32, but 5 by 32 is needed); the tensors "
        "that do not fit start from random values.",
    )
    again, other = (load_base(folder, **{**OPTIONS, "seed": seed}, config_overrides=labelled(5)) for seed in (0, 1))
    assert torch.equal(again.module.classifier.weight, found.module.classifier.weight)
    assert not torch.equal(other.module.classifier.weight, found.module.classifier.weight)


def test_a_head_that_fits_in_part_is_trained_whole(tmp_path, tiny_model):
    shutil.copytree(tiny_model, tmp_path / "base")
    tiny("distilbert").save_pretrained(tmp_path / "base")
    rewrite(tmp_path / "base", lambda name: None if name.startswith("pre_classifier") else name)
    found = load_base(tmp_path / "base", **OPTIONS, config_overrides=labelled(5))
    assert sorted(found.spec.head) == ["classifier", "pre_classifier"]


@pytest.mark.parametrize(
    ("family", "pooler"), [("bert", "bert.pooler"), ("albert", "albert.pooler"), ("mobilebert", "mobilebert.pooler")]
)
def test_a_pooler_that_pretraining_had_no_use_for_is_trained_with_the_head_and_told(
    tmp_path, tiny_model, family, pooler
):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    sizes = {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16, "hidden_size": 32}
    config = (
        AutoConfig.for_model(
            family, vocab_size=64, num_hidden_layers=2, num_attention_heads=2, classifier_activation=True, **sizes
        )
        if family == "mobilebert"
        else tiny(family).config
    )
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    found = load_base(folder, **OPTIONS)
    assert any(name.startswith(pooler) for name in found.spec.head)
    assert found.notes == (
        f"The checkpoint lacks {pooler}; it starts from random values and is trained with the head.",
    )


def test_layers_that_are_left_out_are_told(folder):
    configure(folder, num_hidden_layers=3)
    found = load_base(folder, **OPTIONS)
    assert len(found.spec.layers) == 3
    assert found.notes == (
        "The checkpoint holds 1 more layers than config.json describes (bert.encoder.layer.3); they are left out.",
    )


def test_so_are_those_of_a_base_saved_alone_and_tensors_that_have_no_place(folder):
    configure(folder, num_hidden_layers=2)
    rewrite(folder, lambda name: name.removeprefix("bert.") if name.startswith("bert.") else None)
    assert "holds 2 more layers than config.json describes" in load_base(folder, **OPTIONS).notes[0]
    rewrite(folder, lambda name: name.replace("2.output.dense", "1.output.gate").replace("layer.3", "layer.9"))
    told = load_base(folder, **OPTIONS).notes
    assert "holds 2 tensors in its layers that config.json does not describe" in told[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_checkpoint_of_any_family_is_taken_without_a_word(tmp_path, tiny_model, family):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    tiny(family).save_pretrained(folder)
    found = load_base(folder, **OPTIONS, config_overrides=labelled(3))
    assert found.notes == ()
    tiny(family).base_model.save_pretrained(folder)
    alone = load_base(folder, **OPTIONS, config_overrides=labelled(3))
    assert alone.notes == ()
    assert sorted(alone.spec.head) == sorted(found.spec.head)

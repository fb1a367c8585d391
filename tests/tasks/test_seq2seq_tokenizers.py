"""Tokenizers of sentencepiece that read sources and targets with vocabularies or marks of their own."""

import io
import json

import pandas as pd
import pytest
import torch
import transformers

from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.study.file import StudySpec
from autopeft.testing.tiny import SIZES, WRITING_FAMILIES
from tests.conftest import DTYPE

sentencepiece = pytest.importorskip("sentencepiece", reason="Marian's and M2M100's tokenizers need it")

SOURCES = [f"read {place} and {place * 7 % 30}" for place in range(30)]
TARGETS = [f"schreib {place}" for place in range(30)]


def pieces(path, texts):
    """Write a model of sentencepiece for those texts; returns its pieces but for marks."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 9), model_writer=made, vocab_size=40, hard_vocab_limit=False, minloglevel=2
    )
    path.write_bytes(made.getvalue())
    model = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    return [piece for piece in map(model.id_to_piece, range(model.get_piece_size())) if piece[0] != "<"]


def marian(folder):
    found = dict.fromkeys([*pieces(folder / "source.spm", SOURCES), *pieces(folder / "target.spm", TARGETS)])
    vocabulary = ["</s>", "<unk>", ">>deu<<", *found, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: place for place, piece in enumerate(vocabulary)}))
    names = {"source_spm": "source.spm", "target_spm": "target.spm", "vocab": "vocab.json"}
    return transformers.MarianTokenizer(**{key: str(folder / name) for key, name in names.items()})


def m2m_100(folder):
    found = dict.fromkeys(pieces(folder / "both.spm", [*SOURCES, *TARGETS]))
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *found]
    (folder / "vocab.json").write_text(json.dumps({piece: place for place, piece in enumerate(vocabulary)}))
    return transformers.M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "both.spm"))


def problem_of(folder, family, **task):
    """A study of a tiny model with such a tokenizer, as files."""
    tokenizer = {"marian": marian, "m2m_100": m2m_100}[family](folder)
    start = tokenizer.pad_token_id if family == "marian" else tokenizer.eos_token_id
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    options = {**SIZES, **WRITING_FAMILIES["bart"], **special, "decoder_start_token_id": start}
    size = len(tokenizer) + 8 * (family == "m2m_100")  # which has some tokens that stand for nothing
    config = transformers.AutoConfig.for_model(family, **options, vocab_size=size, forced_eos_token_id=None)
    torch.manual_seed(0)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    if family == "marian":
        model.final_logits_bias.data = torch.linspace(-1, 1, config.vocab_size)[None]
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    pd.DataFrame({"source": SOURCES, "target": TARGETS}).to_csv(folder / "rows.csv", index=False)
    content = {
        "name": "translates",
        "model": {"name_or_path": "model", "dtype": DTYPE},
        "task": {"kind": "seq2seq", **task},
        "data": {"train": "rows.csv"},
    }
    return Problem.from_spec(StudySpec.from_mapping(content, folder=folder), discover())


def tokens_of(problem, field):
    ids = problem.train.fields[field].of([0])[0].tolist()
    return problem.reader.tokenizer.convert_ids_to_tokens(ids)


def text_of(problem, field):
    """A row's text as its pieces spell it, and the marks around it."""
    tokens = tokens_of(problem, field)
    return "".join(token for token in tokens if "▁" in token or token.isalnum()).replace("▁", " ").strip(), tokens


@pytest.mark.filterwarnings("ignore:Recommended")  # of Marian's tokenizer, for sacremoses
def test_marians_targets_are_of_the_targets_pieces(tmp_path):
    problem = problem_of(tmp_path, "marian", prefix=">>deu<< ")
    row = problem.rows.train.iloc[0]
    read, tokens = text_of(problem, "input_ids")
    assert (read, tokens[0], tokens[-1]) == (row["source"], ">>deu<<", "</s>")
    written, tokens = text_of(problem, "labels")
    assert (written, tokens[-1]) == (row["target"], "</s>")
    assert tokens_of(problem, "decoder_input_ids")[0] == "<pad>"
    assert problem.task.limits.begin == (problem.reader.tokenizer.pad_token_id,)
    assert problem.base.module.final_logits_bias[0, 0] == -1
    texts = problem.task.write(problem.base.copy().eval(), problem.rows.test, problem.reader)
    assert len(texts) == len(problem.rows.test)
    assert not any("<pad>" in text for text in texts)


def test_codes_of_languages_stand_before_sources_and_targets(tmp_path):
    problem = problem_of(tmp_path, "m2m_100", source_language="en", target_language="de")
    row = problem.rows.train.iloc[0]
    read, tokens = text_of(problem, "input_ids")
    assert (read, tokens[0], tokens[-1]) == (row["source"], "__en__", "</s>")
    written, tokens = text_of(problem, "labels")
    assert (written, tokens[0], tokens[-1]) == (row["target"], "__de__", "</s>")
    assert tokens_of(problem, "decoder_input_ids")[:2] == ["</s>", "__de__"]
    tokenizer = problem.reader.tokenizer
    assert tokenizer.convert_ids_to_tokens(problem.task.limits.begin) == ["</s>", "__de__"]
    tokenizer.save_pretrained(tmp_path / "kept")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "kept")
    assert (again.src_lang, again.tgt_lang) == ("en", "de")

"""The model writes a text for a text: a translation, a summary, a corrected sentence."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field as Setting

from autopeft import (
    Encoded,
    Field,
    ModelError,
    Section,
    SpecError,
    Writing,
    WritingLimits,
    WritingOptions,
    token_fields,
)
from autopeft_seq2seq import forms, languages
from autopeft_seq2seq.translations import Translations

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    import pandas as pd

    from autopeft import Column, ParamValue, RowTokenizer

BEGIN, ENDS, LONGEST, POSITIONS = "begin", "ends", "longest_target", "positions"
"""Facts: tokens that the decoder begins with, tokens that end what it writes, how many it may write, and how many
positions it has."""
MOST, CUT, LANGUAGES = "max_target_length", "cut_targets", "languages"
"""Facts: the most tokens of a target that are learnt, how many targets have more, and the names of the two languages in
rows of translations."""

IGNORED = -100


class Options(WritingOptions):
    """Settings under [task]."""

    prefix: str = Setting("", max_length=4096)
    """Text before every source, such as T5's "summarize: " or "translate English to German: "."""
    source_language: str = Setting("", max_length=64)
    """The language of the texts to read: a code that the tokenizer knows, which mBART and NLLB need, and the key of the
    text in a column `translation`."""
    target_language: str = Setting("", max_length=64)
    """The language of the texts to write, likewise."""
    max_target_length: int | None = Setting(None, ge=2, le=2**16)
    """Most tokens of a target that are learnt; of a longer one, the beginning. Default: as many as for a source."""


class Seq2Seq(Writing):
    """What a model with an encoder and a decoder (T5, BART, Marian, Pegasus, mBART, M2M100) writes for a text.

    Each token of the target, including the tokenizer's marks, is learnt from the source and the tokens before it.
    """

    contract = 1
    kind = "seq2seq"
    auto_class = "AutoModelForSeq2SeqLM"
    peft_task_type = "SEQ_2_SEQ_LM"
    pipeline_tag = "text2text-generation"
    columns: tuple[Column, ...] = forms.TEXTS
    Options: ClassVar[type[Section]] = Options
    translations: Translations | None = None

    # Rows.

    def taking(self, named: Collection[str]) -> Self:
        """This task with a column of translations, if that is named, or with two columns of texts."""
        task = copy.copy(self)
        if forms.TRANSLATION in named:
            task.translations = Translations(self.options.source_language, self.options.target_language)
            task.columns = forms.translated(task.translations)
        return super(Seq2Seq, task).taking(named)

    def recognised(self, names: Sequence[str]) -> tuple[dict[str, str], str]:
        """The columns of the first form that a table has."""
        return forms.recognised(names)

    def facts_of(self, train: pd.DataFrame) -> dict[str, ParamValue]:
        """The names of the languages in rows of translations."""
        return {LANGUAGES: json.dumps(self.translations.keys)} if self.translations else {}

    def example(self) -> pd.DataFrame:
        """Words, and the same words backwards."""
        import pandas as pd

        said = [
            "a red rose",
            "the sky is blue today",
            "so it is",
            "what a fine day it is to be out",
            "well",
            "well well",
        ]
        texts = [f"{'well ' * count}{text}" for count in range(2) for text in said]
        return pd.DataFrame({"source": texts, "target": [" ".join(text.split()[::-1]) for text in texts]})

    def truths(self, rows: pd.DataFrame) -> np.ndarray:
        """The targets, an object array `[rows]`; "" if the rows have none."""
        import numpy as np

        found = np.full(len(rows), "", dtype=object)
        if "target" in rows:
            found[:] = rows["target"]
        return found

    def untrained(self, rows: pd.DataFrame) -> dict[str, list[str]]:
        """The sources themselves: no model should score below them."""
        return {"source copied": [*rows["source"]]}

    # The model.

    def facts_of_config(self, config: Any) -> dict[str, ParamValue]:
        """Nothing; but refuse a model without an encoder or without a decoder.

        Raises:
            ModelError: one of them is missing.
        """
        import transformers

        own = getattr(config, "auto_map", None) or {}
        known = type(config) in transformers.AutoModelForSeq2SeqLM._model_mapping or self.auto_class in own
        if known and config.is_encoder_decoder:
            return {}
        masked = type(config) in transformers.AutoModelForMaskedLM._model_mapping
        causal = type(config) in transformers.AutoModelForCausalLM._model_mapping
        forward = causal and (not masked or getattr(config, "is_decoder", False))
        does = "continues a text" if forward else "fills in words of a text" if masked else "does not"
        raise ModelError(
            f"[model] name_or_path must be a model that reads one text and writes another, such as T5, BART or Marian, "
            f"but {config.model_type} {does}; give another model{', or set the kind causal-lm' if forward else ''}."
        )

    def facts_of_model(self, model: Any, rows: pd.DataFrame, reader: RowTokenizer) -> dict[str, ParamValue]:
        """The tokens that begin and end a written text, and how long targets are in the training rows.

        Raises:
            ModelError: the model's losses cannot be computed, or its decoder begins or ends in an unknown way.
            SpecError: a language is not known, or `max_target_length` is more than the decoder's positions.
        """
        from autopeft import decoder_start  # it needs torch

        super().facts_of_model(model, rows, reader)
        asked = self.options.source_language, self.options.target_language
        languages.check(reader.tokenizer, *asked, choosing=self.translations is not None)
        self.prepare(reader)
        before, behind = reader.target_marks()
        if not behind:
            raise ModelError(
                f"[model] name_or_path: the tokenizer must put a mark behind a text to write, or a model never learns "
                f"to end it, but {type(reader.tokenizer).__name__} puts none; give another model."
            )
        places = _places(model.config)
        most = self._most(reader, places, len(before) + len(behind))
        targets = reader.targets([*rows["target"]], most)
        start = decoder_start(model, targets.columns["input_ids"][targets.offsets[1:] - 1])
        own = reader.tokenizer.eos_token_id
        lengths = targets.offsets[1:] - targets.offsets[:-1]
        return {
            BEGIN: json.dumps([start, *before]),
            ENDS: json.dumps([*dict.fromkeys([behind[0], *([] if own is None else [own])])]),
            LONGEST: min(self.longest(lengths), places - len(before) - 1) if places else self.longest(lengths),
            POSITIONS: places,
            MOST: most,
            CUT: int((targets.whole > lengths).sum()),
        }

    def _most(self, reader: RowTokenizer, places: int, marks: int) -> int:
        """The most tokens of a target."""
        asked = self.options.max_target_length
        if asked is not None and places and asked > places:
            raise SpecError(
                f"`max_target_length` in [task] must be at most {places}, the number of positions of the model's "
                f"decoder, but got {asked}; lower it."
            )
        if asked is not None and asked <= marks:
            raise SpecError(
                f"`max_target_length` in [task] must be at least {marks + 1}, as the tokenizer adds {marks} tokens of "
                f"its own, but got {asked}; raise it."
            )
        return asked or min(reader.max_length, places or reader.max_length)

    @property
    def notes(self) -> tuple[str, ...]:
        """The languages in rows of translations, and how many targets are too long to be learnt as a whole."""
        told = []
        if LANGUAGES in self.facts:
            first, second = json.loads(str(self.facts[LANGUAGES]))
            told.append(f'Rows are translated from "{first}" to "{second}".')
        if count := int(self.facts.get(CUT, 0)):
            told.append(
                f"{count} training target{'s have' if count > 1 else ' has'} more than {self.facts[MOST]} tokens; only "
                "the beginning is learnt. `max_target_length` in [task] sets how much."
            )
        return tuple(told)

    @property
    def limits(self) -> WritingLimits:
        """The limits that the training rows set."""
        begin, ends = (tuple(map(int, json.loads(str(self.facts[name])))) for name in (BEGIN, ENDS))
        return WritingLimits(int(self.facts[LONGEST]), ends, int(self.facts[POSITIONS]) or None, begin)

    # Tensors.

    def encode(self, rows: pd.DataFrame, reader: RowTokenizer, labels: Sequence[str]) -> Encoded:
        """Tokens of sources, tokens of targets, and the same one position later for the decoder to read."""
        import numpy as np

        sources = self._sources(rows, reader)
        start = self.limits.begin[0]
        targets = np.full(len(rows), IGNORED, np.int32)
        offsets = np.arange(len(rows) + 1)
        if "target" in rows:
            found = reader.targets([*rows["target"]], int(self.facts[MOST]))
            targets, offsets = found.columns["input_ids"], found.offsets
        read = np.concatenate([targets[:1], targets[:-1]])
        read[offsets[:-1]] = start
        pad = reader.tokenizer.pad_token_id
        fields = {
            **token_fields({"input_ids": sources.columns["input_ids"]}, sources.offsets, pad),
            "decoder_input_ids": Field(read, offsets, pad),
            "labels": Field(targets, offsets, IGNORED),
        }
        return Encoded(
            fields,
            self.truths(rows),
            axis="input_ids",
            beside="labels",
            units=np.diff(offsets),
            whole=sources.whole,
        )

    def prepare(self, reader: RowTokenizer) -> None:
        """Have the tokenizer put the languages' codes beside texts, if it knows them."""
        languages.speak(reader.tokenizer, self.options.source_language, self.options.target_language)

    def _sources(self, rows: pd.DataFrame, reader: RowTokenizer) -> Any:
        self.prepare(reader)
        return reader([f"{self.options.prefix}{text}" for text in rows["source"]])

    def told(self, rows: pd.DataFrame, reader: RowTokenizer) -> list[str]:
        """How many sources are cut."""
        return reader.told(self.encode(rows[["source"]], reader, ()).truncated)

    def prompts(self, rows: pd.DataFrame, reader: RowTokenizer) -> list[np.ndarray]:
        """The tokens of each source."""
        import numpy as np

        found = self._sources(rows, reader)
        return np.split(found.columns["input_ids"], found.offsets[1:-1])

    def code(self, sample: Mapping[str, Sequence[Any]]) -> str:
        """The sources with their prefix; then `generate`."""
        limits, texts = self.limits, [f"{self.options.prefix}{text}" for text in sample["source"]]
        begin = [*limits.begin]
        return (
            f"sources = {json.dumps(texts, ensure_ascii=False)}\n"
            'inputs = tokenizer(sources, padding=True, padding_side="right", truncation=True, return_tensors="pt")\n'
            f'begin = inputs["input_ids"].new_tensor([{begin}] * len(sources))  # of what is written\n'
            f"tokens = model.generate(**inputs, decoder_input_ids=begin, decoder_start_token_id={begin[0]}, "
            f"max_new_tokens={limits.new},\n"
            f"    eos_token_id={[*limits.ends]}, suppress_tokens=[*{{tokenizer.pad_token_id}} - {set(limits.ends)}],\n"
            "    num_beams=1, do_sample=False)\n"
            f"texts = tokenizer.batch_decode(tokens[:, {len(begin)} :], skip_special_tokens=True)\n"
        )


def _places(config: Any) -> int:
    """The most tokens that a model's decoder can read; 0 if there is no limit."""
    text = config.get_text_config(decoder=True)
    found = getattr(text, "max_decoder_position_embeddings", None) or getattr(text, "max_position_embeddings", None)
    return int(found or 0)

"""One label for a text, or for two, from the word that a pretrained language model would give."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field as Setting

from autopeft import (
    ByHand,
    Classification,
    ClassOptions,
    Column,
    DataError,
    Encoded,
    Field,
    ModelError,
    Section,
    quoted,
    token_fields,
)
from autopeft_prompts.template import DEFAULTS, Parts, taken_apart
from autopeft_prompts.words import Vocabulary, chosen, named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import torch

    from autopeft import ParamValue, RowTokenizer

CLASSES = {"masked": "AutoModelForMaskedLM", "causal": "AutoModelForCausalLM"}
TYPES = {"masked": None, "causal": "CAUSAL_LM"}
MODEL, WORDS, IDS, MASK = "model", "words", "word_ids", "mask_token"
"""Facts: the form of the model, the word of each label and its token, and the text of the mask."""


class Options(ClassOptions):
    """Settings under [task] in addition to those of the loss."""

    template: str = Setting("", max_length=4096)
    """What the model reads: a text with `{text}`, with `{text_pair}` if [data] names that column, and with `{mask}` in
    the place of the word, which for a causal model is the end. Default: "{text} It was {mask}.", for a causal model
    "{text}\\nLabel:"."""
    words: dict[str, str] = Setting({})
    """The word of each label, which must be one token. Default: the label's own name if that is one token, else the
    word that best separates the label's training rows from others before any training."""
    model: Literal["auto", "masked", "causal"] = "auto"
    """Whether the model fills in masked words or continues a text. Default: as it was pretrained."""


class PromptClassification(Classification):
    """One of several labels, by the logits of a word for each at one place of the text (Gao et al. 2021, PET).

    Nothing is trained from scratch: a label's logit is that of its word in the pretrained head, which stays as it is.
    From few rows this learns more than a new head does.
    """

    contract = 1
    kind = "prompt-classification"
    auto_class = CLASSES["masked"]
    new_head = False
    taught = ("labels", "word_at")
    columns = (Column("text"), Column("text_pair", optional=True), Column("label", "label", given=False))
    Options: ClassVar[type[Section]] = Options

    @property
    def texts(self) -> int:
        """One: the template joins the texts of a row."""
        return 1

    @property
    def form(self) -> str:
        """Masked or causal; masked as long as the model is not known."""
        given = getattr(self.options, "model", "auto")
        return str(self.facts.get(MODEL, "masked")) if given == "auto" else given

    @property
    def auto_classes(self) -> tuple[str, ...]:
        """Both classes as long as the model is not known."""
        known = MODEL in self.facts or getattr(self.options, "model", "auto") != "auto"
        return (self.auto_class,) if known else tuple(CLASSES.values())

    def configured(self, options: Mapping[str, Any]) -> Self:
        """This task with the class of models that the settings name."""
        return super().configured(options)._formed()

    def knowing(self, facts: Mapping[str, ParamValue], names: Sequence[str] = ()) -> Self:
        """This task with the class of the model, and the words of the labels.

        Raises:
            DataError: they are not as they were saved.
        """
        if facts.get(MODEL, "masked") not in CLASSES:
            raise DataError(
                f"{self.kind} must know whether its model is masked or causal, but knows {facts[MODEL]!r}; train "
                "it again, or restore the winner's files."
            )
        if IDS in facts:
            _check_ids(facts, names)
        return super().knowing(facts, names)._formed()

    def _formed(self) -> Self:
        self.auto_class, self.peft_task_type = CLASSES[self.form], TYPES[self.form]
        return self

    @property
    def _parts(self) -> Parts:
        """The parts of the template, for the model's form and the columns that are read."""
        template = self.options.template or DEFAULTS[self.form, len(self.inputs)]
        return taken_apart(template, self.form, self.inputs)

    def example(self) -> pd.DataFrame:
        """Words of praise and of blame."""
        import pandas as pd

        praise, blame = ("good", "fine", "a joy to use", "well made"), ("bad", "poor", "broken on the first day")
        said = [*((words, "praise") for words in praise * 2), *((words, "blame") for words in blame * 2)]
        return pd.DataFrame({"text": [f"this is {words}" for words, _ in said], "label": [label for _, label in said]})

    # The model.

    def facts_of_config(self, config: Any) -> dict[str, ParamValue]:
        """The form of the model: masked if transformers has a masked class for it and it is not set up as a decoder.

        Raises:
            ModelError: it has neither form.
            SpecError: the template does not suit it.
        """
        import transformers

        given = self.form if self.options.model != "auto" else None
        there = {
            form: type(config) in getattr(transformers, name)._model_mapping
            or name in (getattr(config, "auto_map", None) or {})
            for form, name in CLASSES.items()
        }
        forward = there["causal"] and (not there["masked"] or getattr(config, "is_decoder", False))
        form = given or ("causal" if forward else "masked")
        if not there[form]:
            raise ModelError(
                f"[model] name_or_path must be a language model{f' of the form {given!r}' if given else ''}, for which "
                f"transformers has {' or '.join([CLASSES[form]] if given else CLASSES.values())}, but there is none "
                f"for {config.model_type}; give another model."
            )
        taken_apart(self.options.template or DEFAULTS[form, len(self.inputs)], form, self.inputs)
        return {MODEL: form}

    def facts_of_model(self, model: Any, rows: pd.DataFrame, reader: RowTokenizer) -> dict[str, ParamValue]:
        """The word of each label; see `Options.words`.

        Raises:
            SpecError: a given word cannot be used.
            ModelError: the tokenizer has no mask, or the model's head cannot be cut down to words.
        """
        from autopeft_prompts.head import check

        _require_mask(reader.tokenizer, self.form)
        parts = self._parts
        vocabulary = Vocabulary(reader.tokenizer, parts.context, spaced=parts.spaced)
        words = named(vocabulary, self.names, self.options.words)
        if missing := [label for label in self.names if label not in words]:
            from autopeft_prompts.gains import gains

            places = [self.names.index(label) for label in missing]
            data = self.encode(rows, reader, self.names)
            table = gains(model, data, places, self.taught, "word_at")
            words |= chosen(vocabulary, table, missing, list(words.values()))
        found = [words[label] for label in self.names]
        ids = [vocabulary.tokens(word)[0] for word in found]
        check(model, ids)
        told: dict[str, ParamValue] = {WORDS: json.dumps(found, ensure_ascii=False), IDS: json.dumps(ids)}
        return {**told, MASK: reader.tokenizer.mask_token} if self.form == "masked" else told

    @property
    def notes(self) -> tuple[str, ...]:
        """The words that were chosen for labels, where none was given and the label is not a word itself."""
        if WORDS not in self.facts:
            return ()
        words = zip(self.names, json.loads(str(self.facts[WORDS])), strict=True)
        found = [
            f"{quoted(label)}: {quoted(word)}" for label, word in words if label not in {*self.options.words, word}
        ]
        return (f"Words of labels, chosen on training rows: {', '.join(found)}.",) if found else ()

    def adapt(self, model: Any) -> None:
        """Cut the head down to the words, if they are known."""
        if IDS in self.facts:
            from autopeft import OutputHead
            from autopeft_prompts.head import WordHead

            WordHead(OutputHead.map_of(model), self._ids).put_on(model)

    def restore(self, model: Any) -> None:
        """Put the whole head back."""
        from autopeft_prompts.head import WordHead

        WordHead.take_off(model)

    @property
    def _ids(self) -> list[int]:
        found: list[int] = json.loads(str(self.facts[IDS]))
        return found

    # Tensors.

    def encode(self, rows: pd.DataFrame, reader: RowTokenizer, labels: Sequence[str]) -> Encoded:
        """Texts in their template; if they are too long, they are cut, not the template."""
        import numpy as np

        _require_mask(reader.tokenizer, self.form)
        parts, masked = self._parts, self.form == "masked"
        middle = [reader.tokenizer.mask_token_id] if masked else []
        tokens = reader.filled(parts.before.of(rows), parts.behind.of(rows), middle, closed=masked)
        truths = self.truths(rows, labels)
        fields = {
            **token_fields(tokens.columns, tokens.offsets, reader.tokenizer.pad_token_id),
            "labels": Field(truths),
            "word_at": Field(np.asarray(tokens.answered_at)),
        }
        return Encoded(fields, truths, axis="input_ids", whole=tokens.whole)

    # Learning and answers.

    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy over only the words of labels, in float32; see `ClassOptions`."""
        return super().loss(_there(outputs, batch), batch)

    def answer(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Probabilities `[rows, labels]`, float32."""
        return super().answer(_there(outputs, batch), batch)

    def by_hand(self, sample: Mapping[str, Sequence[Any]], export: str) -> ByHand:
        """Texts in the template, and the logits of the labels' words at the word's place."""
        import pandas as pd

        parts, rows = self._parts, pd.DataFrame(sample)
        halves = [[part.of(rows).of(row)[0] for row in range(len(rows))] for part in (parts.before, parts.behind)]
        between = f"{' ' * parts.spaced}{self.facts.get(MASK, '')}" if self.form == "masked" else ""
        texts = [f"{before}{between}{behind}" for before, behind in zip(*halves, strict=True)]
        words = "" if export == "onnx" else f"[:, {self._ids}]"
        if self.form == "masked":
            there = 'inputs["input_ids"] == tokenizer.mask_token_id'
            return ByHand([texts], ", split_special_tokens=False", f"logits = logits[{there}]{words}")
        there = 'range(len(logits)), inputs["attention_mask"].sum(1) - 1'
        return ByHand([texts], "", f"logits = logits[{there}]{words}")


class _Logits:
    """Outputs that have only logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


def _there(outputs: Any, batch: Mapping[str, torch.Tensor]) -> _Logits:
    """The logits of the labels' words at the word's place: `[rows, length, labels]` → `[rows, labels]`."""
    at = batch["word_at"][:, None, None].expand(-1, 1, outputs.logits.shape[-1])
    return _Logits(outputs.logits.gather(1, at)[:, 0])


def _require_mask(tokenizer: Any, form: str) -> None:
    if form == "masked" and tokenizer.mask_token_id is None:
        raise ModelError(
            "[model] name_or_path must have a tokenizer with a mask token, as the model fills in a masked word, but it "
            'has none; give another model, or set `model = "causal"` in [task].'
        )


def _check_ids(facts: Mapping[str, ParamValue], names: Sequence[str]) -> None:
    """Make sure that there is a word for each label."""
    try:
        found = [json.loads(str(facts[name])) for name in (WORDS, IDS)]
    except (KeyError, ValueError):
        found = []
    whole = len(found) == 2 and all(isinstance(one, list) and len(one) == len(names) for one in found)
    if not whole or not all(type(token) is int and token >= 0 for token in found[1]):
        raise DataError(
            f"prompt-classification must know a word for each of {len(names)} labels (`{WORDS}` and `{IDS}`), but does "
            "not; train it again, or restore the winner's files."
        )

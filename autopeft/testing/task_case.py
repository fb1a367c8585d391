"""A kind of task on a tiny model of its class, with its own example rows."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from autopeft.data.cell_readers import fillable, readers
from autopeft.data.cells import Texts
from autopeft.models.device import Device
from autopeft.models.image_reader import ImageReader
from autopeft.models.pair_reader import PairReader
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.tasks.contract import Task
from autopeft.testing.tiny import FAMILIES, IMAGE_FAMILIES, PAIR_FAMILIES, PATCH, SIDE, SIZES, WRITING_FAMILIES
from autopeft.training.learner import evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import nn

    from autopeft.data.encoded import Encoded
    from autopeft.models.reader import Reader

CPU = Device("cpu", None)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST = 64


def families_of(task: Task) -> Mapping[str, Mapping[str, Any]]:
    """Model types that read the task's kind of rows and have its class, with what their configurations need."""
    import transformers

    families = {"AutoImageProcessor": IMAGE_FAMILIES, "AutoProcessor": PAIR_FAMILIES}.get(task.processor, FAMILIES)
    if task.auto_class == "AutoModelForSeq2SeqLM":
        return WRITING_FAMILIES
    classes = [getattr(transformers, name) for name in task.auto_classes]
    known = {config.model_type for one in classes for config in one._model_mapping}
    if task.writes:  # transformers also lists encoders, which it can configure as decoders
        known -= {config.model_type for config in transformers.AutoModelForMaskedLM._model_mapping}
        known -= {"qwen2"}  # transformers loads a saved tokenizer of words as Qwen's, which knows none of them
    return {name: options for name, options in families.items() if name in known}


def words_of(cell: object) -> set[str]:
    """The words of a text, or of all texts in a cell that holds several."""
    if isinstance(cell, str):
        return {*cell.split()}
    return {word for one in cell for word in words_of(one)} if isinstance(cell, tuple | list) else set()


class TaskCase:
    """A kind of task with rows and a tiny model, for the rules about tasks.

    Args:
        task: the kind; it gets its default settings if it has none yet.
        family: of the tiny model: a model type for which transformers has the task's class. Default: the first.
    """

    def __init__(self, task: Task, family: str | None = None) -> None:
        self.family = family or next(iter(families_of(task)))
        rows: pd.DataFrame = task.example().reset_index(drop=True)
        task = task.configured({}) if task.options is None else task
        task = task.taking([*rows.columns])
        read = readers(task.columns, None)
        texts = Texts(others=read, fillable=fillable(task.columns))
        made = {key: pd.Series(texts.of(key, rows[key]), dtype=object) for key in read.keys() & {*rows.columns}}
        texts.check("the example", {key: key for key in made})
        self.rows = task.gathered(rows.assign(**made), "the example")
        self.labels, self._inputs = task.labels(self.rows, self.rows), task.inputs
        task = task.knowing(task.facts_of(self.rows), self.labels)
        self.task = task.knowing({**task.facts, **task.facts_of_config(self._config(task))}, self.labels)
        if type(task).facts_of_model is not Task.facts_of_model:
            told = self.task.facts_of_model(self._built, self.rows, self.reader)
            self.task = self.task.knowing({**self.task.facts, **told}, self.labels)

    @functools.cached_property
    def reader(self) -> Reader:
        """The reader of the example rows: a tokenizer of their words, an image processor for tiny images, or both."""
        if self.task.processor == "AutoProcessor":
            from transformers import VisionTextDualEncoderProcessor

            images, texts = self._image_reader(), self._tokenizer()
            return PairReader(VisionTextDualEncoderProcessor(images.processor, texts.processor), images, texts)
        return self._image_reader() if self.task.processor == "AutoImageProcessor" else self._tokenizer()

    def _image_reader(self) -> ImageReader:
        from transformers import ViTImageProcessorPil

        return ImageReader(ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}), PATCH)

    def _tokenizer(self) -> RowTokenizer:
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        vocabulary = {word: place for place, word in enumerate([*SPECIAL, *self._words])}
        made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
        )
        names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
        if self.task.writes:
            names["eos_token"] = "[SEP]"
        return RowTokenizer(PreTrainedTokenizerFast(tokenizer_object=made, **names), LONGEST)

    @functools.cached_property
    def _words(self) -> list[str]:
        """The words of the inputs and of the labels."""
        words = {word for name in self._inputs for cell in self.rows[name] for word in words_of(cell)}
        return sorted({*words, *(word for label in self.labels for word in label.split())})

    @functools.cached_property
    def data(self) -> Encoded:
        """The example rows, encoded."""
        return self.encode(self.rows)

    def encode(self, rows: pd.DataFrame) -> Encoded:
        """Encode some of the example rows, or some columns of them."""
        return self.task.encode(rows, self.reader, self.labels)

    @functools.cached_property
    def model(self) -> nn.Module:
        """The tiny model, with random weights, all of them trainable."""
        self.task.adapt(self._built)
        return self._built

    def _config(self, task: Task) -> Any:
        """The configuration of the tiny model."""
        import transformers

        options = {**families_of(task)[self.family]}
        ends = {"pad_token_id": 0, "eos_token_id": SPECIAL.index("[SEP]")}  # T5 reads a row where it ends
        words = {"vocab_size": len(self._words) + len(SPECIAL), **ends}
        if task.processor == "AutoProcessor":
            options["text_config"] = {**words, **options["text_config"]}
        else:
            options = {**(words if task.processor == "AutoTokenizer" else {}), **SIZES, **options}
        return transformers.AutoConfig.for_model(self.family, **options, **task.config(self.labels))

    @functools.cached_property
    def _built(self) -> nn.Module:
        """The tiny model as transformers makes it."""
        import transformers

        transformers.logging.set_verbosity_error()
        config = self._config(self.task)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made: nn.Module = getattr(transformers, self.task.auto_class).from_config(config)
        for parameter in made.parameters():  # what transformers draws is so small that outputs would barely differ
            if parameter.ndim > 1:
                parameter.data *= 3
        return made.eval()

    def outputs(self, rows: np.ndarray) -> tuple[Any, dict[str, torch.Tensor]]:
        """The model's outputs for those rows, and their batch."""
        batch = self.data.batch(rows)
        with CPU.kernels(), torch.no_grad():
            return self.task.run(self.model, batch), batch

    def answers(self, rows: np.ndarray, most: int = 32) -> np.ndarray:
        """The answers to those rows, in their order."""
        return evaluate(self.model, self.data, [rows], self.task, CPU, most)[0]

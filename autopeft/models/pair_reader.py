"""How rows of an image and a text become arrays, for models with a tower for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch

from autopeft.common.exceptions import ModelError, in_a_line
from autopeft.models.image_reader import ImageReader, Pixels
from autopeft.models.modes import as_kept
from autopeft.models.reader import Reader
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.models.token_cache import CachedRowTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from autopeft.common.truncation import Truncation
    from autopeft.models.image_reader import Picture
    from autopeft.models.token_rows import TokenRows
    from autopeft.study.card import Card
    from autopeft.study.sections import ModelSection


FAR = 0.05
"""Difference in a coordinate of a vector of length 1 that rounding does not explain."""


class Pairs(NamedTuple):
    """Rows as images of one size and as tokens."""

    pixels: Pixels
    tokens: TokenRows


class PairReader(Reader):
    """An image processor and a tokenizer, with the settings of an `ImageReader` and a `RowTokenizer`.

    The model's towers must have their names in transformers, `vision_model` and `text_model`.

    Args:
        processor: of transformers, with the two as `image_processor` and `tokenizer`.
        images: for the images.
        texts: for the texts.
    """

    unit: ClassVar[str] = "tokens"
    hint: ClassVar[str] = RowTokenizer.hint
    advice: ClassVar[str] = "give a smaller `max_length` or another `image_size` in [model]"
    free: ClassVar[tuple[int, ...]] = RowTokenizer.free
    tokenizing: ClassVar[type[RowTokenizer]] = RowTokenizer

    def __init__(self, processor: Any, images: ImageReader, texts: RowTokenizer) -> None:
        self.processor, self.images, self.texts = processor, images, texts
        processor.image_processor, processor.tokenizer = images.processor, texts.processor

    @classmethod
    def load(cls, location: Path | str, **origin: Any) -> Any:
        """The model's processor, with Pillow for its images."""
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(location, **origin)
        if not all(hasattr(processor, name) for name in ("image_processor", "tokenizer")):
            raise ModelError(
                f"[model] name_or_path: {location} must have an image processor and a tokenizer, but has only a "
                f"{type(processor).__name__}; save both beside the model."
            )
        processor.image_processor = ImageReader.load(location, **origin)
        return processor

    @classmethod
    def prepare(cls, processor: Any, *models: nn.Module) -> None:
        """Complete the tokenizer; see `RowTokenizer.prepare`."""
        RowTokenizer.prepare(processor.tokenizer, *models)

    @classmethod
    def check(cls, processor: Any, model: Any, columns: int, where: str) -> None:
        """Make sure that the tower for texts has an embedding for every token."""
        RowTokenizer.check(processor.tokenizer, model.text_model, columns, where)

    @classmethod
    def of_study(cls, processor: Any, model: Any, section: ModelSection, columns: int) -> Self:
        """Make a reader with `max_length` and `image_size` in [model]; the model is tried on two rows."""
        vision, text = _towers(model)
        of_images = section.model_copy(update={"max_length": None, "truncation": None})
        of_texts = section.model_copy(update={"image_size": None})
        images = ImageReader.of_study(processor.image_processor, vision, of_images, 1)
        reader = cls(processor, images, cls.tokenizing.of_study(processor.tokenizer, text, of_texts, columns))
        try:
            example = reader.example(columns)
            here = (example["input_ids"] != reader.texts.tokenizer.pad_token_id).long()
            off = _padding_tells(model, {"attention_mask": here, **example})  # some tokenizers make no mask
        except Exception as error:  # a tower may be any model
            raise ModelError(
                f"[model] name_or_path: {type(model).__name__} must make one vector from an image and one from a text, "
                f"but cannot ({in_a_line(error)}); give it encoders that do, such as ViT, DINOv2 or CLIP, and BERT or "
                "MPNet."
            ) from error
        if off > FAR:
            raise ModelError(
                f"[model] name_or_path: {type(model).__name__} gives a padded text a different vector than the "
                "text alone, so it cannot be used; take another model, such as CLIP."
            )
        return reader

    @classmethod
    def of_winner(cls, processor: Any, model: Any, card: Card, where: str) -> Self:
        """Make a reader with the card's settings."""
        vision, text = _towers(model)
        images = ImageReader.of_winner(processor.image_processor, vision, card, where)
        return cls(processor, images, cls.tokenizing.of_winner(processor.tokenizer, text, card, where))

    @property
    def settings(self) -> dict[str, Any]:
        """How long a text may be, and the side of an image."""
        return {**self.images.settings, **self.texts.settings}

    def __call__(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Pairs:
        """The rows as pixels and tokens.

        Raises:
            DataError: an image cannot be read, their sizes differ after processing, or memory is too small.
        """
        return Pairs(self.images(pictures), self.texts(texts))

    def save(self, folder: Path) -> None:
        """Write a processor that `AutoProcessor` reads."""
        self.processor.save_pretrained(str(folder))
        self.images.save(folder)
        self.texts.save(folder)

    def standalone(self) -> Self:
        """A reader whose processor cuts texts and makes images as this reader does."""
        processor = type(self.processor)(image_processor=self.images.processor, tokenizer=self.texts.processor)
        return type(self)(processor, self.images.standalone(), self.texts.standalone())

    def cells(self) -> list[Any]:
        """The files of two grey images."""
        return self.images.cells()

    def example(self, columns: int) -> dict[str, torch.Tensor]:
        """Two rows."""
        return {**self.texts.example(columns), **self.images.example(1)}

    def free_of(self, name: str) -> tuple[int, ...]:
        """The rows, and for texts also the length."""
        return self.images.free if name == "pixel_values" else self.texts.free

    def told(self, truncated: Truncation) -> list[str]:
        """Sentences about images and texts."""
        return [*self.images.told(truncated), *self.texts.told(truncated)]


class CachedPairReader(PairReader):
    """Takes the tokens of texts that it has seen before from the disk."""

    tokenizing: ClassVar[type[RowTokenizer]] = CachedRowTokenizer


def _padding_tells(model: Any, rows: dict[str, torch.Tensor]) -> float:
    """The largest difference in a coordinate between the first row's text alone and padded.

    The model is run in the precision of its weights.
    """
    place = next(model.parameters()).device
    held = rows["attention_mask"][0].bool()
    alone = {name: rows[name][:1] if name == "pixel_values" else rows[name][:1, held] for name in rows}
    with torch.inference_mode(), as_kept(model):
        padded, whole = (
            model(**{name: tensor.to(place) for name, tensor in some.items()}).text_embeds[0].float()
            for some in (rows, alone)
        )
    return float((padded - whole).abs().max())


def _towers(model: Any) -> tuple[Any, Any]:
    """The encoder of images, and the encoder of texts.

    Raises:
        ModelError: the model has no such parts.
    """
    towers = getattr(model, "vision_model", None), getattr(model, "text_model", None)
    if None in towers:
        raise ModelError(
            f"[model] name_or_path: {type(model).__name__} must have an image encoder and a text encoder, but does "
            "not; take a VisionTextDualEncoderModel of transformers, which combines any two, or a CLIP model."
        )
    return towers

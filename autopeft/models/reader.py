"""How rows become arrays: by a processor of transformers, within the limits of the model and the study."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from autopeft.common.truncation import Truncation
    from autopeft.study.card import Card
    from autopeft.study.sections import ModelSection


class Reader(ABC):
    """A processor of transformers with a study's settings for it; tasks encode rows with one.

    Class attributes:
        unit: what the places of a row are called, such as "tokens".
        advice: what to do if a model fails on rows.
        hint: which settings decide what `told` reports.
        free: dimensions of the model's inputs that may have any size.

    Attributes:
        processor: of transformers, as `prepare` left it.
    """

    unit: ClassVar[str]
    advice: ClassVar[str]
    hint: ClassVar[str] = ""
    free: ClassVar[tuple[int, ...]]
    processor: Any

    @classmethod
    @abstractmethod
    def load(cls, location: Path | str, **origin: Any) -> Any:
        """The processor that comes with a model.

        Args:
            location: the model's local folder or hub id.
            origin: for `from_pretrained`: the revision, and what is trusted.
        """

    @classmethod
    def prepare(cls, processor: Any, *models: nn.Module) -> None:
        """Complete a loaded processor, and tell the models what they must know about it. Default: nothing."""
        return

    @classmethod
    def check(cls, processor: Any, model: Any, columns: int, where: str) -> None:
        """Make sure that the model can take whatever the processor makes of rows. Default: nothing to check.

        Raises:
            ModelError: it cannot; the sentence begins with `where`.
        """
        return

    @classmethod
    @abstractmethod
    def of_study(cls, processor: Any, model: Any, section: ModelSection, columns: int) -> Self:
        """Make a reader with the settings in [model], within the limits of the model and its processor.

        Args:
            processor: of the model.
            model: of transformers.
            section: the settings.
            columns: how many columns of a row it reads.

        Raises:
            SpecError: [model] asks for more than these limits.
            ModelError: no row can be read.
        """

    @classmethod
    @abstractmethod
    def of_winner(cls, processor: Any, model: Any, card: Card, where: str) -> Self:
        """Make a reader with the settings on a winner's card.

        Raises:
            UserInputError: the card asks for more than the model can; `where` names it.
        """

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What a winner's card must say about it: fields of `Card`."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the processor so that transformers can read it, with its settings here."""

    @abstractmethod
    def standalone(self) -> Self:
        """A reader whose processor alone does what this reader does, for users who only have the processor."""

    @abstractmethod
    def cells(self) -> list[Any]:
        """Two example cells of a column that it reads."""

    @abstractmethod
    def example(self, columns: int) -> dict[str, torch.Tensor]:
        """Two rows of this many columns, as inputs of the model."""

    def free_of(self, name: str) -> tuple[int, ...]:
        """Dimensions of one input of the model that may have any size. Default: `free`."""
        return self.free

    def told(self, truncated: Truncation) -> list[str]:
        """What the user should know about the rows that were read, a sentence each. Default: nothing."""
        return []

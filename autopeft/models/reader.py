"""How rows become arrays: with a processor of transformers, within the limits of the model and the study."""

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
    """A processor of transformers with what a study settles about it; tasks encode rows with one.

    Class attributes:
        unit: what the places of a row are called, such as "tokens".
        advice: what to do where a model fails on rows.
        hint: which settings say what `told` tells.
        free: dimensions of the model's inputs that are of any size.

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
        """The processor that a model brings.

        Args:
            location: of the model: a local folder or a hub id.
            origin: for `from_pretrained`: the revision, and what is trusted.
        """

    @classmethod
    def prepare(cls, processor: Any, *models: nn.Module) -> None:
        """Complete a processor as it was loaded, and tell the models what they must know of it. Default: nothing."""
        return

    @classmethod
    def check(cls, processor: Any, model: Any, columns: int, where: str) -> None:
        """Make sure that the model knows all that the processor makes of rows. Default: nothing to check.

        Raises:
            ModelError: it does not; the sentence begins with `where`.
        """
        return

    @classmethod
    @abstractmethod
    def of_study(cls, processor: Any, model: Any, section: ModelSection, columns: int) -> Self:
        """As [model] has it, within what the model and its processor can.

        Args:
            processor: of the model.
            model: of transformers.
            section: the settings.
            columns: how many a row gives.

        Raises:
            SpecError: [model] asks for more than that.
            ModelError: no row can be read.
        """

    @classmethod
    @abstractmethod
    def of_winner(cls, processor: Any, model: Any, card: Card, where: str) -> Self:
        """As a winner's card has it.

        Raises:
            UserInputError: the card asks for more than the model can; `where` names it.
        """

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What a winner's card must say of it: fields of `Card`."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the processor so that transformers reads it, set up as it is here."""

    @abstractmethod
    def standalone(self) -> Self:
        """A reader whose processor by itself does what this reader does, for those who have the processor alone."""

    @abstractmethod
    def cells(self) -> list[Any]:
        """Two cells of a column that it reads, to show what one is."""

    @abstractmethod
    def example(self, columns: int) -> dict[str, torch.Tensor]:
        """Two rows of so many columns, as the model takes them."""

    def free_of(self, name: str) -> tuple[int, ...]:
        """Dimensions of one input of the model that are of any size. Default: `free`."""
        return self.free

    def told(self, truncated: Truncation) -> list[str]:
        """What a person should know of the rows that were read, a sentence each. Default: nothing."""
        return []

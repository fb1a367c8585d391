"""The part of a kind of task about the base model: its class, facts about it, and how it is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import torch

    from autopeft.common.params import ParamValue


class ByHand(NamedTuple):
    """How to answer two rows without autopeft, for the READMEs of exports.

    Attributes:
        texts: the tokenizer's input, a list for each text of a row.
        arguments: more of the tokenizer's arguments, after a comma; or empty.
        then: Python code that turns `logits` and `inputs` into the logits that answers are made of.
    """

    texts: Sequence[Sequence[str]]
    arguments: str
    then: str


class BaseModelPart:
    """The part of `Task` that is about the base model; the class attributes are described there."""

    auto_class: str
    new_head: ClassVar[bool] = True
    taught: ClassVar[tuple[str, ...]]
    writes: ClassVar[bool] = False

    @property
    def auto_classes(self) -> tuple[str, ...]:
        """The classes that `auto_class` may be with these settings. Default: that one class."""
        return (self.auto_class,)

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """What the model's configuration must say. Default: nothing."""
        return {}

    def facts_of_config(self, config: Any) -> dict[str, ParamValue]:
        """Facts from the base model's configuration that `auto_class` needs, before the model is loaded.

        Default: none. They are kept with a winner, and are in `self.facts` from then on.

        Args:
            config: of transformers.

        Raises:
            UserInputError: no such model can do the task.
        """
        return {}

    def facts_of_model(self, model: Any, rows: pd.DataFrame, reader: Any) -> dict[str, ParamValue]:
        """Facts from the frozen base model that `adapt` or answers need. Default: none. They are kept too.

        Args:
            model: of transformers, as it was loaded; do not change it.
            rows: to train on, the task's columns by their keys.
            reader: the same as `encode` gets.

        Raises:
            UserInputError: the model cannot do the task.
        """
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about `facts` before the search begins, a sentence each. Default: nothing."""
        return ()

    def adapt(self, model: Any) -> None:
        """Change a loaded model before methods see it, using the facts of `facts_of_model`. Default: nothing.

        Do not copy tensors or write to them: put modules around the existing ones, which `restore` takes off again.
        The model may be on the meta device.
        """

    def restore(self, model: Any) -> None:
        """Undo `adapt`, so that the model can be saved in the form of transformers. Default: nothing."""

    def model_inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of a batch that the model takes: all but `taught`."""
        return {name: tensor for name, tensor in batch.items() if name not in self.taught}

    def run(self, model: Any, batch: Mapping[str, torch.Tensor]) -> Any:
        """The outputs that `loss` and `answer` get. Default: those of the model, for its inputs.

        They must be a mapping of tensors `[rows, …]` whose class can be built again from the same names.
        """
        return model(**self.model_inputs(batch))

    def by_hand(self, sample: Mapping[str, Sequence[Any]], export: str) -> ByHand | None:
        """How to answer those rows (`sample`) without autopeft. Default: None, the inputs as they are.

        Args:
            sample: two rows, a list of cells for each input.
            export: the format; in "onnx" the model is as `adapt` left it, in all others as transformers has it.
        """
        return None

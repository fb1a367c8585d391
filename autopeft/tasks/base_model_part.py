"""What a kind of task says of the base model: its class, what it tells the task, and how it is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import torch

    from autopeft.common.params import ParamValue


class ByHand(NamedTuple):
    """How two rows are answered without autopeft, for the READMEs of exports.

    Attributes:
        texts: what the tokenizer is given, a list for each text of a row.
        arguments: more of its arguments, after a comma; or nothing.
        then: Python that makes of `logits`, and of `inputs`, the logits that answers are made of.
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
        """The classes that `auto_class` may be with these settings. Default: the one."""
        return (self.auto_class,)

    def config(self, labels: Sequence[str]) -> dict[str, Any]:
        """What the model's configuration must say. Default: nothing."""
        return {}

    def facts_of_config(self, config: Any) -> dict[str, ParamValue]:
        """What the base model's configuration tells that `auto_class` needs, before the model is loaded.

        Default: nothing. It is kept with a winner, and is in `self.facts` from then on.

        Args:
            config: of transformers.

        Raises:
            UserInputError: no such model can do the task.
        """
        return {}

    def facts_of_model(self, model: Any, rows: pd.DataFrame, reader: Any) -> dict[str, ParamValue]:
        """What the frozen base model tells that `adapt` or answers need. Default: nothing. It is kept likewise.

        Args:
            model: of transformers, as it was loaded; leave it as it is.
            rows: to train on, the task's columns by their keys.
            reader: as `encode` is given it.

        Raises:
            UserInputError: the model cannot do the task.
        """
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of `facts` before the search begins, a sentence each. Default: nothing."""
        return ()

    def adapt(self, model: Any) -> None:
        """Change a loaded model before methods see it, by what `facts_of_model` told. Default: nothing.

        No tensor may be copied or written to: put modules around what is there, which `restore` takes off again. The
        model may be on the meta device.
        """

    def restore(self, model: Any) -> None:
        """Undo `adapt`, of a model that is to be saved as transformers has it. Default: nothing."""

    def model_inputs(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What of a batch the model takes: all but `taught`."""
        return {name: tensor for name, tensor in batch.items() if name not in self.taught}

    def run(self, model: Any, batch: Mapping[str, torch.Tensor]) -> Any:
        """The outputs that `loss` and `answer` are given. Default: those of the model, for its inputs.

        What it gives is a mapping of tensors `[rows, …]` that its own class makes anew of the same names.
        """
        return model(**self.model_inputs(batch))

    def by_hand(self, sample: Mapping[str, Sequence[Any]], export: str) -> ByHand | None:
        """How those rows (`sample`) are answered without autopeft. Default: None, the inputs as they are.

        Args:
            sample: two rows, a list of cells for each input.
            export: the format; in "onnx" the model is as `adapt` left it, in all others as transformers has it.
        """
        return None

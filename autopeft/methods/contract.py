"""The contract between the host and a PEFT method: what a plugin learns about the model, and what it must return."""

from __future__ import annotations

import copy
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from autopeft.common.exceptions import PluginError
from autopeft.methods.search_space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor, nn

    from autopeft.common.params import Params
    from autopeft.methods.callback import TrainingCallback
    from autopeft.methods.parameter_groups import ParameterGroup
    from autopeft.methods.training_rows import TrainingRows

CONTRACT = 1
"""Version of this contract. It rises when a method that met the last version may fail."""


@dataclass(frozen=True)
class LinearModule:
    """One linear map (`nn.Linear` or GPT-2's `Conv1D`) inside a transformer layer.

    `role` is one of ``query``, ``key``, ``value``, ``qkv`` (fused), ``attention_output``, ``feed_forward_up``
    (gates included) and ``feed_forward_down``. `layer` is the index into `ModelSpec.layers`. `bias` says whether it
    has one. `cross` says whether it is part of a decoder's attention to an encoder's output, and `transposed` whether
    the model keeps its weight `[in, out]`, as `Conv1D` does; once quantized, the weight is `[out, in]` in any case.
    """

    name: str
    role: str
    layer: int
    in_features: int
    out_features: int
    bias: bool = False
    cross: bool = False
    transposed: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """What a method may know about the model before it changes it; made on the meta device, without weights.

    Attributes:
        model_type: the Hugging Face type, such as ``bert``.
        architecture: the class with its head, such as ``BertForSequenceClassification``.
        task: the kind in the study file, such as ``text-classification``.
        peft_task_type: peft's name for the task (`peft.TaskType`), such as ``SEQ_CLS``; None where it has none.
        num_parameters: number of parameters of the base model, without its head.
        hidden_size: width of the residual stream.
        num_attention_heads: number of heads of one layer.
        num_key_value_heads: number of heads of its keys and values, fewer if several query heads share one.
        num_hidden_layers: number of layers that the forward pass runs (ALBERT runs one stored layer many times).
        layers: dotted names of the stored transformer layers, bottom to top.
        linears: their linear maps, each with its role.
        head: dotted names of the modules on top of the base model; they are trained with every method.
        has_attention_interface: whether attention goes through transformers' `AttentionInterface`, where a method can
            put its own function, and PyTorch's `scaled_dot_product_attention` can compute it.
        layer_heads: number of heads of each of `layers`, and of its keys and values. If a model has towers of different
            widths, the two numbers above, and `hidden_size`, are those of the tower for texts.
        quantization: of the weights of `linears`: "8bit", "4bit" or "none".
        digest: identity of the model's files, as in `SavedAddOn.base_digest`; "" where it is not known.
    """

    model_type: str
    architecture: str
    task: str
    peft_task_type: str | None
    num_parameters: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    num_hidden_layers: int
    layers: tuple[str, ...]
    linears: tuple[LinearModule, ...]
    head: tuple[str, ...]
    has_attention_interface: bool
    layer_heads: tuple[tuple[int, int], ...] = ()
    quantization: str = "none"
    digest: str = ""

    def heads_of(self, layer: int) -> tuple[int, int]:
        """Number of heads of a layer, by its index, and of its keys and values."""
        return self.layer_heads[layer] if self.layer_heads else (self.num_attention_heads, self.num_key_value_heads)

    def modules(self, *roles: str, cross: bool | None = None) -> tuple[str, ...]:
        """Dotted names of the linear maps with one of `roles`, in the model's order.

        Args:
            roles: of `LinearModule`.
            cross: only those of a decoder's attention to an encoder (True), or all others (False). Default: both.
        """
        return tuple(linear.name for linear in self.linears if linear.role in roles and cross in (None, linear.cross))

    def groups(self, roles: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """The groups of roles that this model has, each with its `modules`; of equal ones, only the first."""
        found: dict[str, tuple[str, ...]] = {}
        for group, members in roles.items():
            names = self.modules(*members)
            if names and names not in found.values():
                found[group] = names
        return found


@dataclass(frozen=True)
class Support:
    """Whether a method supports a model, with the reason if it does not. Truthy when supported."""

    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


class PeftMethod(ABC):
    """A parameter-efficient fine-tuning method: a search space of add-ons, and how to put one on a model.

    A method must implement only `search_space` and `apply`. `autopeft check NAME` and `autopeft.testing` test whether
    it keeps the contract.

    Class attributes:
        contract: the version of this contract that the method was written for: `autopeft.CONTRACT` at that time, as a
            number. A method is not used if the host has another version.
        name: its name in study files and leaderboards; lower case with underscores.
        paper: where the method comes from, in one line.
        tasks: the task kinds it supports; empty means every kind.
        unequal: its dimensions in which candidates may differ that train in one pass (`[search] cohort`). They may
            change the sizes of trained tensors, whose rest is then padded with zeros, the rate of an `nn.Dropout`, and
            `factors`, but nothing else. The host compares gradients, and trains alone what does not fit. None: its
            candidates always train alone.
        Options: its settings under [methods.NAME], a subclass of `autopeft.Section`; None if it has none. A method with
            a setting that has no default is searched only in studies that give it.

    Attributes:
        options: the settings of the study, of the class `Options`.

    A method that trains the biases of the top layers, on a tiny model:

    >>> from autopeft import Integer, PeftMethod, SearchSpace
    >>> from autopeft.models.attach import attach
    >>> from autopeft.testing.tiny import tiny_base
    >>> class TopBiases(PeftMethod):
    ...     contract, name = 1, "top_biases"
    ...
    ...     def search_space(self, spec=None):
    ...         return SearchSpace({"count": Integer(low=1, high=4, default=2)})
    ...
    ...     def apply(self, model, params, spec):
    ...         for layer in spec.layers[-params["count"] :]:
    ...             for name, parameter in model.get_submodule(layer).named_parameters():
    ...                 parameter.requires_grad_(name.endswith("bias"))
    ...         return model
    >>> model = attach(tiny_base("bert"), TopBiases(), {"count": 1})
    >>> sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)  # 99 of the head
    387
    """

    contract: ClassVar[int]
    name: ClassVar[str]
    paper: ClassVar[str] = ""
    tasks: ClassVar[tuple[str, ...]] = ()
    unequal: ClassVar[tuple[str, ...] | None] = None
    Options: ClassVar[type[Any] | None] = None
    options: Any = None

    def configured(self, options: Any, folder: Path) -> Self:
        """This method in a study with these settings. Torch must not be imported here.

        Args:
            options: of the class `Options`, checked.
            folder: of the study file, where relative paths start.

        Raises:
            SpecError: what the settings refer to cannot be used; in one sentence, with what to do.
        """
        method = copy.copy(self)
        method.options = options
        return method

    def facts(self) -> Mapping[str, Any]:
        """What a saved add-on needs besides its params, so that `knowing` can build it without the settings.

        Texts, numbers, truth values, lists of these, and mappings from names to these; kept with a winner. A study may
        not go on with other facts. Default: none.
        """
        return {}

    def knowing(self, facts: Mapping[str, Any]) -> Self:
        """This method with what `facts` returned when an add-on was saved; it may have been damaged since.

        Called if there are any, on a method without settings. `apply` must then build the same modules; `load` fills
        them.

        Raises:
            UserInputError: they cannot be used.
        """
        return self

    def example(self) -> Self:
        """This method with made-up settings that work on any model, for `autopeft check`.

        Called if settings without a default are missing.
        """
        raise NotImplementedError(f'method "{self.name}" needs settings, so it must override example().')

    def supports(self, spec: ModelSpec) -> Support:
        """Whether the method works on this model, with the reason if it does not. Default: yes."""
        return Support()

    @abstractmethod
    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """The method's own dimensions on this model; without a model, all of its dimensions, as on a typical model.

        The latter check a study file before its model is read: the names of dimensions must be among them.
        """

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Dimensions that replace the host's training dimensions of the same name, such as `learning_rate`.

        The default rate should suit some hundred steps: in a study it falls as training gets longer (`length`).
        """
        return SearchSpace({})

    @abstractmethod
    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Put the add-on that `params` describes on `model` and return the model to train.

        `model` is frozen, and the method may change it: its structure is a private copy (the weights are shared, so
        never write into them). On return exactly the add-on's parameters require gradients. The host trains the head
        (`spec.head`), unless the method has replaced it with a trainable copy, as peft's `modules_to_save` does. It
        must also work when every tensor is on the meta device.
        """

    def trained_params(self, params: Params, spec: ModelSpec) -> int | None:
        """How many parameters `apply` would train, without the head's, computed from `spec` alone.

        Default: None, and the host applies the method to a model without weights and counts. A number here avoids that
        for candidates over `max_trainable_params`. It must be exact, also in a subclass with more dimensions. A
        subclass that overrides `apply` but not this is not asked.
        """
        return None

    def parameter_groups(
        self, trained: Mapping[str, tuple[int, ...]], params: Params, spec: ModelSpec
    ) -> Iterable[ParameterGroup]:
        """Trained parameters with their own learning rate or weight decay. Default: none.

        Args:
            trained: names of all trained parameters, with the head's, and their shapes; those of one fold, even if
                several are packed.
            params: of the candidate.
            spec: the model's.
        """
        return ()

    def initial_values(
        self, model: nn.Module, batches: Iterable[TrainingRows], params: Params, spec: ModelSpec
    ) -> Mapping[str, Tensor]:
        """Initial values of trained parameters that depend on training rows, by name. Default: as `apply` left them.

        Called once for each fold, and once when the winner is trained on all rows, before training begins and before
        folds are packed; not for a fold that goes on after an interruption. Torch's random numbers are seeded.

        Args:
            model: what `apply` returned, in evaluation mode. It must be left unchanged, with its hooks.
            batches: rows that the fold trains on, drawn at random, never rows that it validates; at most 8 times as
                many rows as a training batch has. They are made one by one, and can be read once.
            params: of the candidate.
            spec: the model's.

        Returns:
            Tensors by their names in `named_parameters()`, each with its parameter's shape.
        """
        return {}

    def average(
        self, folds: Sequence[Mapping[str, Tensor]], params: Params, spec: ModelSpec
    ) -> Mapping[str, Tensor] | None:
        """One set of trained values that represents those of all folds. Default: None, the method has none.

        The add-on should then compute the mean of what the folds' add-ons compute. `mean_of` gives the mean of each
        tensor; for a product, the mean of the products is needed. It need not be exact: the host compares its loss with
        those of the folds.

        Args:
            folds: what each fold learnt, with the head's, by the names in `named_parameters()`; on the CPU.
            params: of the candidate.
            spec: the model's.

        Returns:
            Tensors with the same names and shapes.
        """
        return None

    def factors(self, trained: Iterable[str], params: Params, spec: ModelSpec) -> Mapping[str, float]:
        """What the add-on multiplies a trained tensor by, as LoRA does its B. Default: nothing.

        Only for methods whose `unequal` dimensions change such a number: the pass that several candidates share has
        the numbers of one of them, and is corrected for the others.

        Args:
            trained: names of all trained parameters, with the head's.
            params: of the candidate.
            spec: the model's.

        Returns:
            Numbers other than 0, by the names of trained parameters; the same names for all params.
        """
        return {}

    def callback(self, model: nn.Module, params: Params, spec: ModelSpec) -> TrainingCallback | None:
        """Hooks around the steps of training, such as a schedule of ranks. Default: none.

        Called once for each fold, with the model that `apply` returned and that all folds share. The folds of a method
        that overrides this are never packed into one pass.
        """
        return None

    def sections(
        self, model: nn.Module, batches: Iterable[TrainingRows], params: Params, spec: ModelSpec
    ) -> Sequence[Any]:
        """`ReportSection`s about the winner on held-out rows, beside the scores. Default: none.

        Called once, when the scores are known; nothing is chosen by it.

        Args:
            model: the winner's, loaded, in evaluation mode; it must be left unchanged, with its hooks.
            batches: held-out rows; they are made one by one, and can be read once.
            params: of the winner.
            spec: the model's.
        """
        return ()

    def variants(
        self, model: nn.Module, params: Params, spec: ModelSpec
    ) -> Mapping[str, AbstractContextManager[object]]:
        """Changes to the winner's model, by name, that the report scores on the held-out rows. Default: none.

        Each is made on entering the context and undone on leaving it, such as a part that is left out. Nothing is
        trained again, and nothing is chosen by these scores.
        """
        return {}

    def merge(self, model: nn.Module) -> nn.Module | None:
        """The plain base model with the add-on merged into its weights; None (the default) if that is impossible.

        `model` is what `apply` returned, trained, in float32 and not quantized. It is a complete copy with its own
        weights, so it may be changed and taken apart.
        """
        return None

    def save(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        """The tensors to save of a trained model, by name, with the head's; also on the meta device.

        `max_saved_size` limits their size. Default: None, and the host saves a `PeftModel` as peft does, in peft's own
        format, and every trained parameter of any other model.
        """
        return None

    def load(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put the tensors from `save` into a new model from `apply`; called only if `save` returned some."""
        raise NotImplementedError(f'method "{self.name}" overrides save(), so it must also override load().')

    def export(self, model: nn.Module, params: Params, spec: ModelSpec, library: str, folder: Path) -> Support:
        """Write a trained add-on and its head in the format of another library, which must then predict the same.

        Called with "peft", if the model is not a `PeftModel`, and with "adapterhub", the `adapters` library. The
        `folder` exists and is empty. Default: no. To say no, give a reason for a person to read, and write nothing.
        """
        return Support(f'the method "{self.name}" has no counterpart there.')


def declared_params(method: PeftMethod, params: Params, spec: ModelSpec) -> int | None:
    """The result of `trained_params`; None where it gives none, or was written for the `apply` of another class.

    Raises:
        PluginError: the result is not a whole number.
    """
    count, apply = (next(c for c in type(method).__mro__ if name in vars(c)) for name in ("trained_params", "apply"))
    told = method.trained_params(params, spec) if issubclass(count, apply) else None
    try:
        return None if told is None else operator.index(told)  # NumPy's whole numbers are not JSON's
    except TypeError:
        raise PluginError(f"trained_params() must return a whole number or None, but returned {told!r}.") from None

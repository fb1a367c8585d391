"""The base model: loaded once per process, frozen, and shared by every trial.

A trial gets a copy of the module *structure* whose frozen parameters are the base's own tensors; only the head's are
copied. So a method may rewrite the structure as it likes, and dropping the copy leaves the base unchanged.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from autopeft.models import quantization
from autopeft.models.dropout import Dropout
from autopeft.models.marks import FROZEN, LAYER, LINEAR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autopeft.methods.contract import ModelSpec


@dataclass(frozen=True)
class BaseModel:
    """A frozen model with a head, its processor (a tokenizer, or a reader of images) and its description.

    `dense` is the model before quantization, on the meta device; None if it was not quantized. `notes` say what starts
    from random values besides an ordinary head, and what of the checkpoint was left out. `whole` holds the weights that
    `lower` kept, by the name of their map. `parts` are the base models of several tasks, by the task, which share all
    tensors but their heads'; `module` is then a `ModelOfTasks` of theirs.
    """

    module: nn.Module
    processor: Any
    spec: ModelSpec
    dense: nn.Module | None = None
    notes: tuple[str, ...] = ()
    whole: dict[str, torch.Tensor] = field(default_factory=dict)
    parts: Mapping[str, BaseModel] = field(default_factory=dict)

    @functools.cached_property
    def skeleton(self) -> nn.Module:
        """The same model with every tensor on the meta device, never quantized."""
        if self.dense is not None:
            return self.dense
        memo: dict[int, Any] = {}
        for parameter in self.module.parameters():
            memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        for buffer in self.module.buffers():
            memo[id(buffer)] = torch.empty_like(buffer, device="meta")
        return copy.deepcopy(self.module, memo)

    @functools.cached_property
    def head_params(self) -> int:
        """Parameters of the head, which is trained with every method."""
        parts = map(self.skeleton.get_submodule, self.spec.head)
        return sum(p.numel() for p in {p for part in parts for p in part.parameters()})

    def copy(self, *, meta: bool = False) -> nn.Module:
        """A private structure over the shared frozen tensors, with its own head."""
        source = self.skeleton if meta else self.module
        own = {id(p) for name in self.spec.head for p in source.get_submodule(name).parameters()}
        memo: dict[int, Any] = {id(p): p for p in source.parameters() if id(p) not in own}
        memo |= quantization.shared_state(source)
        twin: Any = copy.deepcopy(source, memo)
        prefix = "" if twin.base_model is twin else twin.base_model_prefix  # a model with two towers is its own base
        for name, module in twin.base_model.named_modules(prefix=prefix):
            if not name.startswith(self.spec.head):  # a part of the base may be trained from scratch, with the head
                setattr(module, FROZEN, True)
                if type(module) is nn.Dropout:
                    module.__class__ = Dropout
        for module in twin.modules():  # the stacks of an encoder-decoder have configurations of their own
            if hasattr(module, "config"):
                module.config.use_cache = False  # a cache of keys and values is only for generation
        for index, layer in enumerate(self.spec.layers):
            setattr(twin.get_submodule(layer), LAYER, index)
        for linear in self.spec.linears:
            setattr(twin.get_submodule(linear.name), LINEAR, True)
        return cast("nn.Module", twin)

    def bare_below(self, count: int) -> BaseModel:
        """The same model, so described that methods find no linear maps in its lowest `count` layers."""
        if not count:
            return self
        kept = tuple(linear for linear in self.spec.linears if linear.layer >= count)
        return replace(self, spec=replace(self.spec, linears=kept))

    def lower(self, dtype: torch.dtype, *, keep: bool = False) -> None:
        """Store the weights of the transformer layers' linear maps in the precision in which autocast multiplies them.

        Autocast would make the same rounded copy in every step. The products are bit for bit the same, and the weights
        take half the memory; or one and a half times as much with `keep`, which keeps the originals for `raised`.
        """
        for module in filter(None, (self.module, self.dense)):
            for linear in self.spec.linears:
                owner = module.get_submodule(linear.name)
                if not quantization.is_quantized(owner):
                    weight = owner.get_parameter("weight")
                    if keep:
                        self.whole[linear.name] = weight.data
                    weight.data = weight.data.to(dtype)

    def raised(self) -> BaseModel:
        """The same model with the weights that `lower` kept; this one must not be used afterwards."""
        for name, tensor in self.whole.items():
            weight = self.module.get_submodule(name).get_parameter("weight")
            weight.data = tensor.to(weight.device)
        return replace(self, whole={})

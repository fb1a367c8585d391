"""The base model: loaded once per process, frozen, and shared by every trial.

A trial gets a copy of the module *structure* whose frozen parameters are the base's own tensors; only the head's are
copied. A method may therefore rewrite the structure as it likes, and dropping the copy leaves the base as it was.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from autopeft.common.exceptions import PluginError
from autopeft.common.seeds import seeded
from autopeft.methods.contract import declared_params
from autopeft.models import files, hub_files, missing_weights, quantization
from autopeft.models.architecture import describe
from autopeft.models.copying import ModuleCopier
from autopeft.models.dropout import Dropout
from autopeft.models.size_limit import size_limit
from autopeft.models.tokenizer import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from autopeft.common.params import Params
    from autopeft.methods.contract import ModelSpec, PeftMethod


FROZEN = "_autopeft_frozen"
"""Marks the modules of the base model, which a method's own modules then stand beside."""

TRAINED = "_autopeft_trained"
"""Marks the parameters of an add-on, which belong to one model alone."""

LAYER = "_autopeft_layer"
"""Marks its transformer layers; the value is the layer's index, from the bottom."""

LINEAR = "_autopeft_linear"
"""Marks their linear maps, which are those that may be quantized."""


@dataclass(frozen=True)
class BaseModel:
    """A frozen model with a head, its tokenizer and its description.

    `dense` is the model as it was before quantization, on the meta device; None where it was not quantized. `notes`
    say what of it starts from random values besides an ordinary head, and what of the checkpoint was left out.
    """

    module: nn.Module
    tokenizer: Any
    spec: ModelSpec
    dense: nn.Module | None = None
    notes: tuple[str, ...] = ()

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
        return self._mould.cast() if meta else self._twin(self.module)

    @functools.cached_property
    def _mould(self) -> ModuleCopier:
        """Of the skeleton: in a search every proposal takes a copy."""
        twin = self._twin(self.skeleton)
        return ModuleCopier(twin, self._head(twin))

    def _head(self, module: nn.Module) -> set[int]:
        """Ids of the head's parameters, which each copy has to itself."""
        return {id(p) for name in self.spec.head for p in module.get_submodule(name).parameters()}

    def _twin(self, source: nn.Module) -> nn.Module:
        own = self._head(source)
        memo: dict[int, Any] = {id(p): p for p in source.parameters() if id(p) not in own}
        memo |= quantization.shared_state(source)
        twin: Any = copy.deepcopy(source, memo)
        for name, module in twin.base_model.named_modules(prefix=twin.base_model_prefix):
            if not name.startswith(self.spec.head):  # a part of the base may be trained from scratch with the head
                setattr(module, FROZEN, True)
                if type(module) is nn.Dropout:
                    module.__class__ = Dropout
        for module in twin.modules():  # the stacks of an encoder-decoder have configurations of their own
            if hasattr(module, "config"):
                module.config.use_cache = False  # a cache of keys and values serves generation alone
        for index, layer in enumerate(self.spec.layers):
            setattr(twin.get_submodule(layer), LAYER, index)
        for linear in self.spec.linears:
            setattr(twin.get_submodule(linear.name), LINEAR, True)
        return cast("nn.Module", twin)

    def lower(self, dtype: torch.dtype) -> None:
        """Keep the weights of the transformer layers' linear maps in the precision autocast multiplies them in.

        Autocast would make the same rounded copy in every step; the products are the same to the bit, and the
        weights take half the memory.
        """
        for module in filter(None, (self.module, self.dense)):
            for linear in self.spec.linears:
                owner = module.get_submodule(linear.name)
                if not quantization.is_quantized(owner):
                    weight = owner.get_parameter("weight")
                    weight.data = weight.data.to(dtype)


def load(
    location: Path | str,
    *,
    auto_class: str,
    task: str,
    peft_task_type: str,
    seed: int,
    trust_remote_code: bool = False,
    config_overrides: Mapping[str, Any] | None = None,
    quantized: str = quantization.NONE,
    compute: torch.dtype = torch.float32,
    revision: str | None = None,
) -> BaseModel:
    """Load a pretrained model with a freshly drawn head, frozen, in float32 on the CPU; on the GPU if `quantized`.

    Args:
        location: a local folder (never leaves the machine) or a hub id.
        auto_class: the transformers class that puts on the head, such as ``AutoModelForSequenceClassification``.
        task: the task kind of the study file.
        peft_task_type: peft's name for it.
        seed: of the head's initial values.
        trust_remote_code: run code that the model brings; off unless the study file says so.
        config_overrides: such as ``id2label``.
        quantized: "none", or "8bit" or "4bit" for the linear maps of the transformer layers.
        compute: precision in which a quantized model's products are computed.
        revision: commit of a model on the hub; default: the newest.

    Raises:
        ModelError: no model there, one that this class cannot load, weights that are not safetensors or that lack a
            part of the base model, or quantization where this machine cannot do it.
    """
    import transformers

    if quantized != quantization.NONE:
        quantization.require(quantized)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    local, kind = isinstance(location, Path), getattr(transformers, auto_class)
    origin: dict[str, Any] = {"local_files_only": local, "trust_remote_code": trust_remote_code}
    origin |= {} if revision is None else {"revision": revision}
    options: dict[str, Any] = {**origin, **(config_overrides or {})}
    with files.reading(f"[model] name_or_path: {location} cannot be loaded as {auto_class}"):
        extent = files.examine(location if isinstance(location, Path) else hub_files.fetch(location, revision))
        tokenizer = transformers.AutoTokenizer.from_pretrained(location, **origin)
        special: dict[str, Any] = {"dtype": torch.float32}
        dense = None
        with seeded(seed), size_limit(extent.tensors, extent.size):
            if quantized != quantization.NONE:
                dense = _dense(transformers.AutoConfig.from_pretrained(location, **options), kind, trust_remote_code)
                skip = quantization.left_alone(dense, describe(dense, task, peft_task_type))
                special = {"dtype": compute, "quantization_config": quantization.config(quantized, skip, compute)}
                torch.manual_seed(seed)  # what was built so far drew some
            module, report = kind.from_pretrained(
                location,
                use_safetensors=True,  # no pickle from strangers
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # a head of another size is drawn anew; what else differs is refused
                **special,
                **options,
            )
        prepare(tokenizer, *filter(None, (module, dense)))
        module.requires_grad_(False)
        if dense is not None:
            quantization.keep_rest_in_float32(module)
        whole = module if dense is None else dense  # a packed weight has neither its own shape nor size
        drawn = missing_weights.judge(whole, report, location)
        spec = describe(whole, task, peft_task_type, drawn.missing)
    return BaseModel(module, tokenizer, spec, dense, drawn.notes)


def _dense(config: Any, kind: Any, trust_remote_code: bool) -> nn.Module:
    """The model of that configuration on the meta device, frozen."""
    with torch.device("meta"):
        module = kind.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
    return cast("nn.Module", module.requires_grad_(False))


def attach(base: BaseModel, method: PeftMethod, params: Params, *, seed: int = 0, meta: bool = False) -> nn.Module:
    """Put a method's add-on on a private copy of the base model; exactly the add-on and the head require gradients.

    Raises:
        PluginError: the method returned no module, one with nothing of the model it was given inside, one with nothing
            of its own to train, or parameters that another model trains already.
    """
    frozen = base.copy(meta=meta)
    given = [module for module in frozen.modules() if module._parameters]
    shared = {id(parameter): parameter for module in given for parameter in _direct(module).values()}
    try:
        with seeded(seed):
            model = method.apply(frozen, params, base.spec)
        modules = _check_returned(model, given, method.name)
        _own_trained_base_parameters(modules, set(shared))
    finally:
        for parameter in shared.values():  # whatever the method asked of the shared ones, or before it failed
            parameter.requires_grad_(False)
    named = dict(model.named_parameters())  # once for all that follows: walking a model takes a millisecond
    _check_trained(named, method.name)
    _train_head(named, base.spec.head)
    _train_in_float32(named.values())
    return model


def _direct(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a module itself, without those of the modules in it."""
    return {name: parameter for name, parameter in module._parameters.items() if parameter is not None}


def _check_returned(model: object, given: Sequence[nn.Module], name: str) -> list[nn.Module]:
    """The modules of what a method returned, which must be one that has something of the model it was given."""
    if not isinstance(model, nn.Module):
        raise PluginError(f'method "{name}": apply() must return a torch module, but returned {model!r}.')
    modules = list(model.modules())
    inside = set(map(id, modules))
    if not any(id(module) in inside for module in given):
        raise PluginError(
            f'method "{name}": apply() must return the model it was given, or one around it, but the '
            f"{type(model).__name__} it returned has nothing of that inside."
        )
    return modules


def _check_trained(named: Mapping[str, nn.Parameter], method: str) -> None:
    """There must be something to train that no other model trains: what one trial learnt would start the next."""
    trained = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    if not trained:
        raise PluginError(f'method "{method}": apply() left nothing to train; add-on parameters need gradients.')
    for name, parameter in trained.items():
        if hasattr(parameter, TRAINED):
            raise PluginError(
                f'method "{method}": apply() must make its parameters anew each time, but {name} belongs to a model '
                "that it returned before."
            )
        setattr(parameter, TRAINED, True)


def merged(model: nn.Module, method: PeftMethod) -> nn.Module | None:
    """The plain base model with a trained add-on folded in; None where the method cannot. `model` stays as it is."""
    from peft.utils import ModulesToSaveWrapper

    own: Any = copy.deepcopy(model)  # weights too: those of the base are every trial's
    for name, module in list(own.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):  # of a head of several maps some of peft's methods ask one weight
            own.set_submodule(name, module.modules_to_save["default"])
    return method.merge(own)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name, each once."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def trained_params(base: BaseModel, method: PeftMethod, params: Params, model: nn.Module) -> int:
    """How many parameters of an attached model train, the head's among them.

    Raises:
        PluginError: the method told another number.
    """
    counted = sum(parameter.numel() for parameter in trainable(model).values())
    told = declared_params(method, params, base.spec)
    if told is not None and told + base.head_params != counted:
        raise PluginError(
            f"trained_params() says {told}, but apply() leaves {counted - base.head_params} parameters besides the "
            "head's to train."
        )
    return counted


def train_mode(model: nn.Module) -> None:
    """Training mode, but of the frozen base only its `nn.Dropout` modules: without dropout by functions.

    In most model types the modules drop hidden states, which regularises what is trained above them, and a function
    attention probabilities, which costs a CPU far more time than it is worth (`benchmarks/cpu_step.py` measures the
    step with and without). OPT's dropout of hidden states is a function's too and so off; that of DeBERTa's attention
    is a module and stays.
    """
    model.train()
    for module in model.modules():
        if hasattr(module, FROZEN):
            module.training = isinstance(module, nn.Dropout)


def checkpoint_layers(model: nn.Module) -> None:
    """Keep only the inputs of the transformer layers for the backward pass, which then computes the rest again.

    Chen et al. 2016, arXiv:1604.06174. A layer that changes something outside itself when it runs, as with a cache of
    keys and values that grows, cannot run twice: PyTorch notices in the backward pass and raises.
    """
    from torch.utils.checkpoint import checkpoint

    def recomputing(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)

        return run

    for module in model.modules():
        if hasattr(module, LAYER):
            module.forward = recomputing(module.forward)


def _own_trained_base_parameters(modules: Iterable[nn.Module], shared: set[int]) -> None:
    """Give the model its own copy of every base parameter that the method trains (BitFit's biases, for one)."""
    for module in modules:
        for name, parameter in _direct(module).items():
            if parameter.requires_grad and id(parameter) in shared:
                parameter.requires_grad_(False)
                setattr(module, name, nn.Parameter(parameter.detach().clone()))


def _train_in_float32(parameters: Iterable[nn.Parameter]) -> None:
    """Small updates vanish in half precision, so what is trained is float32 whatever the base model is kept in."""
    for parameter in parameters:
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()


def _train_head(named: Mapping[str, nn.Parameter], head: tuple[str, ...]) -> None:
    """Train the head, unless the method put a trainable copy in its place (peft's `modules_to_save`)."""
    trained = [f".{name}." for name, parameter in named.items() if parameter.requires_grad]
    for module in head:
        if any(f".{module}." in path for path in trained):
            continue
        for name, parameter in named.items():
            if f".{module}." in f".{name}.":
                parameter.requires_grad_(True)

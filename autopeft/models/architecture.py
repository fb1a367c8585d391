"""Describe a model: which transformer layers it has, and the role each linear map plays in them.

Methods ask for roles ("query", "feed_forward_down"), never for a family's module names, so that an unknown model type
works if its modules are named or shaped like those of another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from autopeft.methods.contract import LinearModule, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

ATTENTION_ROLES = (
    ("qkv", re.compile(r"^(w?qkv|c_attn|query_key_value|qkv_proj|in_proj)$", re.IGNORECASE)),
    ("query", re.compile(r"^(query|q|q_proj|q_lin|query_proj)$")),
    ("key", re.compile(r"^(key|k|k_proj|k_lin|key_proj)$")),
    ("value", re.compile(r"^(value|v|v_proj|v_lin|value_proj)$")),
    # DeBERTa's projections of relative positions are neither of these, hence the closed list.
    ("attention_output", re.compile(r"^(dense|o|o_proj|out_proj|out_lin|c_proj|wo|proj)$", re.IGNORECASE)),
)


CROSS = re.compile(r"(enc_?dec_?att|encoder_attn|cross_?att)", re.IGNORECASE)
"""Names in model types for a decoder's attention to the encoder's output."""

FEED_FORWARD_PARTS = {"intermediate": "feed_forward_up", "output": "feed_forward_down"}
"""Names of the parts in BERT and its relatives. MobileBERT's layers are narrower than the model, so there shapes say
the reverse."""


def describe(
    module: nn.Module,
    task: str,
    peft_task_type: str | None,
    missing_keys: Collection[str] | None = None,
    *,
    new_head: bool = True,
) -> ModelSpec:
    """Describe a transformers model with a head, on any device (meta included).

    Args:
        module: the model with its head.
        task: the task kind of the study file.
        peft_task_type: peft's name for it, if it has one.
        missing_keys: names of the parameters that the checkpoint lacks and `missing_weights.judge` accepts. Modules
            that own one start from random values and so count as head, even a BERT pooler. None: everything outside the
            base model.
        new_head: whether parts outside the base model are trained from scratch if they were not in the checkpoint. For
            a language model they were in it, and only what is missing is head.
    """
    config: Any = module.config
    text_config = config.get_text_config()
    base: Any = module.base_model
    layers = tuple(layer_names(module))
    heads, key_value_heads = _heads(text_config)
    head = _head(module, layers, missing_keys, new_head=new_head)
    return ModelSpec(
        model_type=str(config.model_type),
        architecture=type(module).__name__,
        task=task,
        peft_task_type=peft_task_type,
        num_parameters=sum(p.numel() for n, p in module.named_parameters() if not _inside(n, head)),
        hidden_size=int(text_config.hidden_size),
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        num_hidden_layers=max(int(text_config.num_hidden_layers), len(layers)),  # configs count only one stack
        layers=layers,
        layer_heads=tuple(_heads(_config_of(module, layer), decoder=".decoder." in f".{layer}") for layer in layers),
        linears=tuple(_linears(module, layers, head)),
        head=head,
        has_attention_interface=bool(base._can_set_attn_implementation() and base._supports_sdpa),
    )


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """`(in_features, out_features)` of a linear map, or None for any other module."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):  # GPT-2 stores its weight transposed
        return module.weight.shape[0], module.weight.shape[1]
    return None


def _inside(name: str, modules: Collection[str]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def is_body(name: str, part: nn.Module, layers: Sequence[str]) -> bool:
    """Whether a direct part of a model holds layers or embeddings: without a base model, such a part counts as one."""
    has_layers = any(layer.startswith(f"{name}.") for layer in layers)
    return has_layers or any(isinstance(child, nn.Embedding) for child in part.modules())


def _head(
    module: nn.Module, layers: Sequence[str], missing_keys: Collection[str] | None, *, new_head: bool
) -> tuple[str, ...]:
    """Names of the modules to train from scratch, never one inside another."""
    alone = module.base_model is module  # T5 for questions
    outside = [
        name
        for name, child in module.named_children()
        if new_head
        and child is not module.base_model
        and any(True for _ in child.parameters())
        and not (alone and is_body(name, child, layers))
    ]
    missing: dict[str, None] = {}
    for key in missing_keys or ():
        owner = key.split(".")[0]
        if place := owner if owner in outside else key.rpartition(".")[0]:  # a parameter of the model itself is no head
            missing[place] = None
    # A checkpoint with a whole head was trained for other labels: all of the head is trained again.
    return tuple(missing) if any(name in missing for name in outside) else (*outside, *missing)


def layer_names(module: nn.Module) -> Iterator[str]:
    """The elements of the outermost module lists that hold linear maps: the transformer layers of every stack."""
    found: list[str] = []
    for name, child in module.named_modules():
        if isinstance(child, nn.ModuleList) and not _inside(name, found):
            layers = [f"{name}.{i}" for i, layer in enumerate(child) if any(map(linear_shape, layer.modules()))]
            found.extend(layers)
            yield from layers


def _linears(module: nn.Module, layers: tuple[str, ...], head: tuple[str, ...]) -> Iterator[LinearModule]:
    """Each linear map of the layers once, except those trained from scratch with the head."""
    seen: set[nn.Module] = set()
    for index, layer in enumerate(layers):
        width = int(_config_of(module, layer).hidden_size)
        for path, child in module.get_submodule(layer).named_modules():
            shape, name = linear_shape(child), f"{layer}.{path}"
            if shape is None or child in seen or _inside(name, head):
                continue
            seen.add(child)
            if role := _role(f"{_list_of(layer)}.{path}", *shape, width=width):
                bias, cross = getattr(child, "bias", None) is not None, CROSS.search(path) is not None
                transposed = isinstance(child, Conv1D)
                yield LinearModule(name, role, index, *shape, bias=bias, cross=cross, transposed=transposed)


def _config_of(module: nn.Module, layer: str) -> Any:
    """The configuration of a layer's stack: the towers of a model may differ in width and heads."""
    whole: Any = module.config
    *parents, _ = layer.split(".")
    while parents:
        config: Any = getattr(module.get_submodule(".".join(parents)), "config", None)
        if config is not None and hasattr(config, "hidden_size") and hasattr(config, "num_attention_heads"):
            return config
        parents.pop()
    return whole.get_text_config()


def _heads(config: Any, *, decoder: bool = False) -> tuple[int, int]:
    """Heads of an attention module, and of its keys and values; a `decoder` may have others than its encoder."""
    own = getattr(config, "decoder_attention_heads", None) if decoder else None
    heads = int(own or config.num_attention_heads)
    return heads, int(getattr(config, "num_key_value_heads", None) or heads)


def _list_of(layer: str) -> str:
    """The name of a layer's list; XLM has one list of attentions and one of feed-forward parts."""
    return layer.split(".")[-2]


def _role(path: str, in_features: int, out_features: int, width: int) -> str | None:
    """The role of the linear map at `path`, from the list of layers on: attention by name, the rest mostly by shape."""
    *parents, leaf = path.split(".")
    if any("att" in parent.lower() for parent in parents):
        return next((role for role, pattern in ATTENTION_ROLES if pattern.match(leaf)), None)
    if width in (in_features, out_features) and parents[-1] in FEED_FORWARD_PARTS:
        return FEED_FORWARD_PARTS[parents[-1]]
    if in_features == width and out_features != width:
        return "feed_forward_up"
    if in_features != width and out_features == width:
        return "feed_forward_down"
    if in_features == out_features == width:  # a feed-forward part no wider than the model: only names distinguish them
        return "feed_forward_down" if re.search(r"output|down|2|c_proj|wo", path, re.IGNORECASE) else "feed_forward_up"
    return None

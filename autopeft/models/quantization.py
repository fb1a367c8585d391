"""Base models in 8 or 4 bits, by bitsandbytes: requirements, settings for transformers, and memory.

Only linear maps of the transformer layers are quantized; embeddings, norms and the head stay as they are.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import platform
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from autopeft.common.exceptions import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from autopeft.methods.contract import ModelSpec

NONE, EIGHT_BITS = "none", "8bit"
X86 = ("x86_64", "amd64")
"""Processors on which bitsandbytes runs without a GPU (its package's own list of platforms, 0.50)."""

BLOCK = 64
"""Weights that share one scale in 4 bits (`Params4bit` in bitsandbytes/nn/modules.py; transformers keeps that
value)."""

NESTED_BLOCK = 256
"""Scales that share one scale of their own: double quantization (`quantize_4bit` in bitsandbytes/functional.py)."""

TABLES = 4 * (16 + 256 + 1)
"""Bytes of each 4-bit weight's code tables, of 16 and 256 floats, and of the mean of its scales."""


def require(kind: str) -> None:
    """Make sure that this machine can quantize.

    Raises:
        ModelError: no device here can, or bitsandbytes or accelerate is not installed.
    """
    rule = f'`quantization = "{kind}"` in [model] needs'
    if platform.machine().lower() not in X86 and not torch.cuda.is_available():
        raise ModelError(
            f'{rule} a CUDA device or an x86 processor, and this machine has neither; use "none" (`autopeft plan '
            '--device "24 GiB"` shows what it would save on a GPU).'
        )
    for package in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise ModelError(f'{rule} {package}, which is not installed; run pip install "autopeft[quantization]".')


def config(kind: str, skip: Iterable[str], compute: torch.dtype) -> Any:
    """The `BitsAndBytesConfig` for `kind`; NF4 with double quantization in 4 bits, as in QLoRA (arXiv:2305.14314).

    Args:
        kind: "8bit" or "4bit".
        skip: dotted names of the linear maps to leave alone; transformers then adds none itself.
        compute: precision to which 4-bit weights are expanded for a product.
    """
    from transformers import BitsAndBytesConfig

    if kind == EIGHT_BITS:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(skip))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=list(skip),
    )


def written(kind: str, skip: Iterable[str]) -> str:
    """Python code for what `config` returns for products in float32."""
    rest = f"llm_int8_skip_modules={json.dumps(list(skip))})"
    if kind == EIGHT_BITS:
        return f"BitsAndBytesConfig(load_in_8bit=True, {rest}"
    return (
        'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, '
        f"bnb_4bit_compute_dtype=torch.float32, {rest}"
    )


def left_alone(module: nn.Module, spec: ModelSpec) -> list[str]:
    """Names of the linear maps that stay as they are: all but `spec.linears`, including the head's."""
    quantized = {linear.name for linear in spec.linears}
    maps = (name for name, child in module.named_modules() if isinstance(child, nn.Linear | Conv1D))
    return [name for name in maps if name not in quantized]


def keep_rest_in_float32(module: nn.Module) -> None:
    """Make every parameter that is not quantized float32, as in an unquantized base model.

    This includes embeddings, though they are large: states between layers have their precision, so in bfloat16 a search
    on a quantized model would compute differently from one on the model itself, and round what every layer adds.
    """
    for child in module.modules():
        for name, parameter in child.named_parameters(recurse=False):
            if parameter.is_floating_point() and not (name == "weight" and is_quantized(child)):
                parameter.data = parameter.data.float()


def settle(module: nn.Module) -> None:
    """Prepare 8-bit maps for sharing among trials; others stay as they are.

    Their passes move the scales from the weight to the map. If peft then expands a weight on a CPU
    (`dequantize_module_weight` in peft 0.21), it leaves one without scales, which the next pass would give to all
    trials. So the map gets the scales now, and keeps them.
    """
    for child in module.modules():
        if is_quantized(child) and hasattr(child, "init_8bit_state"):
            owner: Any = child
            scales = owner.weight.SCB
            owner.init_8bit_state()
            owner.weight.SCB, owner.init_8bit_state = scales, _nothing
            # It would report in every product that float32 becomes float16.
            logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def _nothing() -> None:
    """Replaces a module's own method."""


def shared_state(module: nn.Module) -> dict[int, Any]:
    """What a deep copy of a quantized model must share besides the parameters, by id: the scales of its weights."""
    found = {}
    for child in module.modules():
        for name in ("quant_state", "state"):  # of bitsandbytes' Linear4bit and Linear8bitLt
            state = vars(child).get(name)
            if state is not None and is_quantized(child):
                found[id(state)] = state
    return found


def is_quantized(module: nn.Module) -> bool:
    """Whether a module is one of bitsandbytes' linear maps, by its class name, so the package need not be installed."""
    return any(kind.__name__ in ("Linear4bit", "Linear8bitLt") for kind in type(module).__mro__)


def expanded(module: nn.Module) -> torch.Tensor:
    """The weight of one of bitsandbytes' linear maps as its products use it: float32 `[out, in]`."""
    import bitsandbytes.functional as functions

    weight: Any = module.get_parameter("weight")
    if type(weight).__name__ == "Params4bit":
        found: torch.Tensor = functions.dequantize_4bit(weight.data, weight.quant_state)
        return found.float()
    state: Any = module.state
    rows, scales = (state.CB, state.SCB) if state.CB is not None else (weight.data, weight.SCB)
    whole: torch.Tensor = rows.float() * scales.float()[:, None] / 127
    return whole


def weight_bytes(kind: str, in_features: int, out_features: int) -> int:
    """Bytes of one quantized weight with its scales.

    - 8 bits: `n + 4 · out_features` for n weights: a byte each, and a float32 for each row (`Int8Params` in
      bitsandbytes/nn/modules.py).
    - 4 bits: `⌈n / 2⌉ + b + 4 · ⌈b / 256⌉ + 1092` with `b = ⌈n / 64⌉`: half a byte each, a byte for each block's scale,
      a float32 for each 256 of these, and the tables (`quantize_4bit` in bitsandbytes/functional.py): 0.516 bytes
      a weight in a large map.
    """
    n = in_features * out_features
    if kind == EIGHT_BITS:
        return n + 4 * out_features
    blocks = -(-n // BLOCK)
    return -(-n // 2) + blocks + 4 * -(-blocks // NESTED_BLOCK) + TABLES


def model_bytes(kind: str, spec: ModelSpec) -> int:
    """Bytes of all quantized weights; the sum of `weight_bytes` over the layers' linear maps."""
    return sum(weight_bytes(kind, linear.in_features, linear.out_features) for linear in spec.linears)


def stand_in(linear: nn.Module, shape: tuple[int, int], kind: str, compute: torch.dtype) -> None:
    """Make a dense linear map take the memory of the quantized one, forward and backward; its values are meaningless.

    For predictions on tensors without data. `shape` is (in, out).
    """
    linear.forward = functools.partial(_product, linear, shape, kind, compute)


def _product(
    linear: nn.Module, shape: tuple[int, int], kind: str, compute: torch.dtype, x: torch.Tensor
) -> torch.Tensor:
    """Take the memory of bitsandbytes' product of `x` `[…, in]`, which is `[…, out]`.

    - 4 bits: the input in `compute` precision, the weight expanded to it, and the product turned back into the input's
      type; the weight once more in the backward pass (`Linear4bit` and `MatMul4Bit` in bitsandbytes 0.50).
    - 8 bits: the input is kept as it is. Forward it also exists in float16 and in int8, the product in int32 and in
      float16, and once more when the few columns with outliers (arXiv:2208.07339, section 4) are added; backward the
      weight is expanded to the input's type (`MatMul8bitLt`).
    """
    given: torch.Tensor
    bias = linear._parameters["bias"]
    if kind == "4bit":
        given = _Expanded.apply(shape, x.to(compute), bias)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return given.to(x.dtype)
    given = _InIntegers.apply(shape, x, bias)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return given


class _Expanded(torch.autograd.Function):
    """A product with a weight that exists only during the product."""

    @staticmethod
    def forward(ctx: Any, shape: tuple[int, int], x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """`[…, out]`."""
        ctx.shape = shape[::-1]
        weight = x.new_empty(ctx.shape)
        given = x.new_empty((*x.shape[:-1], shape[1]))  # not a view: nothing could be added to one in place
        del weight
        return given

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """The gradient of `x`."""
        weight = gradients[0].new_empty(ctx.shape) if ctx.needs_input_grad[1] else None
        return None, None if weight is None else torch.matmul(gradients[0], weight), _of_bias(ctx, gradients[0])


class _InIntegers(torch.autograd.Function):
    """A product of integers, with the weight expanded in the backward pass."""

    @staticmethod
    def forward(ctx: Any, shape: tuple[int, int], x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """`[…, out]`."""
        ctx.shape, ctx.kept = shape[::-1], x
        halved = x.to(torch.float16)
        narrow = torch.empty_like(x, dtype=torch.int8)
        del halved
        wide = x.new_empty((*x.shape[:-1], shape[1]), dtype=torch.int32)
        given = torch.empty_like(wide, dtype=torch.float16).to(x.dtype)
        del wide
        with_outliers = torch.empty_like(given)
        del narrow
        return with_outliers

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """The gradient of `x`."""
        back = None
        if ctx.needs_input_grad[1]:
            weight = ctx.kept.new_empty(ctx.shape)
            back = torch.matmul(gradients[0].to(weight.dtype), weight)
        return None, back, _of_bias(ctx, gradients[0])


def _of_bias(ctx: Any, gradient: torch.Tensor) -> torch.Tensor | None:
    """The gradient of a bias that is trained."""
    return gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None

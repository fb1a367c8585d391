"""A saved add-on's weights: what is kept, how large it will be, and the file it goes to and comes from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from autopeft.exceptions import UserInputError
from autopeft.model import attach, trainable
from autopeft.rights import follow_umask
from autopeft.storage import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch
    from torch import nn

    from autopeft.method import PeftMethod
    from autopeft.model import BaseModel
    from autopeft.search_space import Params

WEIGHTS = "addon.safetensors"
PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def saved_tensors(model: nn.Module, method: PeftMethod) -> dict[str, torch.Tensor]:
    """What is kept of a trained model, by name; of a model on the meta device or on any other, for its sizes.

    Where the method does not say, peft decides for its own: of a reparameterized prefix it keeps the result alone, not
    the network.
    """
    from peft import PeftModel, get_peft_model_state_dict

    if (own := method.save(model)) is not None:
        return {name: tensor.detach() for name, tensor in own.items()}
    if not isinstance(model, PeftModel):
        return {name: parameter.detach() for name, parameter in trainable(model).items()}
    if model.active_peft_config.is_prompt_learning:
        return _with_prompt(model)
    kept: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return kept


def _with_prompt(model: Any) -> dict[str, torch.Tensor]:
    """The prompt and what else is trained; peft's own function would copy to the CPU, which meta tensors cannot."""
    config = model.active_peft_config
    layers = config.num_layers * 2 if config.peft_type == "PREFIX_TUNING" else 1  # keys and values of every layer
    encoder = {id(parameter) for parameter in model.prompt_encoder.parameters()}
    like = next(model.prompt_encoder.parameters())
    kept = {"prompt_embeddings": like.new_empty(config.num_virtual_tokens, layers * config.token_dim)}
    for name, parameter in trainable(model).items():
        if id(parameter) not in encoder:
            kept[name.replace(".modules_to_save.default", "")] = parameter.detach()
    return kept


def write_weights(model: nn.Module, method: PeftMethod, folder: Path) -> None:
    """Write a trained model's add-on and head: in peft's own format where peft keeps them, to `WEIGHTS` otherwise.

    Raises:
        StoreError: the files could not be written.
    """
    from peft import PeftModel
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if isinstance(model, PeftModel) and method.save(model) is None:
        with writing(folder, SafetensorError):
            model.save_pretrained(str(folder), safe_serialization=True)
            follow_umask(*folder.glob("*.safetensors"))
        return
    kept = {name: tensor.cpu().contiguous() for name, tensor in saved_tensors(model, method).items()}
    with writing(folder / WEIGHTS, SafetensorError):
        save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})
        follow_umask(folder / WEIGHTS)


def read_weights(
    base: BaseModel, find: Callable[[], PeftMethod], params: Params, folder: Path, *, seed: int = 0
) -> nn.Module:
    """The model whose add-on and head `write_weights` wrote, in evaluation mode.

    Args:
        base: the model they were trained on.
        find: gives the method; not asked where peft can load its own, so that the plugin need not be installed.
        params: of the add-on.
        folder: what was written to.
        seed: the add-on and the head were drawn from, in case not all of it is kept.

    Raises:
        UserInputError: the file holds other tensors than the method makes.
    """
    from peft import PeftModel
    from safetensors.torch import load_file

    if (folder / PEFT_CONFIG).is_file():
        return cast("nn.Module", PeftModel.from_pretrained(base.copy(), str(folder)).eval())
    method = find()
    model = attach(base, method, params, seed=seed)
    own, kept, wanted = method.save(model), load_file(folder / WEIGHTS), saved_tensors(model, method)
    if kept.keys() != wanted.keys():
        odd = sorted(kept.keys() ^ wanted.keys())[0]
        raise UserInputError(
            f"{folder / WEIGHTS} does not match what its method builds (first difference: {odd}); "
            "install the version of the plugin that wrote it."
        )
    if own is not None:
        method.load(model, kept)
    else:
        for name, tensor in kept.items():
            wanted[name].copy_(tensor)  # a view of the parameter itself
    return model.eval()


def file_size(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of the safetensors file that holds `tensors`: eight, a JSON header padded to eight, and the data.

    Source: the format in the safetensors README; the widest numbers come first, then the names decide.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _short(tensor.dtype), "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + -(-len(text) // 8) * 8 + end


def _short(dtype: torch.dtype) -> str:
    """As the header names it: torch.float32 → F32, torch.bfloat16 → BF16, torch.int64 → I64."""
    name = str(dtype).removeprefix("torch.")
    kind = next(short for long, short in _KINDS.items() if name.startswith(long))
    return kind + "".join(filter(str.isdigit, name))


_KINDS = {"bfloat": "BF", "float": "F", "uint": "U", "int": "I", "bool": "BOOL", "complex": "C"}

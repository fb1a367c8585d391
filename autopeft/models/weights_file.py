"""A saved add-on's weights: what is kept, how large it will be, and how its file is written and read."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, cast

from autopeft.common.exceptions import MethodError, UserInputError
from autopeft.common.rights import follow_umask
from autopeft.methods.sharing import SharingMethod
from autopeft.models import peft_config, tensor_file
from autopeft.models.attach import attach, trainable
from autopeft.models.model_of_tasks import ModelOfTasks
from autopeft.models.saved_params import check_params
from autopeft.study.journal import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch
    from torch import nn

    from autopeft.common.params import Params
    from autopeft.methods.contract import PeftMethod
    from autopeft.models.base import BaseModel

WEIGHTS = "addon.safetensors"
PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
OWN_FILES, PEFT_FILES = (WEIGHTS,), (PEFT_WEIGHTS, PEFT_CONFIG)
"""The files in autopeft's own format, and in peft's."""


def saved_tensors(model: nn.Module, method: PeftMethod) -> dict[str, torch.Tensor]:
    """What is kept of a trained model, by name; on the meta device it gives the sizes.

    If the method does not say, peft decides for its own models: of a reparameterized prefix it keeps only the result,
    not the network.
    """
    from peft import PeftModel

    if isinstance(model, ModelOfTasks):  # a winner keeps the whole add-on for each task, also where they share it
        inner = method.inner if isinstance(method, SharingMethod) else method
        kept = {task: saved_tensors(part, inner) for task, part in model.items()}
        return {f"{task}/{name}": tensor for task, own in kept.items() for name, tensor in own.items()}
    if (own := method.save(model)) is not None:
        return {name: tensor.detach() for name, tensor in own.items()}
    if isinstance(model, PeftModel):
        return _of_peft(model)
    return {name: parameter.detach() for name, parameter in trainable(model).items()}


def _of_peft(model: Any) -> dict[str, torch.Tensor]:
    """What peft keeps of its own model."""
    from peft import get_peft_model_state_dict

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


def write_weights(model: nn.Module, method: PeftMethod, folder: Path) -> dict[str, str]:
    """Write a trained model's add-on and head: in peft's own format if peft keeps them, else to `WEIGHTS`.

    Returns:
        The SHA-256 of each file that `read_weights` reads, by its name.

    Raises:
        StoreError: the files could not be written.
    """
    from peft import PeftModel
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    of_peft = isinstance(model, PeftModel) and method.save(model) is None
    with writing(folder, SafetensorError):
        if of_peft:  # the base model's embeddings are not kept, even if an add-on is beside them
            cast("Any", model).save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        else:
            kept = {name: tensor.cpu().contiguous() for name, tensor in saved_tensors(model, method).items()}
            save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})
        follow_umask(*folder.glob("*.safetensors"))
        return {name: tensor_file.digest(folder / name) for name in (PEFT_FILES if of_peft else OWN_FILES)}


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that `write_weights` wrote to a folder, by their names.

    Raises:
        UserInputError: the file is not there, or damaged.
    """
    return tensor_file.shapes(folder / (PEFT_WEIGHTS if _of_peft_format(folder) else WEIGHTS))


def read_weights(
    base: BaseModel,
    find: Callable[[], PeftMethod],
    params: Params,
    folder: Path,
    *,
    seed: int = 0,
    name: str = "",
    digests: Mapping[str, str] | None = None,
) -> nn.Module:
    """The model whose add-on and head `write_weights` wrote, in evaluation mode.

    Only what the method makes of `params` is loaded: names, shapes and types of the tensors, and peft's configuration,
    are first compared with it on the meta device, and numbers must be finite.

    Args:
        base: the model that they were trained on.
        find: returns the method. What peft can load needs no plugin, and is then compared with its own configuration.
        params: of the add-on.
        folder: where they were written.
        seed: the add-on and the head were drawn from it; needed if not everything was kept.
        name: of the method; "" if unknown.
        digests: what `write_weights` returned; None or empty if unknown.

    Raises:
        MethodError: the method is needed, and its plugin is not installed.
        UserInputError: the files differ from what the method makes, or from what was written.
    """
    if digests and set(digests) != set(PEFT_FILES if _of_peft_format(folder) else OWN_FILES):
        raise UserInputError(
            f"{folder} must hold the files it was saved with ({', '.join(sorted(digests))}), and no others of this "
            "kind; give the whole folder that `autopeft run` wrote."
        )
    if _of_peft_format(folder):
        return _read_peft(base, find, params, folder, seed, name, digests or {})
    method = find()
    path, found = folder / WEIGHTS, tensor_file.shapes(folder / WEIGHTS)
    check_params(method, params, base.spec)
    drawn = attach(base, method, params, seed=seed, meta=True)
    if isinstance(drawn, _peft_model()) and method.save(drawn) is None:
        raise UserInputError(f"{folder} must hold {PEFT_CONFIG}, but does not; give the whole folder that was saved.")
    wanted = saved_tensors(drawn, method)
    tensor_file.check(found, wanted, path)
    _check_digests(folder, digests or {})
    kept = tensor_file.load(path, wanted)
    model = attach(base, method, params, seed=seed)
    own, places = method.save(model), saved_tensors(model, method)
    tensor_file.check(found, places, path)
    if own is not None:
        method.load(model, kept)
    else:
        for place, tensor in kept.items():
            places[place].copy_(tensor)  # a view of the parameter itself
    return model.eval()


def _read_peft(
    base: BaseModel,
    find: Callable[[], PeftMethod],
    params: Params,
    folder: Path,
    seed: int,
    name: str,
    digests: Mapping[str, str],
) -> nn.Module:
    """Like `read_weights`, for what peft can load."""
    from peft import PeftModel, get_peft_model

    path, found = folder / PEFT_WEIGHTS, tensor_file.shapes(folder / PEFT_WEIGHTS)
    content = peft_config.read(folder / PEFT_CONFIG)
    try:
        method = find()
    except MethodError:
        peft_config.screen(content, folder / PEFT_CONFIG, name, params, base.module)
        trained = {**content, "inference_mode": False, "base_model_name_or_path": None}
        drawn: Any = get_peft_model(cast("Any", base.copy(meta=True)), peft_config.build(trained))
    else:
        check_params(method, params, base.spec)
        drawn = attach(base, method, params, seed=seed, meta=True)
        if not isinstance(drawn, PeftModel) or method.save(drawn) is not None:
            raise UserInputError(
                f'{folder} holds {PEFT_CONFIG}, but the method "{method.name}" on its card keeps add-ons in another '
                "format; give the whole folder that was saved."
            )
        peft_config.compare(content, drawn.active_peft_config, folder / PEFT_CONFIG)
    wanted = _of_peft(drawn)
    tensor_file.check(found, wanted, path)
    _check_digests(folder, digests)
    tensor_file.load(path, wanted)  # peft reads them itself, but does not check types or NaN
    config = peft_config.build(content)
    return cast("nn.Module", PeftModel.from_pretrained(cast("Any", base.copy()), str(folder), config=config).eval())


def _peft_model() -> type:
    from peft import PeftModel

    return cast("type", PeftModel)


def _of_peft_format(folder: Path) -> bool:
    """Whether peft's configuration is there, intact or not."""
    return os.path.lexists(folder / PEFT_CONFIG)


def _check_digests(folder: Path, digests: Mapping[str, str]) -> None:
    for name, wanted in digests.items():
        if tensor_file.digest(folder / name) != wanted:
            raise UserInputError(
                f"{folder / name} must be the file that was saved, but its SHA-256 is not the one on the card; restore "
                "the original folder."
            )


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
    """A type's name in the header: torch.float32 → F32, torch.bfloat16 → BF16, torch.int64 → I64."""
    name = str(dtype).removeprefix("torch.")
    kind = next(short for long, short in _KINDS.items() if name.startswith(long))
    return kind + "".join(filter(str.isdigit, name))


_KINDS = {"bfloat": "BF", "float": "F", "uint": "U", "int": "I", "bool": "BOOL", "complex": "C"}

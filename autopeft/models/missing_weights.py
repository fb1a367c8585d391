"""What a checkpoint lacks of the model in its configuration: a head, which is trained, or parts of the model itself.

Only two parts may start from random values: what the task's class adds to the base model, and a pooler, a part after
the layers that pretraining did not need. With a random layer or embedding the model is no longer a pretrained one, and
that part must not be trained like a head.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from autopeft.common.exceptions import ModelError
from autopeft.models.architecture import is_body, layer_names, linear_shape

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

NAMED = 3
"""How many names of tensors a message gives."""

WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DataParallel", "base_model.model.": "peft"}
"""Wrappers that put such a prefix before the names in a model."""


class Drawn(NamedTuple):
    """Names of the parameters that start from random values, and sentences for the user about them."""

    missing: list[str]
    notes: tuple[str, ...]


def judge(module: nn.Module, report: Mapping[str, Any], where: object, *, new_head: bool = True) -> Drawn:
    """Decide what may be drawn at random.

    Args:
        module: the model with its head, as it was loaded.
        report: of transformers: `missing_keys`, `unexpected_keys`, and `mismatched_keys` with both shapes.
        where: the model's folder or hub id, for messages.
        new_head: whether the head may be drawn at random.

    Raises:
        ModelError: a part of the base model, or of a head that must not be drawn, is missing in the checkpoint, or has
            another shape there.
    """
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    shapes = {name: (tuple(there), tuple(here)) for name, there, here in report["mismatched_keys"]}
    mismatched = dict(sorted(shapes.items(), key=lambda entry: (-len(entry[1][0]), entry[0])))  # a matrix says most
    layers = list(layer_names(module))
    base = _Base(module, layers)
    poolers = base.poolers(missing)
    lost = [name for name in missing if base.holds(name) and not _within(name, poolers)]
    if lost:
        raise ModelError(_lost(lost, unexpected, layers, where))
    if changed := [name for name in mismatched if base.holds(name)]:
        there, here = mismatched[changed[0]]
        raise ModelError(
            f"[model] name_or_path: {where} cannot be used: config.json and the weights disagree about {len(changed)} "
            f"tensors of the base model ({changed[0]} is {_shape(there)} in the file, but {_shape(here)} by the "
            "configuration); give the configuration that belongs to the weights."
        )
    notes = [
        f"The checkpoint lacks {name}; it starts from random values and is trained with the head." for name in poolers
    ]
    if mismatched:
        name, (there, here) = next(iter(mismatched.items()))
        notes.append(
            f"The checkpoint has a head of another size ({name}: {_shape(there)}, but {_shape(here)} is needed); the "
            "tensors that do not fit start from random values."
        )
    notes += _left_out(unexpected, layers, base.prefix)
    # A head of another size is still a whole head; of a head in parts, only what is missing is trained.
    heads = [name for name in missing if not base.holds(name)]
    if not new_head and (lacking := [*heads, *mismatched]):
        raise ModelError(
            f"[model] name_or_path: {where} must bring the head of {type(module).__name__}, but its weights lack "
            f"{lacking[0]}{' and more' if len(lacking) > 1 else ''}; give a model that was saved with that head, such "
            "as one pretrained by predicting words."
        )
    return Drawn(sorted({*missing, *(mismatched if heads else ())}), tuple(notes))


class _Base:
    """The base model within a model with a head: what belongs to it, by name."""

    def __init__(self, module: nn.Module, layers: Sequence[str]) -> None:
        inner: Any = module
        self.module: nn.Module = inner.base_model
        own = self.module is not module
        self.prefix = f"{inner.base_model_prefix}." if own else ""
        self._layers = layers
        # A model's own code may define no base model: then every part that holds layers or embeddings belongs to it.
        self._parts = () if own else tuple(n for n, part in module.named_children() if is_body(n, part, layers))

    def holds(self, name: str) -> bool:
        """Whether a parameter belongs to the base model."""
        return name.startswith(self.prefix) if self.prefix else _within(name, self._parts)

    def poolers(self, missing: Collection[str]) -> list[str]:
        """Direct parts of the base model, after the one with the layers, that have linear maps and are all missing."""
        found, after = [], False
        for name, part in self.module.named_children() if self.prefix else ():
            path = self.prefix + name
            if any(_within(layer, [path]) for layer in self._layers):
                after = True
                continue
            own = [f"{path}.{inner}" for inner, _ in part.named_parameters()]
            maps = any(map(linear_shape, part.modules()))
            embeds = any(isinstance(child, nn.Embedding) for child in part.modules())
            if after and maps and not embeds and own and all(inner in missing for inner in own):
                found.append(path)
        return found


def _lost(lost: Sequence[str], unexpected: Sequence[str], layers: Sequence[str], where: object) -> str:
    """Why a model that the checkpoint does not hold cannot be used, with the likely cause."""
    named = ", ".join(lost[:NAMED]) + (", …" if len(lost) > NAMED else "")
    lack = f"its weights lack {len(lost)} tensors of the base model ({named})"
    text = f"[model] name_or_path: {where} cannot be used: {lack}"
    if prefix := _prefix(lost, unexpected):
        by = f", which {WRAPPERS[prefix]} puts there" if prefix in WRAPPERS else ""
        return f'{text}; those in the file have "{prefix}" before their names{by}: save the model inside the wrapper.'
    whole = [layer for layer in layers if any(_within(name, [layer]) for name in lost)]
    if whole and len(whole) < len(layers) and all(_within(name, whole) for name in lost):
        return (
            f"{text}; config.json describes {len(layers)} layers, but the file holds {len(layers) - len(whole)}: give "
            "the configuration that belongs to the weights."
        )
    return f"{text}; give a complete checkpoint, with the configuration that belongs to it."


def _prefix(lost: Iterable[str], unexpected: Sequence[str]) -> str:
    """The prefix of the lost tensors' names in the file, if they are there under longer names."""
    first = next(iter(lost))
    for name in (first, first.partition(".")[2]):
        for other in unexpected:
            if name and other.endswith(f".{name}"):
                return other.removesuffix(name)
    for wrapper in WRAPPERS:
        if unexpected and all(other.startswith(wrapper) for other in unexpected):
            return wrapper
    return ""


def _left_out(unexpected: Iterable[str], layers: Sequence[str], prefix: str) -> list[str]:
    """Sentences on tensors of layers in the file that the configuration does not describe."""
    beyond: dict[str, None] = {}
    inside: list[str] = []
    lists = {layer.rpartition(".")[0] for layer in layers}
    for name in unexpected:
        for path in lists:
            short = path.removeprefix(prefix)
            found = re.match(rf"(?:{re.escape(prefix)})?{re.escape(short)}\.(\d+)\.", name)
            if found and f"{path}.{found[1]}" not in layers:
                beyond[f"{path}.{found[1]}"] = None
            elif found:
                inside.append(name)
    notes = []
    if beyond:
        names = ", ".join(list(beyond)[:NAMED]) + (", …" if len(beyond) > NAMED else "")
        notes.append(
            f"The checkpoint holds {len(beyond)} more layers than config.json describes ({names}); they are left out."
        )
    if inside:
        names = ", ".join(inside[:NAMED]) + (", …" if len(inside) > NAMED else "")
        notes.append(
            f"The checkpoint holds {len(inside)} tensors in its layers that config.json does not describe ({names}); "
            "they are left out."
        )
    return notes


def _within(name: str, parts: Iterable[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _shape(sizes: Iterable[int]) -> str:
    return " by ".join(map(str, sizes)) or "a single number"

"""What a checkpoint lacks of the model that its configuration describes: a head, which is trained, or the model itself.

Only what the task's class puts on top of the base model may start from random values, and a part that follows the
layers and that pretraining had no use for: a pooler. A layer or an embedding that is drawn at random is not a
pretrained model any more, and must not be trained as if it were a head.
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
"""Names of tensors that a message gives."""

WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DataParallel", "base_model.model.": "peft"}
"""What puts such a prefix before the names of a model that it wraps."""


class Drawn(NamedTuple):
    """Names of the parameters that start from random values, and what the user should know of it, a sentence each."""

    missing: list[str]
    notes: tuple[str, ...]


def judge(module: nn.Module, report: Mapping[str, Any], where: object, *, new_head: bool = True) -> Drawn:
    """Settle what may be drawn at random.

    Args:
        module: the model with its head, as it was loaded.
        report: of transformers: `missing_keys`, `unexpected_keys`, and `mismatched_keys` with both shapes.
        where: the model's folder or hub id, for messages.
        new_head: whether the head may be drawn at random.

    Raises:
        ModelError: a part of the base model, or of a head that is not to be drawn, is not in the checkpoint, or of
            another shape there.
    """
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    shapes = {name: (tuple(there), tuple(here)) for name, there, here in report["mismatched_keys"]}
    mismatched = dict(sorted(shapes.items(), key=lambda entry: (-len(entry[1][0]), entry[0])))  # a matrix tells most
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
    # A head of another size is a whole head all the same; of a head in parts, what is missing alone is trained.
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
        # Code that comes with a model may know no base model: then all that holds layers or embeddings is one.
        self._parts = () if own else tuple(n for n, part in module.named_children() if is_body(n, part, layers))

    def holds(self, name: str) -> bool:
        """Whether a parameter is the base model's."""
        return name.startswith(self.prefix) if self.prefix else _within(name, self._parts)

    def poolers(self, missing: Collection[str]) -> list[str]:
        """Parts right below the base model, after the one with the layers, that are linear maps and lack whole."""
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
    """Why a model cannot be used that the checkpoint does not hold, with the likely cause."""
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
    """What stands before the names of lost tensors in the file, if they are there under longer ones."""
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
    """Sentences on what the file holds of the layers and the configuration does not ask for."""
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

"""EVA: A starts from the directions in which its map's inputs vary most (Paischer et al. 2024, arXiv:2410.07170).

B starts at zero, so training starts from the base model. Every map has the same rank: that is peft's `rho=1`. peft
goes on until the directions no longer change, and counts only the answers of texts to write; here the host gives some
batches of rows, and all tokens count.

Memory: each map keeps twice as many directions as its rank. They take at most half of what A's weights, gradients and
moments of AdamW take in training. Inputs are added `PLACES` at a time and not kept, so nothing grows with the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from autopeft import LinearModule, ModelSpec, TrainingRows

PLACES = 1024
"""How many inputs of a map are added at a time."""

ROUNDS = 4
"""Rounds of the subspace iteration that finds singular vectors."""


class Directions:
    """The directions, `most` of them, in which vectors vary most about their mean; the vectors come in pieces.

    Ross et al. 2008, doi:10.1007/s11263-007-0075-7: the directions found so far replace the vectors seen so far.
    """

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0
        self._mean, self._found = torch.zeros(0), torch.zeros(0, 0)

    def add(self, vectors: torch.Tensor) -> None:
        """Include more vectors `[count, width]`, in float32."""
        for start in range(0, len(vectors), PLACES):
            self._add(vectors[start : start + PLACES].float())

    def _add(self, vectors: torch.Tensor) -> None:
        count, mean = len(vectors), vectors.mean(dim=0)
        parts = [vectors - mean]
        if self.count:
            together = self.count + count
            parts += [self._found, (self._mean - mean)[None] * (self.count * count / together) ** 0.5]
            mean = self._mean + (mean - self._mean) * (count / together)
        whole = torch.cat(parts)
        _, values, turned = torch.svd_lowrank(whole, min(self.most, *whole.shape), niter=ROUNDS)
        self._found, self._mean, self.count = (turned * values).T, mean, self.count + count

    def leading(self, rank: int) -> torch.Tensor:
        """Unit vectors, the direction of most variance first: `[rank, width]`, or fewer if vectors vary in fewer."""
        lengths = self._found.norm(dim=1)
        real = int((lengths > lengths.max() * PLACES * torch.finfo(lengths.dtype).eps).sum())
        few = slice(min(rank, real))
        found: torch.Tensor = self._found[few] / lengths[few, None]
        return found


class Watch:
    """Adds up the inputs of linear maps while a model runs; maps with the same input tensor share the sum."""

    def __init__(self, spec: ModelSpec, rank: int) -> None:
        self._decoders = {linear.layer for linear in spec.linears if linear.cross}
        self._kept = 2 * rank  # more than needed, as a direction that was dropped early may matter later
        self._found: dict[str, Directions] = {}
        self._sharing: dict[str, str] = {}
        self._latest: tuple[torch.Tensor | None, str] = None, ""
        self.batch: TrainingRows

    def see(self, linear: LinearModule, given: torch.Tensor) -> None:
        """Add the map's input `given`."""
        latest, owner = self._latest
        if linear.name not in self._found and given is latest:
            self._sharing[linear.name] = owner
        if linear.name in self._sharing:
            return
        self._latest = given, linear.name
        from_encoder = linear.cross and linear.role in ("key", "value")
        vectors = self.batch.filled(given, of_decoder=linear.layer in self._decoders and not from_encoder)
        directions = self._found.setdefault(linear.name, Directions(self._kept))
        with torch.autocast(given.device.type, enabled=False):
            directions.add(vectors)

    def of(self, name: str) -> Directions | None:
        """The directions of the map of that name; None if it had no input."""
        found = self._found.get(self._sharing.get(name, name))
        return found if found and found.count else None


def first_values(
    model: nn.Module, batches: Iterable[TrainingRows], linears: Sequence[LinearModule], spec: ModelSpec, rank: int
) -> dict[str, torch.Tensor]:
    """A of each of the maps, by its name; rows beyond the number of directions keep their values.

    Args:
        model: peft's, with LoRA on the maps.
        batches: of the rows to run.
        linears: the maps.
        spec: the model's.
        rank: of A.
    """
    watch = Watch(spec, rank)

    def seeing(linear: LinearModule) -> Any:
        def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            watch.see(linear, args[0] if args else next(iter(kwargs.values())))

        return model.get_submodule(f"base_model.model.{linear.name}").register_forward_pre_hook(see, with_kwargs=True)

    hooks = [seeing(linear) for linear in linears]
    try:
        for batch in batches:
            watch.batch = batch
            batch.run(model)
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for linear in linears:
        name = f"base_model.model.{linear.name}.lora_A.default.weight"
        found[name] = model.get_parameter(name).detach().clone()
        if directions := watch.of(linear.name):
            leading = directions.leading(rank)
            found[name][: len(leading)] = leading
    return found

"""The LoRAs that are merged: what is known about them, and their tensors, from the winners of earlier studies."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from autopeft import LinearModule, ModelSpec, SavedAddOn, Section, SpecError, Support
from autopeft_lora.method import INITIAL, SUBTRACTED, TARGETS, Lora

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_SOURCES, LARGEST_RANK = 20, 65_536
WHERE = "`sources` in [methods.merged]"
DAMAGED = "what is kept about the sources of a merged LoRA is damaged; restore the winner."


class Kept(Section):
    """The facts about sources that a saved winner keeps."""

    names: list[str]
    ranks: list[int]
    scales: list[float]
    targets: list[str]
    digests: list[str]


@dataclass(frozen=True)
class Source:
    """A LoRA to merge.

    Attributes:
        name: short, and different for each.
        rank: of its pairs, as they are saved.
        scale: what the product of a pair is multiplied by.
        targets: a group of `TARGETS`.
        digest: SHA-256 of the file that it comes from; "" for one that is made up.
        saved: where it comes from; None if it is made up, or was merged into a saved winner.
    """

    name: str
    rank: int
    scale: float
    targets: str
    digest: str = ""
    saved: SavedAddOn | None = field(default=None, compare=False)

    def linears(self, spec: ModelSpec) -> list[LinearModule]:
        """The maps that it changes; on a model that has no such group, none."""
        return TARGETS.linears(spec, self.targets) if self.targets in TARGETS.on(spec) else []

    def fits(self, spec: ModelSpec) -> Support:
        """Whether it was trained on this model, and its tensors are what the model needs."""
        if self.saved is None:
            return Support()
        if not (answer := self.saved.fits(spec)):
            return answer
        wanted = {name: shape for linear in self.linears(spec) for name, shape in _shapes(linear, self.rank).items()}
        if not wanted:
            return Support(f"{spec.architecture} has no maps for the LoRA of {self.saved.folder}.")
        for name, shape in wanted.items():
            found = self.saved.tensors.get(name)
            if found is None or found.shape != shape:
                there = "is missing" if found is None else f"is {list(found.shape)}"
                return Support(
                    f"the LoRA of {self.saved.folder} does not fit {spec.architecture}: {name} {there}, but must be "
                    f"{list(shape)}; give winners of the method `{Lora.name}` on this model."
                )
        return Support()


def names_of(linear: LinearModule) -> tuple[str, str]:
    """The names of the A and the B of a map, in peft's format."""
    return tuple(f"base_model.model.{linear.name}.lora_{part}.weight" for part in "AB")  # type: ignore[return-value]  # two


def _shapes(linear: LinearModule, rank: int) -> dict[str, tuple[int, int]]:
    return dict(zip(names_of(linear), ((rank, linear.in_features), (linear.out_features, rank)), strict=True))


def from_addon(addon: SavedAddOn) -> Source:
    """The source that a winner holds.

    Raises:
        SpecError: the winner is of another method.
    """
    if addon.method != Lora.name:
        raise SpecError(
            f"{WHERE} names {addon.folder}, a winner of the method `{addon.method}`, but only LoRAs can be merged; "
            f"give winners of the method `{Lora.name}`."
        )
    try:
        rank, alpha = int(addon.params["r"]), float(addon.params["lora_alpha"])
        scale = alpha / (rank**0.5 if addon.params.get("use_rslora") else rank)
        subtracted = addon.params.get(INITIAL) in SUBTRACTED  # the pair that is subtracted was saved with the other
        kept = {
            "names": [addon.name],
            "ranks": [2 * rank if subtracted else rank],
            "scales": [scale],
            "targets": [addon.params["target_modules"]],
            "digests": [addon.digest],
        }
        (source,) = from_facts(kept)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, SpecError):
        raise SpecError(f"{WHERE} names {addon.folder}, whose card is damaged; restore it.") from None
    return replace(source, saved=addon)


def facts_of(sources: Sequence[Source]) -> dict[str, Any]:
    """What a saved winner keeps about its sources."""
    return {
        "names": [source.name for source in sources],
        "ranks": [source.rank for source in sources],
        "scales": [source.scale for source in sources],
        "targets": [source.targets for source in sources],
        "digests": [source.digest for source in sources],
    }


def from_facts(facts: Mapping[str, Any]) -> tuple[Source, ...]:
    """The sources that these facts describe, without tensors.

    Raises:
        SpecError: they are no such facts.
    """
    try:
        kept = Kept.model_validate(dict(facts))
    except ValueError:
        raise SpecError(DAMAGED) from None
    lists = (kept.ranks, kept.scales, kept.targets, kept.digests)
    count = len(kept.names)
    whole = 0 < count <= MOST_SOURCES and all(len(one) == count for one in lists) and len({*kept.names}) == count
    if not (whole and all(0 < rank <= LARGEST_RANK for rank in kept.ranks)):
        raise SpecError(DAMAGED)
    return tuple(Source(*each) for each in zip(kept.names, *lists, strict=True))


def maps_of(sources: Sequence[Source], spec: ModelSpec) -> list[LinearModule]:
    """The maps that some source changes, in the model's order."""
    chosen = {linear.name for source in sources for linear in source.linears(spec)}
    return [linear for linear in spec.linears if linear.name in chosen]

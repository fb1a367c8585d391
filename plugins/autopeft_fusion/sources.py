"""The adapters that are used: what is known about them, and their tensors, from the winners of earlier studies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from autopeft import LinearModule, ModelSpec, SavedAddOn, Section, SpecError, Support, layer_groups

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

ROLES = {"pfeiffer": ("feed_forward_down",), "houlsby": ("attention_output", "feed_forward_down")}
"""The linear maps behind which an adapter sits, by its placement."""

NON_LINEARITIES = ("relu", "gelu", "silu")
MOST_SOURCES = 100
LARGEST_FACTOR = 10_000
ADAPTER = "adapter"
"""The name of the method whose winners are used."""


class AdapterSources(Section):
    """Which adapters are used."""

    sources: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
        Field(min_length=1, max_length=MOST_SOURCES),
    ]
    """Winners of the method `adapter` on the same base model, with one placement (`pfeiffer` or `houlsby`): the output
    folders of their studies, or saved winners."""


class Kept(Section):
    """The facts about sources that a saved winner keeps."""

    names: list[str]
    placement: str
    reduction_factors: list[int]
    non_linearities: list[str]
    layers: list[str]
    digests: list[str]


@dataclass(frozen=True)
class Source:
    """An adapter of an earlier winner.

    Attributes:
        name: short, and different for each.
        placement: a key of `ROLES`.
        reduction_factor: the model's width divided by its bottleneck's.
        non_linearity: one of `NON_LINEARITIES`.
        layers: a key of `layer_groups`.
        digest: SHA-256 of the file that it comes from; "" for one that is made up.
        saved: where it comes from; None if it is made up, or was copied into a saved winner.
    """

    name: str
    placement: str
    reduction_factor: int
    non_linearity: str
    layers: str
    digest: str = ""
    saved: SavedAddOn | None = field(default=None, compare=False)

    def width(self, spec: ModelSpec) -> int:
        """The width of its bottleneck."""
        return max(1, spec.hidden_size // self.reduction_factor)

    def sites(self, spec: ModelSpec, layers: tuple[int, ...]) -> list[LinearModule]:
        """The linear maps behind which it sits, in these layers."""
        own = layer_groups(len(spec.layers)).get(self.layers, ())
        chosen = [layer for layer in layers if layer in own]
        return [one for one in spec.linears if one.layer in chosen and one.role in ROLES[self.placement]]

    def shapes(self, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
        """The names and shapes of its tensors."""
        found: dict[str, tuple[int, ...]] = {}
        size = self.width(spec)
        for site in self.sites(spec, tuple(range(len(spec.layers)))):
            width = site.out_features
            parts = {
                "down.weight": (size, width),
                "down.bias": (size,),
                "up.weight": (width, size),
                "up.bias": (width,),
            }
            found |= {f"{site.name}.adapter.{part}": shape for part, shape in parts.items()}
        return found

    def fits(self, spec: ModelSpec) -> Support:
        """Whether it was trained on this model, and its tensors are what the model needs."""
        if self.saved is None:
            return Support()
        if not (answer := self.saved.fits(spec)):
            return answer
        found, wanted = self.tensors(), self.shapes(spec)
        if not wanted:
            return Support(f"{spec.architecture} has no sublayer for the adapters of {self.saved.folder}.")
        for name, shape in wanted.items():
            if name not in found or found[name].shape != shape:
                there = f"is {list(found[name].shape)}" if name in found else "is missing"
                return Support(
                    f"the adapters of {self.saved.folder} do not fit {spec.architecture}: {name} {there}, but must be "
                    f"{list(shape)}; give winners of the method `{ADAPTER}` on this model."
                )
        return Support()

    def tensors(self) -> Mapping[str, np.ndarray]:
        """Its tensors by name; none if it is made up."""
        return self.saved.tensors if self.saved else {}


def from_addon(addon: SavedAddOn, setting: str) -> Source:
    """The source that a winner holds; `setting` names it, for messages.

    Raises:
        SpecError: the winner is of another method, or of a placement that cannot be fused.
    """
    where, advice = f"{setting} names {addon.folder}", f"give winners of the method `{ADAPTER}`"
    if addon.method != ADAPTER:
        raise SpecError(f"{where}, a winner of the method `{addon.method}`, but only adapters can be used; {advice}.")
    placement = str(addon.params.get("placement"))
    if placement not in ROLES:
        raise SpecError(
            f"{where}, whose adapters have the placement `{placement}`, but only `{'` and `'.join(ROLES)}` can be "
            f'used; {advice} with `adapter.placement = "pfeiffer"`.'
        )
    kept = {
        "names": [addon.name],
        "placement": placement,
        "reduction_factors": [addon.params.get("reduction_factor")],
        "non_linearities": [addon.params.get("non_linearity")],
        "layers": [addon.params.get("layers")],
        "digests": [addon.digest],
    }
    (source,) = from_facts(kept)
    return Source(**{**vars(source), "saved": addon})


def agreeing(sources: list[Source], setting: str) -> tuple[Source, ...]:
    """The sources, if they can be used together.

    Raises:
        SpecError: their placements differ.
    """
    first = sources[0]
    for other in sources[1:]:
        if other.placement != first.placement:
            raise SpecError(
                f"{setting} must have one placement, but {first.name} has `{first.placement}` and "
                f"{other.name} has `{other.placement}`; leave one of them out."
            )
    return tuple(sources)


def facts_of(sources: tuple[Source, ...]) -> dict[str, Any]:
    """What a saved winner keeps about its sources."""
    return {
        "names": [source.name for source in sources],
        "placement": sources[0].placement,
        "reduction_factors": [source.reduction_factor for source in sources],
        "non_linearities": [source.non_linearity for source in sources],
        "layers": [source.layers for source in sources],
        "digests": [source.digest for source in sources],
    }


def from_facts(facts: Mapping[str, Any]) -> tuple[Source, ...]:
    """The sources that these facts describe, without tensors.

    Raises:
        SpecError: they are no such facts.
    """
    try:
        kept = Kept.model_validate(dict(facts))
    except ValueError as error:
        raise SpecError(f"what is kept about the sources is damaged: {str(error).splitlines()[0]}.") from None
    count = len(kept.names)
    lists = (kept.reduction_factors, kept.non_linearities, kept.layers, kept.digests)
    whole = 0 < count <= MOST_SOURCES and all(len(one) == count for one in lists) and len({*kept.names}) == count
    known = kept.placement in ROLES and all(one in NON_LINEARITIES for one in kept.non_linearities)
    if not (whole and known and all(0 < factor <= LARGEST_FACTOR for factor in kept.reduction_factors)):
        raise SpecError("what is kept about the sources is damaged; restore the winner.")
    return tuple(
        Source(name, kept.placement, factor, non_linearity, layers, digest)
        for name, factor, non_linearity, layers, digest in zip(kept.names, *lists, strict=True)
    )

"""Named groups of a model's layers: the choices of a dimension `layers`."""

from __future__ import annotations


def layer_groups(depth: int) -> dict[str, tuple[int, ...]]:
    """The choices of a dimension `layers` on a model of `depth` layers, with the indices of their layers.

    Groups that coincide, because there are few layers, come once.
    """
    indices = tuple(range(depth))
    groups: dict[str, tuple[int, ...]] = {}
    for name, members in {
        "all": indices,
        "top_half": indices[depth // 2 :],
        "top_quarter": indices[depth * 3 // 4 :],
        "every_second": indices[1::2],
    }.items():
        if members and members not in groups.values():
            groups[name] = members
    return groups

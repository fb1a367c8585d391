"""Many winners on one base model, which is in memory once: they answer together, also over HTTP."""

from autopeft.common.surface import surface

SURFACE = {
    "Shelf": "shelf",
}
"""The package's public names, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)

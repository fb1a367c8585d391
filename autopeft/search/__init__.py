"""Runs a study: draws candidates, trains and prunes them, and selects a winner."""

from autopeft.common.surface import surface

SURFACE = {
    "Search": "loop",
    "Trial": "trial",
    "make_pruner": "pruner",
    "make_sampler": "sampler",
}
"""The package's public names, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)

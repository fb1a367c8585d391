"""A study is run: candidates drawn, trained and pruned, and a winner selected."""

from autopeft.common.surface import surface

SURFACE = {
    "Search": "loop",
    "Trial": "trial",
    "make_pruner": "pruner",
    "make_sampler": "sampler",
}
"""What the package shows, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)

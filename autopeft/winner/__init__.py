"""A winner: saves it, loads it, predicts with it, exports it."""

from autopeft.common.surface import surface

SURFACE = {
    "FORMATS": "export",
    "Winner": "winner",
    "load": "winner",
    "push": "hub",
    "save": "winner",
}
"""The package's public names, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)

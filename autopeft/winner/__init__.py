"""A winner: saved, loaded, asked for predictions, exported."""

from autopeft.common.surface import surface

SURFACE = {
    "FORMATS": "export",
    "Winner": "winner",
    "load": "winner",
    "push": "hub",
    "save": "winner",
}
"""What the package shows, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)

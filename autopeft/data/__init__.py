"""Finds, reads, checks and splits rows."""

from autopeft.common.surface import surface

SURFACE = {
    "Fold": "split",
    "StudyData": "load",
    "load_rows": "load",
    "read_table": "table",
}
"""The package's public names, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)

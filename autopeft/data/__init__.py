"""Rows: found, read, checked and split."""

from autopeft.common.surface import surface

SURFACE = {
    "Fold": "split",
    "StudyData": "load",
    "load_rows": "load",
    "read_table": "table",
}
"""What the package shows, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)

"""What pickled winners name that were kept before the package had packages: they load through this module."""

from autopeft.winner.winner import _of_files

__all__ = ["_of_files"]

"""A study on disk: its file, its records, its folder."""

from autopeft.common.surface import surface

SURFACE = {
    "Archive": "archive",
    "Card": "card",
    "Evidence": "card",
    "HeldOut": "predictions",
    "Result": "record",
    "StudySpec": "file",
    "TestScores": "record",
    "TrialRecord": "record",
    "open_archive": "archive",
    "ranked": "record",
    "records": "record",
}
"""The package's public names, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)

"""Scores of written texts against their references, for kinds of task that write."""

from autopeft.common.surface import surface

SURFACE = {
    "TextScore": "score",
    "metric_of": "score",
    "score_text": "names",
    "text_score": "names",
    "text_scores": "names",
    "written_texts": "score",
}
"""What the package shows, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)

"""Reads files in SQuAD's format as rows: articles of paragraphs, each with questions and their answers.

Versions 1.1 and 2.0 (Rajpurkar et al. 2016, arXiv:1606.05250; 2018, arXiv:1806.03822), and files made like them. A row
has the article's `title`, the paragraph's `context`, and all fields of the question: `id`, `question`, `answers` and
more. A question without an answer has an empty list of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import DataError, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def is_nested(content: Any) -> bool:
    """Whether the content is that of such a file: an object with a list `data` of objects with `paragraphs`."""
    articles = content.get("data") if isinstance(content, dict) else None
    return isinstance(articles, list) and any(isinstance(one, dict) and "paragraphs" in one for one in articles)


def rows_of(content: dict[str, Any], path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and the place of each in the file, such as `data[0].paragraphs[3].qas[1]`.

    Raises:
        DataError: an article, a paragraph or a question is not an object, or lacks the list that should be in it.
    """
    rows, places = [], []
    for article, in_article in _objects(content, "data", "", path):
        for paragraph, in_paragraph in _objects(article, "paragraphs", in_article, path):
            for asked, place in _objects(paragraph, "qas", in_paragraph, path):
                rows.append({"title": article.get("title"), "context": paragraph.get("context"), **_question(asked)})
                places.append(place)
    return rows, places


def _question(asked: dict[str, Any]) -> dict[str, Any]:
    """The fields of a question; merely plausible answers to a question without an answer are left out."""
    answers = asked.get("answers")
    return {**asked, "answers": [] if answers is None and asked.get("is_impossible") is True else answers}


def _objects(holder: dict[str, Any], key: str, within: str, path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a list, and the place of each."""
    held = holder.get(key)
    name = f"{within}.{key}" if within else key
    if not isinstance(held, list):
        raise DataError(f"{path}, {name}, must be a list as in SQuAD's files, but is {shorten(held, 40)}.")
    for number, one in enumerate(held):
        if not isinstance(one, dict):
            raise DataError(
                f"{path}, {name}[{number}], must be a JSON object as in SQuAD's files, but is {shorten(one, 40)}."
            )
        yield one, f"{name}[{number}]"

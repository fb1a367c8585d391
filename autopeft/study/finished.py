"""Whether a study that is started again has anything left to do, found out without its rows, its model or torch."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopeft.common.files import whole
from autopeft.common.locate import NotFoundError, locate
from autopeft.common.paths import as_path
from autopeft.study.card import CARD
from autopeft.study.file import base_models
from autopeft.study.folder import DONE, MLFLOW_MODEL, OUTBOX, REPORT, RESULT, STORE, TASKS, WINNER, holds_study
from autopeft.study.record import Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from autopeft.study.file import StudySpec

NOTHING_TO_DO = "This study is finished; there was nothing to do."

SOURCES = "sources_of_methods"
"""The key of the files that the settings of methods name."""

MOST_FILES = 5_000
"""A folder of rows is checked up to this many files; with more, the study is started as usual."""


def result_of(spec: StudySpec, plugins: Mapping[str, str]) -> Result | None:
    """The result of a finished study, if nothing has changed since; None if a start may have something to do.

    Args:
        spec: the study.
        plugins: the methods found, each with where it comes from.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads((spec.output / DONE).read_text(encoding="utf-8"))
        if _unchanged(kept, _state(spec, plugins)):
            return Result.read(json.loads((spec.output / RESULT).read_text(encoding="utf-8")))
    return None


def _unchanged(kept: dict[str, Any], now: dict[str, Any] | None) -> bool:
    """Whether nothing differs. What a method built on may be gone by now, but not be another."""
    if now is None or {**kept, SOURCES: None} != {**now, SOURCES: None}:
        return False
    return all(kept[SOURCES].get(path) == state for path, state in now[SOURCES].items())


def mark(spec: StudySpec, plugins: Mapping[str, str], result: Result) -> None:
    """Remember what a study that has ended began with.

    Args:
        spec: the study in its file.
        plugins: see `result_of`.
        result: of the study.
    """
    state = None if result.stopped else _state(spec, plugins)
    if state is None:
        return
    with whole(spec.output / DONE) as draft:
        draft.write_text(json.dumps(state), encoding="utf-8")


def forget(output: Path) -> None:
    """Remove the mark, as the study has something to do."""
    (output / DONE).unlink(missing_ok=True)


def _state(spec: StudySpec, plugins: Mapping[str, str]) -> dict[str, Any] | None:
    """What a start depends on; None where that cannot be found out from outside, or something is missing."""
    output, settings = spec.output, spec.to_dict()
    rows = [task.data for task in spec.tasks or ()] or [spec.data]
    references = [reference for data in rows for reference in (data.train, data.test) if reference]
    sources = [locate(reference, spec.folder) for reference in references]
    chosen = [{key: one for key, one in task.items() if key != "data"} for task in settings["tasks"] or ()]
    own_code = any(":" in text for text in _texts([settings["task"], settings["validation"], chosen]))
    needed = [output / REPORT, output / RESULT, output / MLFLOW_MODEL]
    needed.append(output / WINNER / (TASKS if spec.tasks else CARD))
    needed += [] if spec.tracking.uri else [output / STORE]
    outbox = output / OUTBOX
    if (
        own_code
        or not holds_study(output)
        or any(isinstance(source, str) for source in sources)
        or not all(path.exists() for path in needed)
    ):
        return None
    if outbox.exists() and outbox.stat().st_size:
        return None
    for model in base_models(spec):
        with suppress(NotFoundError):
            sources.append(locate(model, spec.folder))
    seen = [path for source in (*sources, output / WINNER) if isinstance(source, Path) for path in _files(source)]
    of_methods = [path for source in _paths(settings["methods"], spec.folder) for path in _files(source)]
    if len(seen) + len(of_methods) > MOST_FILES:
        return None
    return {"settings": settings, "plugins": dict(plugins), "files": _seen(seen), SOURCES: _seen(of_methods)}


def _seen(files: Iterable[Path]) -> dict[str, list[int]]:
    """The size of each file, and when it was changed."""
    return {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in files}


def _files(source: Path) -> list[Path]:
    return sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]


def _paths(settings: Any, folder: Path) -> Iterator[Path]:
    """What is there of the paths in the settings of methods, such as the winners that one builds on."""
    for text in _texts(settings):
        with suppress(ValueError):
            path = folder / as_path(text)
            if path.exists():
                yield path


def _texts(value: Any) -> Iterator[str]:
    """Every text in a setting."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)

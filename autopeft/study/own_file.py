"""The study file kept for a study that was started without one, so that it can go on from its output folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomli_w

from autopeft.common.exceptions import SpecError
from autopeft.common.files import whole
from autopeft.study.folder import STUDY_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from autopeft.study.file import StudySpec

MARK = "# Written by `autopeft run` for a study that was begun without a file; "
"""The beginning of its first line: a file without it is somebody else's."""


def text_of(content: Mapping[str, Any], output: Path) -> str:
    """A study file with these settings, whose paths do not depend on where it is.

    Args:
        content: tables and settings.
        output: the output folder, which the file will be in.
    """
    settings = {**content, "output": "."}
    tables = {key: value for key, value in settings.items() if isinstance(value, dict)}
    plain = {key: value for key, value in settings.items() if key not in tables}
    return f"{MARK}`autopeft run {output}` goes on with it.\n{tomli_w.dumps({**plain, **tables})}"


def keep(spec: StudySpec) -> None:
    """Write the file of a study that was started without one to its existing output folder; else do nothing.

    Raises:
        SpecError: a file of that name exists, and autopeft did not write it.
    """
    if not spec.text.startswith(MARK):
        return
    path = spec.output / STUDY_FILE
    there = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if there and not there.startswith(MARK):
        raise SpecError(f"{path} is your own study file and is not overwritten; give another --output.")
    if there != spec.text:
        with whole(path) as draft:
            draft.write_text(spec.text, encoding="utf-8")

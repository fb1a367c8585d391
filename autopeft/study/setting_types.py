"""The types of settings that a study file may write in several ways, each with its rule."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from autopeft.common.exceptions import shorten
from autopeft.common.units import (
    MOST_WORKERS,
    parse_bytes,
    parse_cohort,
    parse_count,
    parse_layers,
    parse_seconds,
    parse_workers,
)

TASK_NAME = r"[A-Za-z][\w-]{0,39}"
"""The pattern of the name of one of several tasks, which is also the name of a folder."""


Share = Annotated[int | float, BeforeValidator(parse_count, json_schema_input_type=int | float | str), Field(gt=0)]


Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str), Field(gt=0)]


Workers = Annotated[int | str, BeforeValidator(parse_workers, json_schema_input_type=int | Literal["auto"])]


Cohort = Annotated[int | str, BeforeValidator(parse_cohort, json_schema_input_type=int | Literal["auto"])]


Layers = Annotated[int | str, BeforeValidator(parse_layers, json_schema_input_type=int | Literal["auto"])]


Place = Annotated[int, Field(ge=0, lt=MOST_WORKERS)]


Seconds = Annotated[float, BeforeValidator(parse_seconds, json_schema_input_type=int | float | str), Field(gt=0)]


def _encoding(text: str) -> str:
    try:
        known = codecs.lookup(text)._is_text_encoding  # what `bytes.decode` asks
    except (LookupError, ValueError, UnicodeError):
        known = False
    if not known:
        raise ValueError(f'must be a text encoding that Python knows, such as "cp1252", but got {shorten(text)}')
    return text


Encoding = Annotated[str, AfterValidator(_encoding)]


def _task_name(text: str) -> str:
    if not re.fullmatch(TASK_NAME, text):
        raise ValueError(
            f"must begin with a letter, and have at most 40 letters, digits, '_' and '-', but got {shorten(text)}"
        )
    return text


TaskName = Annotated[str, AfterValidator(_task_name), Field(json_schema_extra={"pattern": f"^{TASK_NAME}$"})]

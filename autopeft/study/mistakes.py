"""The mistakes in a study's settings, as sentences: the rule, the value that broke it, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from autopeft.common.exceptions import SpecError, brief, nearest, shorten
from autopeft.common.training_words import EXAMPLES, training_word
from autopeft.study.sections import GATHERED, NO_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

MOST = 20
"""Number of mistakes that are listed."""

NEEDED = {
    "model": '`name_or_path = "…"`',
    "task": '`kind = "text-classification"`',
    "data": '`train = "rows.csv"`',
}
"""Tables that a study file must have, each with a setting that it needs."""

TRAINING_TABLES = ("training", "train", "trainer", "hyperparameters", "hyperparams", "optim")
"""Names that people give a table of training settings, which a study file does not have."""


def told(mistakes: Sequence[str], source: str) -> SpecError:
    """One error that lists all mistakes; a single one as it is.

    Args:
        mistakes: one or more sentences, each once.
        source: a name for the study.
    """
    if len(mistakes) == 1:
        return SpecError(mistakes[0])
    shown = [*mistakes[:MOST], *[f"{len(mistakes) - MOST} more."] * (len(mistakes) > MOST)]
    return SpecError("\n- ".join((f"there are {len(mistakes)} mistakes in {source}:", *shown)))


def firsts(error: ValidationError) -> list[ErrorDetails]:
    """The first of pydantic's errors for each setting; a union has one for each of its types."""
    found: dict[tuple[int | str, ...], ErrorDetails] = {}
    for one in error.errors(include_url=False):
        found.setdefault(one["loc"][:2], one)
    whole = {place for place in found if len(place) == 1}
    return [one for place, one in found.items() if len(place) == 1 or place[:1] not in whole]


def without(given: Mapping[str, Any], errors: Sequence[ErrorDetails]) -> dict[str, Any]:
    """The settings without those that are wrong."""
    left = dict(given)
    for one in errors:
        table, *rest = (*one["loc"][:2], "", "")  # a rule on several tables has no place
        if rest[0] and isinstance(inner := left.get(str(table)), dict):
            left[str(table)] = {key: value for key, value in inner.items() if key != rest[0]}
        else:
            left.pop(str(table), None)
    return left


def sentence(error: Any, source: str, fields: Mapping[str, Any]) -> str:
    """One of pydantic's errors in autopeft's form: the rule, the value that broke it, and where.

    Args:
        error: an entry of pydantic's list.
        source: a name for the study.
        fields: of the whole study, by name; empty for a plugin's settings.
    """
    *path, key = [part if isinstance(part, int) else brief(part) for part in error["loc"]] or [""]
    if isinstance(key, int) and path:
        key = f"{path.pop()}[{key}]"
    table = str(path[0]) if path else ""
    where = f"in {source}" + (f", [{table}]" if table else "")
    if len(path) > 1 and isinstance(path[1], int):  # in one of several tables of a name
        where = f"in {source}, entry {path[1] + 1} of [[{table}]]"
        table = str(path[2]) if len(path) > 2 else ""
    match error["type"]:
        case "extra_forbidden":
            return f'"{key}" {where} is not a setting; {_advice(str(key), table, fields)}'
        case "missing":
            if not path and key in NEEDED:
                return f"{source} has no [{key}] table; add one with {NEEDED[key]}."
            return f"the setting `{key}` is missing {where}; add it."
        case "value_error":
            reason = str(error["ctx"]["error"])
            subject = "" if reason.startswith("`") else f"`{key}` "
            return f"{subject}{reason}, {where}."
    rule = RULES.get(error["type"])
    must = rule.format(**error.get("ctx", {})) if rule else error["msg"]
    got = shorten(error.get("input"))
    got = "an address (not repeated here)" if "://" in got else got
    return f"`{key}` must be {must}, but got {got} {where}."


def on_training(key: str) -> str:
    """Where a training setting belongs in a study file; empty where `key` is not one."""
    word = training_word(key)
    return (
        word
        and (
            f"training is set in [search], such as `{EXAMPLES[word]}` for all methods or `lora.{EXAMPLES[word]}` for "
            "one; `autopeft methods lora` lists what can be set."
        )
    ) or ""


def _advice(key: str, table: str, fields: Mapping[str, Any]) -> str:
    """Where a setting that is unknown in this table belongs; else the known name nearest to it."""
    if hint := on_training("epochs" if not table and key in TRAINING_TABLES else key):
        return hint
    sections = {name: section for name in fields if (section := _section(fields[name]))}
    elsewhere = [name for name, section in sections.items() if key in section.model_fields]
    if elsewhere and elsewhere != [table]:
        return f"it belongs in [{elsewhere[0]}]."
    if table in sections:
        known = [name for name in sections[table].model_fields if name not in GATHERED.get(table, ())]
    else:
        known = [name for name in fields if name not in NO_SETTINGS]
    return nearest(key, known)


def _section(field: Any) -> type[BaseModel] | None:
    """The table that a field of the study holds; None where it is a setting."""
    kind = field.annotation
    return kind if isinstance(kind, type) and not get_args(kind) and issubclass(kind, BaseModel) else None


RULES = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "literal_error": "one of {expected}",
    "string_pattern_mismatch": "made of letters, digits, '_', '.' and '-'",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list with at least one entry",
    "string_too_short": "a text that is not empty",
    "string_too_long": "a text of at most {max_length} characters",
    "string_unicode": "text that can be written as UTF-8",
    "int_type": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "float_type": "a number",
    "string_type": "a text in quotes",
    "is_instance_of": "a text in quotes that is not empty",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "finite_number": "a finite number",
    "recursion_loop": "a table that does not contain itself",
}
"""What a setting must be, by pydantic's name of the error."""

"""The study file: every setting with its default and its rule, in one place."""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from autopeft.common.exceptions import SHOWN_PATH, SpecError, brief, nearest, shorten
from autopeft.common.paths import as_path
from autopeft.study.comments import without_comments
from autopeft.study.sections import (
    GATHERED,
    NO_SETTINGS,
    BudgetSection,
    DataSection,
    ModelSection,
    SearchSection,
    Section,
    TaskSection,
    TrackingSection,
    ValidationSection,
    WinnerSection,
)

AnySection = TypeVar("AnySection", bound=Section)

LARGEST_FILE = 2**20
"""Bytes of a study file."""


class StudySpec(Section):
    """A study file, checked. Relative paths in it start at its folder."""

    name: str = Field(pattern=r"^[\w][\w.-]*$", max_length=200)
    """Of the study, of its MLflow experiment and of its registered winner. Default: the file's name."""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    """Of everything drawn: rows held out, folds, candidates, batches, initial values, dropout."""
    output: Path = Path()
    """Folder for all that the study writes: new, empty or its own. Default: `outputs/<name>` in the current folder."""
    model: ModelSection
    task: TaskSection
    data: DataSection
    search: SearchSection = SearchSection()
    validation: ValidationSection = ValidationSection()
    budget: BudgetSection = BudgetSection()
    winner: WinnerSection = WinnerSection()
    tracking: TrackingSection = TrackingSection()
    folder: Path = Field(exclude=True)
    """Of the study file."""
    text: str = Field("", exclude=True)
    """Of the study file, without its comments."""

    @classmethod
    def from_file(cls, path: Path | str) -> StudySpec:
        """Read and check a study file.

        Raises:
            SpecError: it is not there, not TOML, or breaks a rule.
        """
        path = Path(path)
        text = _text(path)
        try:
            content = tomllib.loads(text)
        except RecursionError:
            raise SpecError(f"{brief(path)} must nest its lists and tables less deeply.") from None
        except ValueError as error:  # TOML's own, or a number of more digits than Python reads
            raise SpecError(f"{brief(path)} is not valid TOML: {brief(str(error), SHOWN_PATH)}.") from None
        spec = cls.from_mapping({"name": path.stem, **content}, source=brief(path), folder=path.parent)
        return spec.model_copy(update={"text": without_comments(text)})

    @classmethod
    def from_mapping(
        cls, content: Mapping[str, Any], source: str = "the study", folder: Path | None = None
    ) -> StudySpec:
        """Check settings given as nested mappings.

        Raises:
            SpecError: a setting is unknown or missing, or breaks a rule.
        """
        base = (folder or Path()).absolute()
        output, name = content.get("output"), content.get("name")
        given: dict[str, Any] = {**content, "folder": base}
        try:
            if isinstance(output, str | Path) and str(output):
                given["output"] = base / as_path(output)
            elif output is None:
                given["output"] = Path.cwd() / "outputs" / (name if isinstance(name, str) else "")
            spec = cls.model_validate(given)
            as_path(spec.output)
        except ValidationError as error:
            raise SpecError(_sentence(error.errors(include_url=False)[0], source)) from None
        except ValueError as error:
            key = "name" if output is None else "output"
            raise SpecError(f"`{key}` {error}, in {source}.") from None
        return spec.model_copy(update={"tracking": spec.tracking.starting_at(base)})

    def with_metric(self, name: str) -> StudySpec:
        """The same study with that metric."""
        return self.model_copy(update={"validation": self.validation.model_copy(update={"metric": name})})

    def with_model(self, **changed: str | None) -> StudySpec:
        """The same study with other settings in [model]."""
        return self.model_copy(update={"model": self.model.model_copy(update=changed)})

    def to_dict(self) -> dict[str, Any]:
        """Every setting as JSON has it, defaults included; what is not a setting (the folders) is left out."""
        return self.model_dump(mode="json", exclude={"output"})


def read_section(
    section: type[AnySection], content: Mapping[str, Any], table: str, beside: tuple[str, ...] = ()
) -> AnySection:
    """Check the settings of a plugin in a table of the study file.

    Args:
        section: says which there are.
        content: as the study file has them.
        table: in which they stand.
        beside: settings of the table that are not the plugin's.

    Raises:
        SpecError: a setting is unknown or missing, or breaks a rule.
    """
    try:
        return section.model_validate(dict(content))
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            known = nearest(str(first["loc"][0]), [*beside, *section.model_fields])
            raise SpecError(f'"{brief(first["loc"][0])}" in [{table}] is no setting; {known}') from None
        raise SpecError(_sentence({**first, "loc": (table, *first["loc"])}, "the study")) from None


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Settings that differ, dotted key → "key: old → new"."""
    before, after = _flat(old), _flat(new)
    return {
        key: f"{brief(key)}: {shorten(before.get(key))} → {shorten(after.get(key))}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    }


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _text(path: Path) -> str:
    """Of a study file: UTF-8, with or without a byte-order mark.

    Raises:
        SpecError: it cannot be read, or is something else.
    """
    where = brief(path)
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise SpecError(f"the study file {where} does not exist.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError(f"the study file {where} cannot be read: {reason}.") from None
    if len(raw) > LARGEST_FILE:
        raise SpecError(f"a study file must have at most {LARGEST_FILE:,} bytes, but {where} has more.")
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SpecError(f"a study file must be UTF-8, but {where} is UTF-16; save it as UTF-8.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SpecError(f"a study file must be UTF-8, but {where} is not, in line {line}; save it as UTF-8.") from None


def _sentence(error: Any, source: str) -> str:
    """One of pydantic's errors in the house form: the rule, the value that broke it, and where."""
    *path, key = [part if isinstance(part, int) else brief(part) for part in error["loc"]] or [""]
    if isinstance(key, int) and path:
        key = f"{path.pop()}[{key}]"
    table = str(path[0]) if path else ""
    where = f"in {source}" + (f", [{table}]" if table else "")
    match error["type"]:
        case "extra_forbidden":
            section = StudySpec.model_fields[table].annotation if table else StudySpec
            hidden = GATHERED.get(table, NO_SETTINGS if section is StudySpec else ())
            known = [name for name in section.model_fields if name not in hidden]  # type: ignore[union-attr]
            return f'"{key}" {where} is no setting; {nearest(str(key), known)}'
        case "missing":
            kind = "table" if not table and key in ("model", "task", "data") else "setting"
            return f"the {kind} `{key}` is needed {where}, but is not there."
        case "value_error":
            reason = str(error["ctx"]["error"])
            subject = "" if reason.startswith("`") else f"`{key}` "
            return f"{subject}{reason}, {where}."
    rule = RULES.get(error["type"])
    told = rule.format(**error.get("ctx", {})) if rule else error["msg"]
    got = shorten(error.get("input"))
    got = "an address, which is not repeated here" if "://" in got else got
    return f"`{key}` must be {told}, but got {got} {where}."


RULES = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "literal_error": "one of {expected}",
    "string_pattern_mismatch": "made of letters, digits, '_', '.' and '-'",
    "too_short": "a list with at least one entry",
    "string_too_short": "a text that is not empty",
    "string_too_long": "a text of at most {max_length} characters",
    "string_unicode": "a text that can be written as UTF-8",
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
    "recursion_loop": "a table that does not hold itself",
}
"""What a setting must be, by pydantic's name of the error."""

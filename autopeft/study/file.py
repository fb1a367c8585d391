"""The study file: every setting with its default and its rule, in one place."""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from autopeft.common.exceptions import SHOWN_PATH, SpecError, brief, nearest, shorten
from autopeft.common.paths import as_path
from autopeft.study import several_tasks
from autopeft.study.budget_section import BudgetSection
from autopeft.study.comments import without_comments
from autopeft.study.mistakes import firsts, on_training, sentence, told, without
from autopeft.study.overrides import overridden
from autopeft.study.sections import (
    DataSection,
    MethodsSection,
    ModelSection,
    NamedTask,
    SearchSection,
    Section,
    TaskSection,
    ValidationSection,
    WinnerSection,
)
from autopeft.study.tracking_section import TrackingSection

AnySection = TypeVar("AnySection", bound=Section)

LARGEST_FILE = 2**20
"""Most bytes of a study file."""


class StudySpec(Section):
    """The settings of a study. Relative paths start at the folder of the study file."""

    name: str = Field(pattern=r"^[\w][\w.-]*$", max_length=200)
    """Name of the study, of its MLflow experiment and of its registered winner. Default: the name of the file."""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    """Seed of everything random: held-out rows, folds, candidates, batches, initial values, dropout."""
    output: Path = Path()
    """Folder for everything that the study writes: a new or empty folder, or the study's own. Default:
    `outputs/<name>` in the current folder."""
    model: ModelSection
    task: TaskSection
    data: DataSection
    tasks: list[NamedTask] | None = Field(None, max_length=several_tasks.MOST)
    """Several tasks to learn on one base model, instead of [task] and [data]: a table `[[tasks]]` for each, with
    `name`, `kind`, `metric`, the settings of the kind, and its rows in `[tasks.data]`."""
    search: SearchSection = SearchSection()
    methods: MethodsSection = MethodsSection()
    validation: ValidationSection = ValidationSection()
    budget: BudgetSection = BudgetSection()
    winner: WinnerSection = WinnerSection()
    tracking: TrackingSection = TrackingSection()
    folder: Path = Field(exclude=True)
    """Folder of the study file."""
    text: str = Field("", exclude=True)
    """Text of the study file, without its comments."""

    @model_validator(mode="before")
    @classmethod
    def _of_several(cls, given: Any) -> Any:
        return several_tasks.completed(given)

    @model_validator(mode="after")
    def _that_combines(self) -> StudySpec:
        several_tasks.require(self)
        return self

    @classmethod
    def from_file(cls, path: Path | str) -> StudySpec:
        """Read and check a study file.

        Raises:
            SpecError: it does not exist, is not TOML, or breaks rules, which are all listed.
        """
        spec, mistakes = cls.examined_file(path)
        if mistakes or spec is None:
            raise told(mistakes, brief(Path(path)))
        return spec

    @classmethod
    def examined_file(cls, path: Path | str, settings: Sequence[str] = ()) -> tuple[StudySpec | None, list[str]]:
        """Read a study file; see `examined`.

        Args:
            path: of the file.
            settings: override those of the file, such as ``search.trials=5``.

        Raises:
            SpecError: it does not exist or is not TOML, or one of `settings` is not a setting.
        """
        path = Path(path)
        text = _text(path)
        try:
            content = tomllib.loads(text)
        except RecursionError:
            raise SpecError(f"{brief(path)} nests its lists and tables too deeply; nest them less.") from None
        except ValueError as error:  # invalid TOML, or a number with more digits than Python reads
            raise SpecError(f"{brief(path)} is not valid TOML: {brief(str(error), SHOWN_PATH)}.") from None
        content = overridden({"name": path.stem, **content}, settings, cls)
        spec, mistakes = cls.examined(content, brief(path), path.parent)
        kept = "" if settings else without_comments(text)  # the file does not say what is run
        return spec and spec.model_copy(update={"text": kept}), mistakes

    @classmethod
    def from_mapping(
        cls, content: Mapping[str, Any], source: str = "the study", folder: Path | None = None
    ) -> StudySpec:
        """Check settings given as nested mappings.

        Raises:
            SpecError: settings are unknown or missing, or break rules; all of these are listed.
        """
        spec, mistakes = cls.examined(content, source, folder)
        if mistakes or spec is None:
            raise told(mistakes, source)
        return spec

    @classmethod
    def examined(
        cls, content: Mapping[str, Any], source: str = "the study", folder: Path | None = None
    ) -> tuple[StudySpec | None, list[str]]:
        """The study without the settings that break a rule, so that the others can be checked; and the mistakes.

        There is no study if the wrong settings cannot be left out.
        """
        base = (folder or Path()).absolute()
        output, name = content.get("output"), content.get("name")
        given: dict[str, Any] = {**content, "folder": base}
        try:
            if isinstance(output, str | Path) and str(output):
                given["output"] = base / as_path(output)
            elif output is None:
                given["output"] = Path.cwd() / "outputs" / (name if isinstance(name, str) else "")
            spec, mistakes = cls._validated(given, source)
            if spec:
                as_path(spec.output)
                spec = spec.model_copy(update={"tracking": spec.tracking.starting_at(base)})
        except ValueError as error:
            key = "name" if output is None else "output"
            return None, [f"`{key}` {error}, in {source}."]
        return spec, mistakes

    @classmethod
    def _validated(cls, given: Mapping[str, Any], source: str) -> tuple[StudySpec | None, list[str]]:
        try:
            return cls.model_validate(given), []
        except ValidationError as error:
            wrong = firsts(error)
        mistakes = [sentence(one, source, cls.model_fields) for one in wrong]
        with suppress(ValidationError):
            return cls.model_validate(without(given, wrong)), mistakes
        return None, mistakes

    def with_metric(self, name: str) -> StudySpec:
        """The same study with that metric."""
        return self.model_copy(update={"validation": self.validation.model_copy(update={"metric": name})})

    def with_model(self, **changed: str | None) -> StudySpec:
        """The same study with other settings in [model]."""
        return self.model_copy(update={"model": self.model.model_copy(update=changed)})

    def to_dict(self) -> dict[str, Any]:
        """Every setting for JSON, with defaults; fields that are not settings (the folders) are left out."""
        return self.model_dump(mode="json", exclude={"output"})


def base_models(spec: StudySpec) -> list[str]:
    """The base models that the study names; usually one."""
    section = spec.to_dict()["model"]
    named = [section.get("name_or_path"), *(section.get("candidates") or ())]
    return [name for name in named if name]


def read_section(
    section: type[AnySection], content: Mapping[str, Any], table: str, beside: tuple[str, ...] = ()
) -> AnySection:
    """Check a plugin's settings in a table of the study file.

    Args:
        section: declares the plugin's settings.
        content: the settings in the study file.
        table: the table's name.
        beside: settings of the table that are not the plugin's.

    Raises:
        SpecError: a setting is unknown or missing, or breaks a rule.
    """
    try:
        return section.model_validate(dict(content))
    except ValidationError as error:
        found: list[Any] = error.errors(include_url=False)
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])  # why another is missing
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            key = str(first["loc"][0])
            known = on_training(key) or nearest(key, [*beside, *section.model_fields])
            raise SpecError(f'"{brief(first["loc"][0])}" in [{table}] is not a setting; {known}') from None
        raise SpecError(sentence({**first, "loc": (table, *first["loc"])}, "the study", {})) from None


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
    """The text of a study file: UTF-8, with or without a byte-order mark.

    Raises:
        SpecError: it cannot be read, or is not UTF-8.
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

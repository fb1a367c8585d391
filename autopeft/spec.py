"""The study file: every setting with its default and its rule, in one place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from autopeft.exceptions import SpecError, nearest
from autopeft.units import parse_bytes, parse_count, parse_seconds, parse_workers

Share = Annotated[int | float, BeforeValidator(parse_count), Field(gt=0)]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
Workers = Annotated[int | str, BeforeValidator(parse_workers)]
Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(gt=0)]


class Section(BaseModel):
    """A table of the study file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSection(Section):
    """[model]: the base model.

    `name_or_path` is ``package:…``, a local folder or a hub id. `dtype` is the precision of matrix products: "auto"
    takes bfloat16 where the device computes it natively, "bfloat16" insists on that. `quantization` keeps the linear
    maps of the transformer layers in 8 or 4 bits (CUDA only). `max_length` in tokens; default: the model's own limit,
    at most 448. With `trunk_cache` the layers below all that a trial trains run once in a study, without dropout, and
    their output is kept.
    """

    name_or_path: str = Field(min_length=1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantization: Literal["none", "8bit", "4bit"] = "none"
    max_length: int | None = Field(None, ge=2)
    trunk_cache: bool = True
    trust_remote_code: bool = False


class TaskSection(Section):
    """[task]: what is to be learnt."""

    kind: str


class DataSection(Section):
    """[data]: where the rows are and which columns matter.

    `train` and `test` are csv, tsv, jsonl or parquet files, saved datasets folders or hub ids (then with `config`,
    `train_split` and `test_split`). Without `test`, `test_fraction` of the rows is held out before anything else.
    `group` names a column whose values are kept whole on one side of every split.
    """

    train: str = Field(min_length=1)
    test: str | None = None
    test_fraction: float = Field(0.2, gt=0, lt=0.9)
    text: str = "text"
    text_pair: str = "text_pair"
    label: str = "label"
    group: str | None = None
    max_rows: int | None = Field(None, ge=10)
    encoding: str | None = None
    config: str | None = None
    train_split: str = "train"
    test_split: str = "test"

    @model_validator(mode="after")
    def _one_test_set(self) -> DataSection:
        if self.test is not None and "test_fraction" in self.model_fields_set:
            raise ValueError("`test` and `test_fraction` exclude each other; keep one")
        return self


class SearchSection(Section):
    """[search]: how long, over which methods, and any dimension fixed, narrowed or widened.

    `methods` defaults to every method found that supports the model and the task. `warm_start` names the output folder
    of an earlier study, or a saved winner; what won there is tried first. `workers` trials run side by side, in a
    process each, with an equal share of `max_gpu_memory` and of the CPU's threads each. "auto" is one for every two
    cores on a CPU, and one on a GPU, where a single trial can fill the card. With more than one, which trials have
    ended when another is drawn is a matter of timing, so two runs of the same study differ. A method's code that makes
    no progress for `hang_timeout` is interrupted, and its trial fails. Keys that are not listed here are dimensions;
    see `autopeft plan` for their names.
    """

    methods: list[str] | None = Field(None, min_length=1)
    exclude: list[str] = []
    warm_start: str | None = Field(None, min_length=1)
    trials: int = Field(20, ge=1)
    timeout: Seconds | None = None
    hang_timeout: Seconds = 600.0
    workers: Workers = 1
    pruner: Literal["hyperband", "successive_halving", "median", "none"] = "successive_halving"
    overrides: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather_overrides(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or "overrides" in given:
            return given
        fixed = {key: value for key, value in given.items() if key in cls.model_fields}
        return {**fixed, "overrides": {key: value for key, value in given.items() if key not in cls.model_fields}}


class ValidationSection(Section):
    """[validation]: cross-validation on the training rows; `metric` by scikit-learn's name.

    `packing` trains all folds of a trial in one pass: "auto" where that was measured to be faster, "on" wherever the
    method allows it, "off" nowhere. Scores are the same up to the order of random numbers.
    """

    folds: int = Field(3, ge=2, le=20)
    packing: Literal["auto", "on", "off"] = "auto"
    metric: str = "accuracy"


class BudgetSection(Section):
    """[budget]: hard limits; none by default.

    `max_trainable_params` is a number or, as a float, a share of the base model; `max_saved_size` the bytes of the
    file that holds a saved add-on; `max_gpu_memory` the bytes at the peak of a training step; `max_trial_seconds` the
    wall time of one trial.
    """

    max_trainable_params: Share | None = None
    max_gpu_memory: Bytes | None = None
    max_saved_size: Bytes | None = None
    max_trial_seconds: Seconds | None = None

    def max_trainable_params_of(self, base_parameters: int) -> int | None:
        """The limit as a number, for a base model of that size."""
        limit = self.max_trainable_params
        return max(1, int(limit * base_parameters)) if isinstance(limit, float) else limit


class TrackingSection(Section):
    """[tracking]: an MLflow tracking URI; default: a store in the output folder. Credentials: the environment."""

    uri: str | None = None

    @model_validator(mode="after")
    def _no_secrets(self) -> TrackingSection:
        if self.uri and re.search(r"//[^/@]*:[^/@]*@|^https?://[^/@]+@|password=", self.uri):
            raise ValueError(
                "`uri` must not hold a password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
                "(or PGPASSWORD for a database) in the environment"
            )
        return self


class StudySpec(Section):
    """A study file, checked. Relative paths in it start at its folder; the output folder at the current one."""

    name: str = Field(pattern=r"^[\w][\w.-]*$")
    seed: int = Field(0, ge=0)
    output: Path = Path()
    model: ModelSection
    task: TaskSection
    data: DataSection
    search: SearchSection = SearchSection()
    validation: ValidationSection = ValidationSection()
    budget: BudgetSection = BudgetSection()
    tracking: TrackingSection = TrackingSection()
    folder: Path = Field(exclude=True)
    text: str = Field("", exclude=True)

    @classmethod
    def from_file(cls, path: Path | str) -> StudySpec:
        """Read and check a study file.

        Raises:
            SpecError: it is not there, not TOML, or breaks a rule.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            content = tomllib.loads(text)
        except FileNotFoundError:
            raise SpecError(f"the study file {path} does not exist.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"the study file {path} cannot be read: {error}.") from None
        except tomllib.TOMLDecodeError as error:
            raise SpecError(f"{path} is not valid TOML: {error}.") from None
        spec = cls.from_mapping({"name": path.stem, **content}, source=str(path), folder=path.parent)
        return spec.model_copy(update={"text": text})

    @classmethod
    def from_mapping(
        cls, content: Mapping[str, Any], source: str = "the study", folder: Path | None = None
    ) -> StudySpec:
        """Check settings given as nested mappings.

        Raises:
            SpecError: a setting is unknown or missing, or breaks a rule.
        """
        base = (folder or Path()).absolute()
        output = content.get("output")
        where = base / str(output) if output is not None else Path.cwd() / "outputs" / str(content.get("name"))
        try:
            return cls.model_validate({**content, "output": where, "folder": base})
        except ValidationError as error:
            raise SpecError(_sentence(error.errors()[0], source)) from None

    def to_dict(self) -> dict[str, Any]:
        """Every setting as JSON has it, defaults included; what is not a setting (the folders) is left out."""
        return self.model_dump(mode="json", exclude={"output"})


FIXED_SEARCH_KEYS = tuple(key for key in SearchSection.model_fields if key != "overrides")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Settings that differ, dotted key → "key: old → new"."""
    before, after = _flat(old), _flat(new)
    return {
        key: f"{key}: {before.get(key)!r} → {after.get(key)!r}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    }


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _sentence(error: Any, source: str) -> str:
    """One of pydantic's errors in the house form: the rule, the value that broke it, and where."""
    *path, key = [str(part) for part in error["loc"]] or [""]
    table = path[0] if path else ""
    where = f"in {source}" + (f", [{table}]" if table else "")
    got = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            section = StudySpec.model_fields[table].annotation if table else StudySpec
            known = [name for name in section.model_fields if name not in ("folder", "text", "overrides")]  # type: ignore[union-attr]
            return f'"{key}" {where} is no setting; {nearest(key, known)}'
        case "missing":
            kind = "table" if not table and key in ("model", "task", "data") else "setting"
            return f"the {kind} `{key}` is needed {where}, but is not there."
        case "value_error":
            reason = str(error["ctx"]["error"])
            subject = "" if reason.startswith("`") else f"`{key}` "
            return f"{subject}{reason}, {where}."
    rules = {
        "greater_than_equal": "at least {ge}",
        "greater_than": "more than {gt}",
        "less_than_equal": "at most {le}",
        "less_than": "less than {lt}",
        "literal_error": "one of {expected}",
        "string_pattern_mismatch": "made of letters, digits, '_', '.' and '-'",
        "too_short": "a list with at least one entry",
        "string_too_short": "a text that is not empty",
        "int_type": "a whole number",
        "float_type": "a number",
        "string_type": "a text in quotes",
        "bool_type": "true or false",
        "list_type": "a list",
        "model_type": "a table",
    }
    rule = rules.get(error["type"])
    told = rule.format(**error.get("ctx", {})) if rule else error["msg"]
    return f"`{key}` must be {told}, but got {got!r} {where}."

"""The tables of a study file: each setting with its default and its rule."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from autopeft.common.address import holds_no_secret
from autopeft.common.exceptions import shorten
from autopeft.common.units import parse_bytes, parse_count, parse_seconds, parse_workers
from autopeft.study.references import MOST_CANDIDATES, Reference, References, several

Share = Annotated[int | float, BeforeValidator(parse_count, json_schema_input_type=int | float | str), Field(gt=0)]


Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str), Field(gt=0)]


Workers = Annotated[int | str, BeforeValidator(parse_workers, json_schema_input_type=int | Literal["auto"])]


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


class Section(BaseModel):
    """A table of the study file. The texts below settings are their descriptions in the schema and the reference."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def _gathered(section: type[Section], given: Any, others: str, kind: type = object) -> Any:
    """What a table says, with the keys that are not settings of ours under the name `others`; values of that kind."""
    if not isinstance(given, Mapping) or others in given:
        return given
    more = {key: value for key, value in given.items() if key not in section.model_fields and isinstance(value, kind)}
    return {**{key: value for key, value in given.items() if key not in more}, others: more}


def _one_or_several(schema: dict[str, Any]) -> None:
    """A study file names one base model or several."""
    schema.pop("required")
    schema["oneOf"] = [{"required": ["name_or_path"]}, {"required": ["candidates"]}]


class ModelSection(Section):
    """The base model, or a few to choose from."""

    model_config = ConfigDict(json_schema_extra=_one_or_several)

    name_or_path: Reference
    """`package:…` for a folder inside an installed package, a local folder, or a hub id. Excludes `candidates`."""
    candidates: list[str] | None = Field(None, min_length=2, max_length=MOST_CANDIDATES)
    """Base models that the search chooses among, in place of `name_or_path`: a list of 2 to 8, each named as there. The
    other settings here hold for all of them."""
    revision: str | None = Field(None, min_length=1)
    """Commit, branch or tag of a model on the hub. Default: the newest commit; a study keeps to that it began with.
    Excludes `candidates`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of matrix products: "auto" takes the faster of two by a measured step where the device computes
    bfloat16 natively, float32 on other CPUs; "float16", with the loss scaled, is for GPUs without bfloat16."""
    quantization: Literal["none", "8bit", "4bit"] = "none"
    """Keeps the linear maps of the transformer layers in 8 or 4 bits; needs the extra `quantization`, and CUDA or an
    x86 processor."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """AdamW with its moments in float32, or in 8 bits, which needs the extra `quantization`, and CUDA or an x86
    processor; paged, a GPU without room moves large ones to the processor's memory."""
    max_length: int | None = Field(None, ge=2, le=2**31 - 1)
    """Tokens of an input, at most. Default: the model's own limit, but at most 448."""
    truncation: Literal["head", "tail", "both"] | None = None
    """What is kept of a longer input: its beginning, its end, or half of each; of a pair the longer text is cut first.

    Default: as the model's tokenizer has it, which is "head" for nearly all.
    """
    image_size: int | None = Field(None, ge=8, le=4096)
    """Side of an image, in pixels, that the model is given. Default: as its image processor has it."""
    trunk_cache: bool = True
    """Whether layers below all that a trial trains run once in a study, without dropout, and their output is kept."""
    trust_remote_code: bool = False
    """Whether code that the model brings may run."""

    @model_validator(mode="before")
    @classmethod
    def _first_of_several(cls, given: Any) -> Any:
        """Several candidates stand in place of one: `name_or_path` is then the first of them."""
        if not isinstance(given, Mapping) or given.get("candidates") is None:
            return given
        if "name_or_path" in given:
            raise ValueError("`name_or_path` and `candidates` exclude each other; keep one")
        return {**given, "name_or_path": several(given["candidates"])[0]}

    @model_validator(mode="after")
    def _of_one_model(self) -> ModelSection:
        if self.candidates and self.revision is not None:
            raise ValueError("`revision` is of one base model, and excludes `candidates`; leave one of them out")
        if self.candidates and self.quantization != "none":
            raise ValueError('`quantization` must be "none" with `candidates`; set it so, or give one `name_or_path`')
        return self

    @model_serializer(mode="wrap")
    def _as_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Either of the two, as a study file has it."""
        return {
            key: value
            for key, value in write(self).items()
            if key != ("candidates" if self.candidates is None else "name_or_path")
        }


class TaskSection(Section):
    """What is to be learnt. Any other key here is a setting of the kind; `autopeft tasks` shows them."""

    kind: str
    """Such as "text-classification" or "text-pair-classification"; `autopeft tasks` lists the kinds."""
    options: dict[str, Any] = {}
    """The kind's own settings, as they were gathered."""

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, given: Any) -> Any:
        return _gathered(cls, given, "options")


COLUMNS = ("text", "text_pair", "label", "image")
"""Columns that have a setting of their own in [data]; those of other tasks are gathered."""


class DataSection(Section):
    """Where the rows are and which columns matter. Any other key here is a column of the task."""

    train: Reference
    """A csv, tsv, jsonl, parquet, xlsx, ods or CoNLL file, a saved datasets folder, a folder of images, or a hub id;
    `package:…` for one inside a package."""
    test: Reference | None = None
    """Held-out rows, in any of these forms. Without it, `test_fraction` of the rows is held out."""
    test_fraction: float = Field(0.2, gt=0, lt=0.9)
    """Share of the rows that is held out before anything else looks at them; excludes `test`."""
    text: str = "text"
    """Column of the text."""
    text_pair: str = "text_pair"
    """Column of the second text, for text pairs."""
    label: str = "label"
    """Column of the label."""
    image: str = "image"
    """Column of the image: a path from the table's folder on, or the bytes. A folder of images, with a sub-folder for
    each label, has the columns `image` and `label` by itself."""
    group: str | None = None
    """Column whose values are kept whole on one side of every split, such as an author. Of tasks that write, rows with
    the same prompt stay together without it."""
    max_rows: int | None = Field(None, ge=10, le=10**12)
    """Takes that many rows at most, drawn at random with every label in its share."""
    on_missing: Literal["error", "drop"] = "error"
    """What becomes of rows with an empty cell in a column that is read: "drop" leaves them out and says how many."""
    encoding: Encoding | None = None
    """Of a text file. Default: UTF-8, and cp1252 for lines that are not."""
    sheet: str | None = Field(None, min_length=1)
    """Sheet of an xlsx file, which needs the extra `tables`, or of an ods file. Default: the first."""
    test_sheet: str | None = Field(None, min_length=1)
    """Sheet of `test`. Default: as `sheet`."""
    config: str | None = None
    """Name of a hub data set's configuration."""
    train_split: str = "train"
    """Split of a data set with several, to train on."""
    test_split: str = "test"
    """Split that is held out."""
    columns: dict[str, str] = {}
    """Columns of the task beside `text`, `text_pair` and `label`, as they were gathered."""

    @model_validator(mode="before")
    @classmethod
    def _gather_columns(cls, given: Any) -> Any:
        return _gathered(cls, given, "columns", str)

    @property
    def named(self) -> set[str]:
        """Keys of the columns that the study file names."""
        return self.model_fields_set | {*self.columns}

    @property
    def names_columns(self) -> bool:
        """Whether the study file names a column of texts or of a kind's own, so that none is to be recognised."""
        return bool(self.columns) or "text" in self.named

    def column(self, key: str) -> str:
        """What the table calls the task's column of that key; the key itself where nothing is said."""
        return str(getattr(self, key)) if key in COLUMNS else self.columns.get(key, key)

    @model_validator(mode="after")
    def _one_test_set(self) -> DataSection:
        if self.test is not None and "test_fraction" in self.model_fields_set:
            raise ValueError("`test` and `test_fraction` exclude each other; keep one")
        return self


class SearchSection(Section):
    """How long to search, and over what. Any other key here is a dimension, fixed, narrowed or widened.

    `lora.r = [4, 32]` is a range, `lora.target_modules = ["attention", "all_linear"]` a list of choices,
    `adapter.placement = "pfeiffer"` a fixed value; `learning_rate = 3e-4`, without a method, is meant for all of them.
    `autopeft methods lora` shows the dimensions of a method, those of its training too, with their defaults.
    """

    methods: list[str] | None = Field(None, min_length=1)
    """Methods to choose from. Default: every method found that supports the model and the task."""
    exclude: list[str] = []
    """Methods to leave out of that default."""
    warm_start: References | None = None
    """Output folder of an earlier study, or a saved winner, or a list of such: what won there is tried first."""
    portfolio: bool = True
    """Whether what did best on recorded tasks is tried next, and two defaults instead of all are sure to be trained to
    their end in the search; `autopeft recommend` shows it."""
    trials: int = Field(20, ge=1, le=10**6)
    """Candidates to train; proposals refused for the budget do not count."""
    timeout: Seconds | None = None
    """Time after which no trial starts and running ones stop at their next rung, to go on at the next start: seconds,
    or "10m", "2h". By the clock on the wall, of each start: a process that is stopped meanwhile is late as well."""
    hang_timeout: Seconds = 600.0
    """A method's code that makes no progress for that long is interrupted, and its trial fails: seconds, or "10m". Time
    in which the process is stopped does not count."""
    workers: Workers = 1
    """Trials side by side, in a process each, with an equal share of `max_gpu_memory` and of the CPU's threads.

    "auto" is one for every two cores on a CPU, and one on a GPU. With more than one, two runs of the same study differ.
    """
    references: bool = True
    """Whether the head alone and full fine-tuning are trained once, after the search, and scored beside the winner on
    the held-out rows; each as far as memory and three times the longest refit allow."""
    sampler: Literal["tpe", "random"] = "tpe"
    """What draws candidates: near the defaults and then where trials scored, or evenly from the whole space."""
    pruner: Literal["hyperband", "successive_halving", "median", "none"] = "successive_halving"
    """What stops trials that fall behind, after each rung of all folds."""
    race: float = Field(0.3, ge=0, le=2)
    """Rows that the leaders and the best default may train on at the end, on fresh folds, so that a lucky score does
    not win: as a share of those that the search trained on. 0 is none; a `timeout` is divided likewise."""
    overrides: dict[str, Any] = {}
    """The dimensions, as they were gathered."""

    @property
    def starts(self) -> list[str]:
        """What `warm_start` names."""
        return [self.warm_start] if isinstance(self.warm_start, str) else self.warm_start or []

    @model_validator(mode="before")
    @classmethod
    def _gather_overrides(cls, given: Any) -> Any:
        return _gathered(cls, given, "overrides")


class ValidationSection(Section):
    """Cross-validation on the training rows."""

    folds: int = Field(3, ge=2, le=20)
    """Stratified folds, which train in lockstep."""
    packing: Literal["auto", "on", "off"] = "auto"
    """Whether all folds train in one pass: where that was measured to be faster, wherever it can be, or nowhere.

    Scores are the same up to the order of random numbers.
    """
    metric: str | None = None
    """What is maximised, by scikit-learn's name, or `module:function` of a Python file beside the study file. Default:
    the task's first, which is accuracy for classification."""

    def rows_of_fold(self, rows: int) -> int:
        """How many of the study's rows a fold trains on."""
        return max(rows - rows // self.folds, 1)


class BudgetSection(Section):
    """Hard limits: nothing over one of them is trained. None is set by default."""

    max_trainable_params: Share | None = None
    """Parameters that training changes: a number, "2M", or a share of the base model such as "0.5%"."""
    max_gpu_memory: Bytes | None = None
    """Peak of a training step, on a CPU too; on a GPU with all that the process takes there: bytes, or "2 GiB"."""
    max_saved_size: Bytes | None = None
    """Weight of the saved add-on's file: bytes, or "4 MB"."""
    max_trial_seconds: Seconds | None = None
    """Wall time of a trial, predicted from its first steps: seconds, or "5m"."""


class WinnerSection(Section):
    """What becomes of the candidate that wins."""

    form: Literal["refit", "average", "ensemble"] = "refit"
    """Trained once more, on all training rows; or what its folds learnt: "average" is the mean of their add-ons, where
    its method has one that loses no more on training rows than they do, else the refit; "ensemble" is the models of all
    folds, whose answers are averaged. A study cannot tell which is best, since the folds saw its rows."""


class TrackingSection(Section):
    """Where trials are logged."""

    uri: str | None = None
    """An MLflow tracking URI. Default: a SQLite store in the output folder. Credentials belong in the environment."""
    system_metrics: bool = True
    """Whether the machine's load during the search is logged with it; GPUs' too where `nvidia-ml-py` is installed."""

    @model_validator(mode="after")
    def _no_secrets(self) -> TrackingSection:
        if self.uri and not holds_no_secret(self.uri):
            raise ValueError(
                "`uri` must not hold a password, a token or a setting that could be one, so it is not repeated here; "
                'write it as "https://host:5000", "postgresql://user@host/db" or "sqlite:///trials.db", and set '
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN, or PGPASSWORD for a "
                "database, in the environment"
            )
        return self

    def starting_at(self, folder: Path) -> TrackingSection:
        """The path of a SQLite file in the address starts at `folder`, whose own % and ? are escaped."""
        path = re.fullmatch(r"sqlite:///(?![/:])(.+)", self.uri or "")
        escaped = Path(str(folder).replace("%", "%25").replace("?", "%3F"))
        return self.model_copy(update={"uri": f"sqlite:///{escaped / path[1]}"}) if path else self


NO_SETTINGS = ("folder", "text")
"""Fields of `StudySpec` that no study file has."""

GATHERED = {"search": ("overrides",), "task": ("options",), "data": ("columns",)}
"""By table, the fields in which keys are gathered that a plugin knows."""


FIXED_SEARCH_KEYS = tuple(key for key in SearchSection.model_fields if key != "overrides")

"""The tables of a study file: each setting with its default and its rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from autopeft.common.exceptions import shorten
from autopeft.study.references import MOST_CANDIDATES, Reference, References, several
from autopeft.study.setting_types import (  # noqa: TC001  # pydantic's
    Cohort,
    Encoding,
    Layers,
    Place,
    Seconds,
    TaskName,
    Workers,
)

LOCAL_BACKEND = "local"
"""The backend that needs no plugin: the study's own machine."""


class Section(BaseModel):
    """A table of the study file. The texts below settings are their descriptions in the schema and the reference."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def _gathered(section: type[Section], given: Any, others: str, kind: type = object) -> Any:
    """A table's content, with keys that are not our settings moved to `others`, if their values have type `kind`."""
    if not isinstance(given, Mapping) or others in given:
        return given
    more = {key: value for key, value in given.items() if key not in section.model_fields and isinstance(value, kind)}
    return {**{key: value for key, value in given.items() if key not in more}, others: more}


def _one_or_several(schema: dict[str, Any]) -> None:
    """Let the schema require one base model or several."""
    schema.pop("required")
    schema["oneOf"] = [{"required": ["name_or_path"]}, {"required": ["candidates"]}]


class ModelSection(Section):
    """The base model, or several to choose from."""

    model_config = ConfigDict(json_schema_extra=_one_or_several)

    name_or_path: Reference
    """`package:…` for a folder inside an installed package, a local folder, or a hub id. Not together with
    `candidates`."""
    candidates: list[str] | None = Field(None, min_length=2, max_length=MOST_CANDIDATES)
    """Base models to choose from, instead of `name_or_path`: a list of 2 to 8, each written as for `name_or_path`. The
    other settings in this table apply to all of them."""
    revision: str | None = Field(None, min_length=1)
    """Commit, branch or tag of a model on the hub. Default: the newest commit when the study begins; the study then
    keeps to it. Not together with `candidates`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of matrix products. On a device that computes bfloat16 natively, "auto" times a step in two precisions
    and takes the faster one; on other CPUs it takes float32. "float16", with a scaled loss, is for GPUs without
    bfloat16."""
    quantization: Literal["none", "8bit", "4bit"] = "none"
    """Keeps the linear layers inside the transformer layers in 8 or 4 bits. Needs the extra `quantization`, and CUDA or
    an x86 processor."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """AdamW with its moments in float32 or in 8 bits. 8 bits need the extra `quantization`, and CUDA or an x86
    processor. The paged optimizer moves large moments to CPU memory when the GPU has no room."""
    max_length: int | None = Field(None, ge=2, le=2**31 - 1)
    """Maximum number of tokens of an input. Default: the model's own limit, but at most 448."""
    truncation: Literal["head", "tail", "both"] | None = None
    """What to keep of an input that is too long: its beginning, its end, or half of each. Of a pair, the longer text is
    cut first.

    Default: what the model's tokenizer does, which is "head" for nearly all models.
    """
    image_size: int | None = Field(None, ge=8, le=4096)
    """Side of the images that the model gets, in pixels. Default: the size in the model's image processor."""
    trunk_cache: bool = True
    """Whether to run the layers below the first trained one only once in a study, without dropout, and keep their
    output."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""

    @model_validator(mode="before")
    @classmethod
    def _first_of_several(cls, given: Any) -> Any:
        """With several candidates, `name_or_path` is the first of them."""
        if not isinstance(given, Mapping) or given.get("candidates") is None:
            return given
        if "name_or_path" in given:
            raise ValueError("`name_or_path` and `candidates` exclude each other; keep only one of them")
        return {**given, "name_or_path": several(given["candidates"])[0]}

    @model_validator(mode="after")
    def _of_one_model(self) -> ModelSection:
        if self.candidates and self.revision is not None:
            raise ValueError(
                "`revision` belongs to a single base model and excludes `candidates`; remove one of the two"
            )
        if self.candidates and self.quantization != "none":
            raise ValueError('`quantization` must be "none" with `candidates`; change it, or give one `name_or_path`')
        return self

    @model_serializer(mode="wrap")
    def _as_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """One of the two, as in a study file."""
        return {
            key: value
            for key, value in write(self).items()
            if key != ("candidates" if self.candidates is None else "name_or_path")
        }


class TaskSection(Section):
    """What the model learns. Any other key here is a setting of the kind of task; `autopeft tasks` lists them."""

    kind: str
    """The kind of task, such as "text-classification" or "text-pair-classification". `autopeft tasks` lists all."""
    options: dict[str, Any] = {}
    """The kind's own settings, as they were gathered."""

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, given: Any) -> Any:
        return _gathered(cls, given, "options")


class MethodsSection(Section):
    """Settings of methods that need some, a table for each: [methods.NAME]. They are not searched.

    `autopeft methods NAME` lists those of a method.
    """

    settings: dict[str, dict[str, Any]] = {}
    """The tables by the method's name, as they were gathered."""

    @model_validator(mode="before")
    @classmethod
    def _gather_settings(cls, given: Any) -> Any:
        return _gathered(cls, given, "settings")


SEVERAL_TASKS = "multi-task"
"""The kind of task of a study with `[[tasks]]`."""


COLUMNS = ("text", "text_pair", "label", "image")
"""Columns with their own setting in [data]; other tasks' columns are gathered."""


class DataSection(Section):
    """Where the rows are, and which columns to read. Any other key here names a column of the task."""

    train: Reference
    """A csv, tsv, jsonl, parquet, xlsx, ods or CoNLL file, a saved datasets folder, a folder of images, or a hub id;
    `package:…` for one inside a package."""
    test: Reference | None = None
    """The held-out rows, in any of these forms. Without it, `test_fraction` of the rows is held out."""
    test_fraction: float = Field(0.2, gt=0, lt=0.9)
    """Share of the rows to hold out before anything else reads them. Not together with `test`."""
    text: str = "text"
    """Column of the text."""
    text_pair: str = "text_pair"
    """Column of the second text, for text pairs."""
    label: str = "label"
    """Column of the label."""
    image: str = "image"
    """Column of the image: a path relative to the table's folder, or the bytes. A folder of images with one sub-folder
    for each label has the columns `image` and `label` without further settings."""
    group: str | None = None
    """Column whose rows with the same value stay on one side of every split, such as an author. For tasks that write
    texts, rows with the same prompt stay together without this setting."""
    max_rows: int | None = Field(None, ge=10, le=10**12)
    """Maximum number of rows to use. They are drawn at random and keep the shares of the labels."""
    on_missing: Literal["error", "drop"] = "error"
    """What to do with rows that have an empty cell in a column of the study: "error" stops, "drop" leaves them out and
    says how many."""
    encoding: Encoding | None = None
    """Encoding of a text file. Default: UTF-8, and cp1252 for lines that are not; for all if most are not."""
    sheet: str | None = Field(None, min_length=1)
    """Sheet of an xlsx file, which needs the extra `tables`, or of an ods file. Default: the first."""
    test_sheet: str | None = Field(None, min_length=1)
    """Sheet of `test`. Default: the same as `sheet`."""
    config: str | None = None
    """Name of a hub data set's configuration."""
    train_split: str = "train"
    """Split to train on, where a data set has several."""
    test_split: str = "test"
    """Split to hold out."""
    columns: dict[str, str] = {}
    """Columns of the task beside `text`, `text_pair` and `label`, as they were gathered."""

    @model_validator(mode="before")
    @classmethod
    def _gather_columns(cls, given: Any) -> Any:
        return _gathered(cls, given, "columns", str)

    @property
    def named(self) -> set[str]:
        """The keys of the columns that the study file names."""
        return self.model_fields_set | {*self.columns}

    @property
    def names_columns(self) -> bool:
        """Whether the study file names a column of texts or of the task, so that none has to be recognised."""
        return bool(self.columns) or "text" in self.named

    def column(self, key: str) -> str:
        """The table's name for the task's column with that key; the key itself where none is given."""
        return str(getattr(self, key)) if key in COLUMNS else self.columns.get(key, key)

    @model_validator(mode="after")
    def _one_test_set(self) -> DataSection:
        if self.test is not None and "test_fraction" in self.model_fields_set:
            raise ValueError("`test` and `test_fraction` exclude each other; keep one")
        return self


class NamedTask(TaskSection):
    """One of several tasks on one base model. Any other key here is a setting of the kind of task."""

    name: TaskName
    """Its name in tables, metrics and folders."""
    metric: str | None = None
    """The metric to maximise. Default: the first metric of the kind."""
    data: DataSection
    """Where its rows are, with the settings of [data]."""


class SearchSection(Section):
    """How long to search, and which settings to try. Any other key here fixes, narrows or widens a dimension.

    `lora.r = [4, 32]` is a range, `lora.target_modules = ["attention", "all_linear"]` is a list of choices, and
    `adapter.placement = "pfeiffer"` is a fixed value. `learning_rate = 3e-4`, without a method, applies to all methods.
    `autopeft methods lora` shows the dimensions of a method, also those of its training, with their defaults.
    """

    methods: list[str] | None = Field(None, min_length=1)
    """Methods to choose from. Default: every installed method that supports the model and the task."""
    exclude: list[str] = []
    """Methods to leave out of the default of `methods`."""
    warm_start: References | None = None
    """Output folder of an earlier study, a saved winner, or a list of these. The search tries their winners first."""
    portfolio: bool = True
    """Whether the search starts, after `warm_start`, with candidates that did best on recorded tasks. It then trains
    only two defaults to their end in any case, not every method's. `autopeft recommend` shows these candidates."""
    trials: int = Field(20, ge=1, le=10**6)
    """Number of candidates to train. Proposals that the budget refuses do not count."""
    timeout: Seconds | None = None
    """Time limit: seconds, or "10m", "2h". After it no trial starts, and running trials stop at their next rung; the
    next start of the study continues them. It is wall-clock time and counts from each start, also while the process is
    suspended."""
    hang_timeout: Seconds = 600.0
    """Time after which a method's code that makes no progress is interrupted and its trial fails: seconds, or "10m".
    Time while the process is suspended does not count. A worker process that shows no progress for twice this time is
    ended, and its trial goes on in another one."""
    workers: Workers = 1
    """Number of trials that run at the same time, each in its own process with an equal share of the CPU threads and of
    its GPU's memory, or of `max_gpu_memory` if that is less; on a CPU, of `max_gpu_memory`.

    "auto" is one for every GPU, one for every two cores on a CPU, and one with `candidates` in [model] or `[[tasks]]`;
    it is the default with `devices`. With more than one worker, two runs of the same study differ.
    """
    devices: list[Place] | None = Field(None, min_length=1)
    """The GPUs to train on, as indices of the visible ones, such as [0, 2]. The workers are spread over them, and each
    worker sees only its own GPU. Default: the first one for one worker, all of them for several."""
    backend: str = LOCAL_BACKEND
    """What runs the trials: "local", this process or `workers` processes beside it; or the name of a backend that a
    plugin brings, such as "ray" for many machines (extra `ray`). There each worker may use all of `max_gpu_memory`, and
    "auto" workers are as many as the machines have GPUs, or pairs of CPUs."""
    address: str | None = Field(None, min_length=1, max_length=300)
    """Where the backend finds its machines. For "ray": "auto" for the cluster that this machine belongs to, or
    "host:port" of one. Default: no cluster is joined; Ray is started on this machine and ends with the study."""
    cohort: Cohort = "auto"
    """Number of candidates of one method that train in one pass with all their folds: 1 to 64, or "auto".

    "auto" is 1 on a CPU, where it saves little time. On a GPU it is an eighth of `trials`, at most 8, for LoRA, DoRA,
    adapters and other methods whose candidates fit together; fewer where `max_gpu_memory` is too small. Candidates in
    one pass differ in size, dropout and training, and have all other choices in common; new ones take the place of
    those that stop. More than 1 needs `workers = 1`.
    """
    references: bool = True
    """Whether to train the head alone, and all weights (full fine-tuning), once after the search, and score both on the
    held-out rows beside the winner. Each is left out if memory, or three times the longest refit, does not suffice."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How candidates are drawn: "tpe" draws near the defaults and later near good trials, "random" draws evenly from
    the whole space."""
    pruner: Literal["hyperband", "successive_halving", "median", "none"] = "successive_halving"
    """The rule that stops trials that fall behind. It decides after each rung, once all folds are scored."""
    race: float = Field(0.3, ge=0, le=2)
    """How much training the race may use, as a share of the rows that the search trained on. In the race the leaders
    and the best default train on fresh folds, so that a lucky score does not win. 0 means no race. A `timeout` is
    divided in the same ratio."""
    overrides: dict[str, Any] = {}
    """The dimensions, as they were gathered."""

    @property
    def starts(self) -> list[str]:
        """The references in `warm_start`."""
        return [self.warm_start] if isinstance(self.warm_start, str) else self.warm_start or []

    @model_validator(mode="before")
    @classmethod
    def _gather_overrides(cls, given: Any) -> Any:
        return _gathered(cls, given, "overrides")

    @model_validator(mode="before")
    @classmethod
    def _a_worker_for_each_device(cls, given: Any) -> Any:
        named = isinstance(given, Mapping) and given.get("devices") is not None and "workers" not in given
        return {**given, "workers": "auto"} if named else given

    @model_validator(mode="after")
    def _every_device_once(self) -> SearchSection:
        devices = self.devices or ()
        if len({*devices}) < len(devices):
            raise ValueError(
                f"`devices` must name each GPU once, but is {shorten(devices)}; for several workers on each GPU raise "
                "`workers`"
            )
        if isinstance(self.workers, int) and self.workers < len(devices):
            raise ValueError(
                f"`workers` must be at least {len(devices)}, the number of `devices`, but is {self.workers}; raise it, "
                "remove it, or name fewer devices"
            )
        return self

    @model_validator(mode="after")
    def _settings_of_a_backend(self) -> SearchSection:
        if self.address is not None and self.backend == LOCAL_BACKEND:
            raise ValueError(
                '`address` belongs to a `backend` with machines of its own, such as "ray", but `backend` is "local"; '
                "remove it, or set `backend`"
            )
        if self.devices is not None and self.backend != LOCAL_BACKEND:
            raise ValueError(
                f'`devices` names GPUs of this machine, but `backend` is "{self.backend}", which has machines of its '
                "own; remove one of them"
            )
        return self


class ValidationSection(Section):
    """Cross-validation on the training rows."""

    folds: int = Field(3, ge=2, le=20)
    """Number of stratified folds. They train in lockstep."""
    packing: Literal["auto", "on", "off"] = "auto"
    """Whether all folds train in one pass: "auto" where a measurement shows that it is faster, "on" wherever it is
    possible, "off" never.

    Scores are the same up to the order of random numbers.
    """
    metric: str | None = None
    """The metric to maximise: a name from scikit-learn, or `module:function` from a Python file beside the study file.
    Default: the task's first metric, which is accuracy for classification."""

    def rows_of_fold(self, rows: int) -> int:
        """The number of rows that a fold trains on."""
        return max(rows - rows // self.folds, 1)


class WinnerSection(Section):
    """How the winner is made from the candidate that won."""

    form: Literal["refit", "average", "ensemble"] = "refit"
    """The form of the winner. "refit" trains the candidate once more, on all training rows. "average" is the mean of
    the add-ons of its folds; if its method has no such mean, or if the mean has a higher loss on training rows than the
    folds, the candidate is refitted. "ensemble" keeps the models of all folds and averages their answers. A study
    cannot measure which form is best, because the folds saw its rows."""
    drop_layers: Layers = 0
    """Number of the lowest layers whose add-ons the winner drops after training (AdapterDrop): it is then smaller and
    faster. "auto" drops one after another as long as the mean score in cross-validation stays within one standard
    error; to find the number, the winner's folds are trained once more."""


NO_SETTINGS = ("folder", "text")
"""Fields of `StudySpec` that no study file has."""

GATHERED = {"search": ("overrides",), "task": ("options",), "methods": ("settings",), "data": ("columns",)}
"""By table, the field that gathers keys which only a plugin knows."""


FIXED_SEARCH_KEYS = tuple(key for key in SearchSection.model_fields if key != "overrides")

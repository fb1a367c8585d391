"""autopeft searches for the parameter-efficient fine-tuning method and size that fit a task and a budget.

This is the whole public surface. Names that need torch are resolved on first use, so that importing autopeft, as
every plugin does, stays cheap.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

from autopeft.common.bounds import Bounds
from autopeft.common.exceptions import AutopeftError
from autopeft.common.hooks import hookimpl
from autopeft.common.params import Params, ParamValue
from autopeft.methods.averaging import mean_of
from autopeft.methods.callback import TrainingCallback
from autopeft.methods.contract import CONTRACT, LinearModule, ModelSpec, PeftMethod, Support
from autopeft.methods.dimensions import Categorical, Float, Integer
from autopeft.methods.layers import layer_groups
from autopeft.methods.parameter_groups import ParameterGroup
from autopeft.methods.search_space import SearchSpace
from autopeft.methods.targets import TargetGroups
from autopeft.methods.training_rows import TrainingRows

if TYPE_CHECKING:
    from autopeft.common.exceptions import DataError, ModelError, SpecError, StudyError, nearest, quoted
    from autopeft.data.cells import CellError, as_text
    from autopeft.data.encoded import Encoded, Field, token_fields
    from autopeft.estimator import AutoPeftClassifier, AutoPeftRegressor
    from autopeft.execution.backend import Backend, TrialHandle
    from autopeft.execution.backend_factory import BackendFactory
    from autopeft.execution.study_work import StudyWork
    from autopeft.execution.trial_worker import TrialWorker
    from autopeft.models.decoder_start import decoder_start
    from autopeft.models.original_weights import original_weight
    from autopeft.models.output_head import OutputHead
    from autopeft.models.row_tokenizer import RowTokenizer
    from autopeft.models.saved_addon import SavedAddOn, saved_addons
    from autopeft.models.template_rows import Template
    from autopeft.models.writing_limits import WritingLimits
    from autopeft.reporting.callbacks import TrialCallback
    from autopeft.shelf.shelf import Shelf
    from autopeft.study.record import TrialRecord
    from autopeft.study.report_section import Exhibit, ReportPlot, ReportSection, ReportTable
    from autopeft.study.sections import Section
    from autopeft.tasks.base_model_part import ByHand
    from autopeft.tasks.class_loss import ClassOptions
    from autopeft.tasks.classification import Classification
    from autopeft.tasks.column import Column
    from autopeft.tasks.contract import Baseline, Task
    from autopeft.tasks.fit import Fit
    from autopeft.tasks.metric import Metric
    from autopeft.tasks.multi_label import MultiLabel
    from autopeft.tasks.profile import ColumnProfile, TableProfile
    from autopeft.tasks.regression import Regression
    from autopeft.tasks.text_scores.names import score_text, text_score, text_scores
    from autopeft.tasks.text_scores.score import TextScore, metric_of, written_texts
    from autopeft.tasks.writing import Writing, WritingOptions
    from autopeft.tuning import Tuned, tune
    from autopeft.winner.export import export
    from autopeft.winner.winner import Winner, load

__all__ = [
    "CONTRACT",
    "AutoPeftClassifier",
    "AutoPeftRegressor",
    "AutopeftError",
    "Backend",
    "BackendFactory",
    "Baseline",
    "Bounds",
    "ByHand",
    "Categorical",
    "CellError",
    "ClassOptions",
    "Classification",
    "Column",
    "ColumnProfile",
    "DataError",
    "Encoded",
    "Exhibit",
    "Field",
    "Fit",
    "Float",
    "Integer",
    "LinearModule",
    "Metric",
    "ModelError",
    "ModelSpec",
    "MultiLabel",
    "OutputHead",
    "ParamValue",
    "ParameterGroup",
    "Params",
    "PeftMethod",
    "Regression",
    "ReportPlot",
    "ReportSection",
    "ReportTable",
    "RowTokenizer",
    "SavedAddOn",
    "SearchSpace",
    "Section",
    "Shelf",
    "SpecError",
    "StudyError",
    "StudyWork",
    "Support",
    "TableProfile",
    "TargetGroups",
    "Task",
    "Template",
    "TextScore",
    "TrainingCallback",
    "TrainingRows",
    "TrialCallback",
    "TrialHandle",
    "TrialRecord",
    "TrialWorker",
    "Tuned",
    "Winner",
    "Writing",
    "WritingLimits",
    "WritingOptions",
    "as_text",
    "decoder_start",
    "export",
    "hookimpl",
    "layer_groups",
    "load",
    "mean_of",
    "metric_of",
    "nearest",
    "original_weight",
    "quoted",
    "saved_addons",
    "score_text",
    "text_score",
    "text_scores",
    "token_fields",
    "tune",
    "written_texts",
]

LAZY = {
    "CellError": "autopeft.data.cells",
    "as_text": "autopeft.data.cells",
    "Baseline": "autopeft.tasks.contract",
    "ByHand": "autopeft.tasks.base_model_part",
    "Classification": "autopeft.tasks.classification",
    "Column": "autopeft.tasks.column",
    "ColumnProfile": "autopeft.tasks.profile",
    "TableProfile": "autopeft.tasks.profile",
    "Fit": "autopeft.tasks.fit",
    "ClassOptions": "autopeft.tasks.class_loss",
    "DataError": "autopeft.common.exceptions",
    "ModelError": "autopeft.common.exceptions",
    "SpecError": "autopeft.common.exceptions",
    "StudyError": "autopeft.common.exceptions",
    "Backend": "autopeft.execution.backend",
    "BackendFactory": "autopeft.execution.backend_factory",
    "StudyWork": "autopeft.execution.study_work",
    "TrialHandle": "autopeft.execution.backend",
    "TrialWorker": "autopeft.execution.trial_worker",
    "quoted": "autopeft.common.exceptions",
    "Encoded": "autopeft.data.encoded",
    "Field": "autopeft.data.encoded",
    "Metric": "autopeft.tasks.metric",
    "MultiLabel": "autopeft.tasks.multi_label",
    "OutputHead": "autopeft.models.output_head",
    "RowTokenizer": "autopeft.models.row_tokenizer",
    "SavedAddOn": "autopeft.models.saved_addon",
    "saved_addons": "autopeft.models.saved_addon",
    "Regression": "autopeft.tasks.regression",
    "Exhibit": "autopeft.study.report_section",
    "ReportPlot": "autopeft.study.report_section",
    "ReportSection": "autopeft.study.report_section",
    "ReportTable": "autopeft.study.report_section",
    "Section": "autopeft.study.sections",
    "Shelf": "autopeft.shelf.shelf",
    "Task": "autopeft.tasks.contract",
    "TrialCallback": "autopeft.reporting.callbacks",
    "TrialRecord": "autopeft.study.record",
    "Template": "autopeft.models.template_rows",
    "Writing": "autopeft.tasks.writing",
    "WritingOptions": "autopeft.tasks.writing",
    "WritingLimits": "autopeft.models.writing_limits",
    "TextScore": "autopeft.tasks.text_scores.score",
    "metric_of": "autopeft.tasks.text_scores.score",
    "written_texts": "autopeft.tasks.text_scores.score",
    "score_text": "autopeft.tasks.text_scores.names",
    "text_score": "autopeft.tasks.text_scores.names",
    "text_scores": "autopeft.tasks.text_scores.names",
    "token_fields": "autopeft.data.encoded",
    "AutoPeftClassifier": "autopeft.estimator",
    "AutoPeftRegressor": "autopeft.estimator",
    "decoder_start": "autopeft.models.decoder_start",
    "export": "autopeft.winner.export",
    "load": "autopeft.winner.winner",
    "nearest": "autopeft.common.exceptions",
    "original_weight": "autopeft.models.original_weights",
    "Tuned": "autopeft.tuning",
    "Winner": "autopeft.winner.winner",
    "tune": "autopeft.tuning",
}
"""Names that are heavy, or that few plugins need, with the module each comes from."""


def __getattr__(name: str) -> object:
    if name in LAZY:
        with warnings.catch_warnings():  # tqdm's, as it is imported in a notebook that has no widgets
            warnings.filterwarnings("ignore", message="IProgress not found")
            return getattr(importlib.import_module(LAZY[name]), name)
    raise AttributeError(f"module 'autopeft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

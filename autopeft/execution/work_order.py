"""What goes to another machine so that it can train for a study, besides the rows: small, and the same for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from autopeft.common.locate import locate
from autopeft.common.paths import with_absolute_paths
from autopeft.models import digest
from autopeft.models.files import decisive
from autopeft.study.sections import LOCAL_BACKEND
from autopeft.tasks import user_metric
from autopeft.tasks.text_scores import own as own_score
from autopeft.tasks.writing import Writing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from autopeft.common.params import ParamValue
    from autopeft.execution.problem import Problem
    from autopeft.execution.runner import Findings
    from autopeft.study.file import StudySpec

SMALL = 2**20
"""Most bytes of a file beside the weights that goes along though it does not decide what the model predicts, such as a
chat template. Hidden files, which may hold secrets, never do."""


@dataclass(frozen=True)
class WorkOrder:
    """How a study is prepared on another machine.

    Attributes:
        spec: the study, for one worker that has its machine, or its GPU, to itself.
        blocked: entry points of plugins to leave out.
        base_digest: the identity of the base model.
        on_hub: whether the base model is downloaded from the hub, and not a folder.
        user_files: Python files of the user's own metric and scores, by name.
        device: "cpu" or "cuda".
    """

    spec: StudySpec
    blocked: tuple[str, ...]
    base_digest: str
    on_hub: bool
    user_files: Mapping[str, bytes]
    device: str

    @classmethod
    def of(cls, problem: Problem) -> WorkOrder:
        """The order of a study's problem."""
        spec, base = problem.spec, problem.base_digest
        search = spec.search.model_copy(update={"workers": 1, "backend": LOCAL_BACKEND, "address": None})
        revision = digest.revision_of(base) or spec.model.revision
        model = spec.model.model_copy(update={"name_or_path": problem.base_model, "revision": revision})
        # There the study file has another folder.
        methods = spec.methods.model_copy(update={"settings": with_absolute_paths(spec.methods.settings, spec.folder)})
        return cls(
            spec=spec.model_copy(update={"search": search, "model": model, "methods": methods, "text": ""}),
            blocked=problem.blocked,
            base_digest=base,
            on_hub=isinstance(locate(problem.base_model, spec.folder), str),
            user_files={name: (spec.folder / name).read_bytes() for name in _user_files(problem)},
            device=problem.device.type,
        )


class TrialOrder(NamedTuple):
    """A trial to run.

    Attributes:
        params: the candidate's.
        known: what earlier trials of the study found out.
        files: of its checkpoint, by name, if it was interrupted elsewhere.
    """

    params: Mapping[str, ParamValue]
    known: Findings
    files: Mapping[str, bytes]


class Message(NamedTuple):
    """A report of a worker.

    Attributes:
        what: "ready", "say", "raise" or "broken" from the worker; "estimated", "settled", "started", "rung", "end" or
            "silent" from its trial.
        content: depends on `what`.
    """

    what: str
    content: Any


class Ready(NamedTuple):
    """What a worker prepared, to compare with the study's own.

    Attributes:
        base_digest: the identity of its base model.
        device: "cpu" or "cuda".
        methods: the names of the space.
        versions: of what must be the same.
    """

    base_digest: str
    device: str
    methods: tuple[str, ...]
    versions: dict[str, str]


def model_files(problem: Problem) -> dict[str, Path]:
    """The files of a base model in a folder, by their names in it; empty if it comes from the hub."""
    location = locate(problem.base_model, problem.spec.folder)
    if isinstance(location, str):
        return {}
    shown = (path for path in location.iterdir() if path.name[0] != "." and path.is_file())
    small = (path for path in shown if path.stat().st_size <= SMALL)
    return {path.relative_to(location).as_posix(): path for path in {*decisive(location), *small}}


def _user_files(problem: Problem) -> set[str]:
    """The names of the Python files beside the study file that hold functions which it names."""
    task, metric = problem.task, problem.spec.validation.metric
    named = [name for name in task.named_scores if own_score.is_own(name)] if isinstance(task, Writing) else []
    return {
        f"{name.partition(':')[0]}.py" for name in (*named, *([metric] if user_metric.is_own(metric) else [])) if name
    }

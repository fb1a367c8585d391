"""A short name for a candidate: its method, and what differs from the method's default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.common.model_names import MODEL, arm, without_model
from autopeft.methods.search_space import readable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autopeft.common.params import ParamValue

BRIEF = {"learning_rate": "lr"}
"""Usual abbreviations of dimensions."""


def short_name(params: Mapping[str, ParamValue], whole: str, defaults: Mapping[str, ParamValue]) -> str:
    """A candidate's short name, such as `lora r=16 lr=0.0003`; `lora default` where nothing differs.

    Args:
        params: the candidate in Optuna's form (`Candidate.flat`).
        whole: its long name, used where no default of its method is known.
        defaults: of every dimension, named as in `params` (`CandidateSpace.defaults`).
    """
    method = str(params.get("method", ""))
    if not any(key.startswith(f"{method}.") for key in defaults):
        return whole
    model = str(params.get(f"{method}.{MODEL}", ""))
    changed = {
        BRIEF.get(name := without_model(key.removeprefix(f"{method}."), model), name): value
        for key, value in params.items()
        if key not in ("method", f"{method}.{MODEL}") and defaults.get(key) != value
    }
    named = arm(method, model)
    return readable(named, changed) if changed else f"{named} default"

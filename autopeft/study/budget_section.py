"""The table of a study file with the limits of its candidates."""

from __future__ import annotations

from autopeft.study.sections import Section
from autopeft.study.setting_types import Bytes, Seconds, Share  # noqa: TC001  # pydantic's


class BudgetSection(Section):
    """Hard limits: a candidate that exceeds one of them is not trained. By default there are no limits."""

    max_trainable_params: Share | None = None
    """Number of trained parameters: a number, "2M", or a share of the base model such as "0.5%"."""
    max_gpu_memory: Bytes | None = None
    """Peak memory of a training step: bytes, or "2 GiB". It applies on a CPU too; on a GPU it covers everything that
    the process takes there."""
    max_saved_size: Bytes | None = None
    """Size of the file of the saved add-on: bytes, or "4 MB"."""
    max_trial_seconds: Seconds | None = None
    """Wall time of a trial, predicted from its first steps: seconds, or "5m"."""

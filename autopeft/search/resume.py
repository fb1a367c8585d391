"""A study may go on only with the settings, rows and models that it began with."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from autopeft.common.exceptions import ModelError, SpecError, UserInputError
from autopeft.common.locate import NotFoundError, locate
from autopeft.execution.problem import references
from autopeft.models import digest
from autopeft.models.device import ADAMW, name_of, study_device, supports_bfloat16
from autopeft.study.file import changes
from autopeft.study.folder import holds_study
from autopeft.study.storage import open_study

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from autopeft.execution.problem import Problem
    from autopeft.study.file import StudySpec

GIVEN, DIGEST, KINDS = "given", "base_digest", "kinds"
"""User attribute of an Optuna study that holds what it began with; in that, the keys for the base model's identity and
the kinds of references in the study file. Studies from before these were kept go on without them."""

DIGESTS = "base_digests"
"""Another key in it: the identity of each base model by its entry of `candidates` in [model], if there are several."""

FACTS = "method_facts"
"""Another key in it: the facts of each method that has some, such as the identity of what its settings name."""

EPOCHS, EARLIER_EPOCHS = "epochs", "2…4"
"""Another key in it: each method's range of epochs; and the range of all methods before it depended on the rows."""

MAY_CHANGE = (
    "search.trials", "search.timeout", "search.hang_timeout", "search.workers", "search.devices", "search.backend",
    "search.address", "search.cohort", "search.references", "search.race", "tracking.uri", "tracking.artifacts",
    "tracking.storage", "tracking.system_metrics", "output", "model.revision", "winner.form",
    "winner.drop_layers",
)  # fmt: skip
"""Settings that may change when a study is resumed; any other change would mix two searches in one. Whether another
revision is another model is decided by its identity."""

AT_THE_END = "references", "race"
"""Settings in [search] of work that is done once, when the winner is selected."""


def given(problem: Problem) -> dict[str, Any]:
    """What decides a study's result, for JSON."""
    digests = {one.spec.model.name_or_path: one.base_digest for one in problem.each}
    return {
        **problem.spec.to_dict(),
        "methods_found": list(problem.space),
        "data_fingerprint": problem.rows.fingerprint,
        EPOCHS: {name: str(part.training["epochs"]) for name, part in problem.space.items()},
        **({DIGESTS: digests} if problem.models else {}),
        FACTS: {name: dict(facts) for name, part in problem.space.methods.items() if (facts := part.method.facts())},
        DIGEST: "" if problem.models else problem.base_digest,
        KINDS: problem.kinds,
        **({"metric_file": problem.metric_digest} if problem.metric_digest else {}),
    }


def as_begun(spec: StudySpec) -> StudySpec:
    """The study file to use if the study was begun before.

    A model on the hub is taken at the commit it had then, and `dtype = "auto"` means what it meant then.

    Raises:
        NotFoundError: what was a local path then no longer exists. It is not looked for on the hub.
    """
    if not holds_study(spec.output):
        return spec
    before = _before(spec)
    for name, reference in references(spec).items():
        table, key, *rest = name.split(".")
        table, key = ("[tasks]", ".".join(rest)) if table == "tasks" else (table, key)
        if name in before.get(KINDS, {}) and _had(before, name) == reference:
            try:
                locate(reference, spec.folder, before[KINDS][name])
            except NotFoundError as error:
                raise NotFoundError(f"`{key}` in [{table}]: {error}") from None
    if before and spec.model.dtype == "auto":
        spec = spec.with_model(dtype=_dtype_of(before, spec))
    commit = digest.revision_of(before.get(DIGEST, ""))
    if spec.model.candidates:  # each has its own commit (`commits_of`)
        return spec
    if commit and spec.model.revision is None and before["model"]["name_or_path"] == spec.model.name_or_path:
        return spec.with_model(revision=commit)
    return spec


def commits_of(spec: StudySpec) -> dict[str, str]:
    """The commits of the hub models that a study of several models began with, by their entries of `candidates`."""
    found = _before(spec).get(DIGESTS, {}) if spec.model.candidates else {}
    return {name: commit for name, kept in found.items() if (commit := digest.revision_of(kept))}


def _before(spec: StudySpec) -> dict[str, Any]:
    """What the study began with; nothing where it did not begin yet, or its store is damaged."""
    before: dict[str, Any] = {}
    with suppress(UserInputError):  # reported later, where the store is opened to be used
        if holds_study(spec.output) and (study := open_study(spec.output, spec.tracking.database)):
            before = study.user_attrs.get(GIVEN, {})
    return before


def _had(before: Any, name: str) -> Any:
    """The setting, or entry of a list, of that name; None where there was none."""
    for key in name.split("."):
        entries = dict(enumerate(before)) if isinstance(before, list) else before
        before = entries.get(int(key) if isinstance(before, list) else key) if isinstance(entries, dict) else None
    return before


def _dtype_of(before: Mapping[str, Any], spec: StudySpec) -> str:
    """What "auto" meant when the study began; before that was kept, bfloat16 where the device computes it natively."""
    found: str = before["model"].get("dtype", "auto")
    if found != "auto":
        return found
    return name_of(torch.bfloat16 if supports_bfloat16(study_device(spec).type) else None)


def without_effect(before: Mapping[str, Any], now: Mapping[str, Any], made: Collection[str], winner: Path) -> str:
    """What to say of settings that were switched on after the study had its winner; "" where there is nothing to say.

    Args:
        before: the study at its last start, as `given`.
        now: the same at this one.
        made: those of `AT_THE_END` whose work is done, or never would be.
        winner: the winner's folder.
    """
    then, here = before.get("search", {}), now["search"]
    added = [f"`{name}`" for name in AT_THE_END if name not in made and here[name] and not then.get(name, True)]
    if not added:
        return ""
    are, they = ("is", "it takes") if len(added) == 1 else ("are", "they take")
    return (
        f"{' and '.join(added)} in [search] {are} switched on, but the study has its winner already, so {they} effect "
        f"only once another trial wins; for it now, move {winner} elsewhere and run the same command again."
    )


def keep_known(before: Mapping[str, Any], now: dict[str, Any]) -> None:
    """Keep the identities known then where they cannot be found out now, for example offline."""
    now[DIGEST] = now[DIGEST] or before.get(DIGEST, "")
    earlier = before.get(DIGESTS, {})
    if DIGESTS in now:
        now[DIGESTS] = {name: found or earlier.get(name, "") for name, found in now[DIGESTS].items()}


def check(before: Mapping[str, Any], now: Mapping[str, Any], spec: StudySpec) -> None:
    """Check that nothing has changed which would mix two searches in one.

    Raises:
        SpecError: a setting, the rows or the methods found have changed.
        ModelError: the base model has changed.
    """
    known = {key: value for key, value in now.items() if key in before or key not in (DIGEST, KINDS)}
    known.pop(DIGEST, None)
    known.pop(DIGESTS, None)
    rest = {key: value for key, value in before.items() if key not in (DIGEST, DIGESTS)}
    if rest.get("model", {}).get("dtype") == "auto":  # it does not say which one that was
        rest["model"] = {**rest["model"], "dtype": now["model"]["dtype"]}
    # These had one fixed value each before they became settings.
    rest["search"] = {"sampler": "tpe", "portfolio": now["search"]["portfolio"], **rest.get("search", {})}
    rest["data"] = {"on_missing": "error", **rest.get("data", {})}
    rest["model"] = {"optimizer": ADAMW, **rest.get("model", {})}
    named = spec.search.overrides
    rest.setdefault(EPOCHS, {
        name: told if EPOCHS in {*named, *named.get(name, {})} else EARLIER_EPOCHS
        for name, told in now[EPOCHS].items()
    })  # fmt: skip
    changed = [line for key, line in changes(rest, known).items() if key not in MAY_CHANGE]
    if changed:
        raise SpecError(
            f'the study "{spec.name}" began with other settings: {"; ".join(changed)}. '
            "Restore them; or give the study another `name`, and another `output` if it sets one (with "
            f'`warm_start = "{spec.output}"` it starts from the winner so far); or remove {spec.output} to start over.'
        )
    models = now.get(DIGESTS) or {spec.model.name_or_path: now.get(DIGEST)}
    for name, here in models.items():
        there = before.get(DIGESTS, {}).get(name) or before.get(DIGEST)
        if there and here and there != here:
            commit = None if DIGESTS in now else digest.revision_of(there)
            advice = f'set `revision = "{commit}"` in [model]' if commit else "restore it"
            raise ModelError(
                f'the base model {name} is not the one that the study "{spec.name}" began with '
                f"({there[:19]}… then, {here[:19]}… now); {advice}; or give the study another `name`, and another "
                f"`output` if it sets one; or remove {spec.output} to start over."
            )

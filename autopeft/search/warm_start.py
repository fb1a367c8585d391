"""Starts a search from the winners of earlier studies, each moved to the nearest point of this study's space."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from autopeft.common import plain_file
from autopeft.common.exceptions import SpecError, in_a_line, nearest
from autopeft.common.model_names import MODEL, arm, without_model
from autopeft.common.paths import as_path
from autopeft.study.card import CARD
from autopeft.study.folder import RESULT, holds_study
from autopeft.study.record import ranked, records
from autopeft.study.storage import open_study

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from autopeft.methods.candidate import Candidate, CandidateSpace

LARGEST = 2**28
"""Size limit of a study's result, in bytes; each trial takes some thousand."""

LONGEST = 200
"""Most characters of a name or a value."""


def earlier_winners(
    references: Iterable[str], folder: Path, space: CandidateSpace
) -> tuple[list[Candidate], list[str]]:
    """The winners of several earlier studies, each candidate once, and a sentence for every study (`earlier_winner`).

    With several base models, a winner is tried on the one that it was found on, by its label, or else on each one that
    has its method, with a sentence for each.

    Raises:
        SpecError: the error of the first study that gives no candidate.
    """
    starts: list[Candidate] = []
    notes = []
    for reference, model in [(one, model) for one in references for model in _models(one, folder, space)]:
        start, note = earlier_winner(reference, folder, space.on(model))
        again = any(start.flat == other.flat for other in starts)
        starts += [] if again else [start]
        notes.append(f"{note} An earlier study gave the same candidate, which is tried once." if again else note)
    return starts, notes


def earlier_winner(reference: str, folder: Path, space: CandidateSpace) -> tuple[Candidate, str]:
    """The candidate of `space` nearest to what won an earlier study, and a sentence that says what was changed.

    Numbers outside this study's ranges go to the nearest end; a choice that is not offered, or that the earlier study
    did not know, becomes the default. A winner's folder alone holds no training hyperparameters, so the defaults are
    used.

    Args:
        reference: the output folder of a study, or a saved winner; a relative path starts at `folder`. A study that
            has not ended gives the best trial so far.
        folder: where the study file is.
        space: the space of this study, on one base model.

    Raises:
        SpecError: nothing can be read there, no trial completed, or the winner's method is not in this study.
    """
    source = folder / as_path(reference)  # checked with the study file
    name, _, values = _winner_of(source)
    parts = space.methods
    if name not in parts:
        raise SpecError(
            f"`warm_start` in [search] must name a study won by a method of this one, but {source} was won by "
            f'"{name}"; {nearest(name, parts)} Add it to `methods`, or remove `warm_start`.'
        )
    part = parts[name]
    own, training = part.own.nearest(values), part.training.nearest(values)
    start = part.candidate(own, training, part.task.nearest(values))
    return start, f"Starting from the winner of {source}: {start}{_changes(values, {**own, **training})}"


def _models(reference: str, folder: Path, space: CandidateSpace) -> list[str]:
    """The base models, by their labels, on which an earlier winner is tried; all of them where none has its method."""
    if len(space.models) == 1:
        return space.models
    name, label, _ = _winner_of(folder / as_path(reference))
    found = [part.model for part in space.of_method(name)] or space.models
    return [label] if label in found else found


def _winner_of(source: Path) -> tuple[str, str, Mapping[str, Any]]:
    """The winner's method, its base model where there were several, and every dimension's value by its name."""
    try:
        if os.path.lexists(source / RESULT):
            best = plain_file.read_json(source / RESULT, LARGEST)["best"]
            return _split(best["params"], best.get("method"))
        if holds_study(source):  # the study has not ended
            return _best_so_far(source)
        if os.path.lexists(source / CARD):
            card = plain_file.read_json(source / CARD)
            return _known({"method": card["method"]})["method"], "", _known(card["params"])
    except SpecError:
        raise
    except Exception as error:  # the libraries may raise anything on a damaged file
        raise SpecError(
            f"`warm_start` in [search] names {source}, whose result cannot be read ({in_a_line(error).rstrip('.')}); "
            "run that study again, or remove `warm_start`."
        ) from None
    lack = f"holds neither {RESULT} nor {CARD}" if source.is_dir() else "is not a folder"
    raise SpecError(
        f"`warm_start` in [search] must be the output folder of a finished study, or a saved winner, but {source} "
        f"{lack}; finish that study, or give the right folder (a relative path starts at the study file's)."
    )


def _best_so_far(source: Path) -> tuple[str, str, Mapping[str, Any]]:
    study = open_study(source)
    found = ranked(records(study)) if study else []
    if not found:
        raise SpecError(
            f"`warm_start` in [search] must name a study with a complete trial, but {source} has none; run it again, "
            "or remove `warm_start`."
        )
    return _split(found[0].params, found[0].method)


def _split(flat: Any, name: Any) -> tuple[str, str, Mapping[str, Any]]:
    """A candidate's method and base model, and its values without the method's prefix and the name of the model.

    Args:
        flat: its params.
        name: the name in its record, which includes the model where there were several.
    """
    known = _known(flat)
    method = known["method"]
    label = str(known.get(f"{method}.{MODEL}", ""))
    label = label if name == arm(method, label) else ""
    own = {key.partition(".")[2]: known[key] for key in known if key != "method"}
    if not label:
        return method, "", own
    return method, label, {without_model(key, label): value for key, value in own.items() if key != MODEL}


def _known(found: Any) -> dict[str, Any]:
    """Values by name, from a file.

    Raises:
        ValueError: they are not a table of values, or the method is not a name.
    """
    if not isinstance(found, dict):
        raise ValueError("its params are not a table")
    for name, value in found.items():
        fine = isinstance(value, str) if name == "method" else isinstance(value, bool | int | float | str)
        if not fine or len(str(value)) > LONGEST or len(name) > LONGEST:
            raise ValueError(f"{name[:LONGEST]} is {str(value)[:LONGEST]}")
    return found


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What was changed, as the end of a sentence."""
    moved = [f"{name} {before[name]} → {now[name]}" for name in now if name in before and before[name] != now[name]]
    added = [f"{name} {value} (not given there)" for name, value in now.items() if name not in before]
    dropped = [f"without {name}" for name in before if name not in now]
    changed = ", ".join((*moved, *added, *dropped))
    return f". To fit this study: {changed}." if changed else "."

"""Kills at random moments, one target after the other, with the checks after each."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.soak.books import again, check, outcome, remove, undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.soak.targets import Target

TRIALS = 4
"""Of the study that is disturbed."""

AGAIN = 0.3
"""How often the start after a kill is killed too, before any is left alone."""


def campaign(study: Path, target: Target, kills: int, seed: int, say: Callable[[str], None] = lambda _: None) -> None:
    """Kill a target so many times while a study runs, and check its stores each time.

    Where one worker decides, the winner, the trials and all scores must be those of an undisturbed run.

    Args:
        study: the file of a tiny study, which is changed.
        target: what is killed.
        kills: how many times.
        seed: of the moments; a run is the same again as far as timing allows.
        say: gets a sentence about each kill.

    Raises:
        AssertionError: something was lost, doubled or left open, or the study did not go on.
    """
    drawn, done = random.Random(f"{seed} {target.name}"), 0
    with target.world(study):
        whole = undisturbed(study, TRIALS, target.uri, warm=True, kind=target.kind)
        for attempt in range(3 * kills):  # some end before they are killed
            struck, code = 0, None
            while code is None or (code and struck < kills - done and drawn.random() < AGAIN):
                child, hit = target.kill(study, drawn, whole)
                code = child.code
                assert code in target.codes, child.said
                assert "Traceback" not in child.said, child.said
                struck += hit
            result = again(study, TRIALS, target.uri, target.kind) if code else check(study, TRIALS, target.uri)
            states = {record["state"] for record in result["records"]}
            assert states <= {"COMPLETE", "PRUNED", "INFEASIBLE"}, result["records"]  # no kill is a method's fault
            if target.workers == 1:
                assert outcome(result) == whole.outcome, f"{target.name}, seed {seed}, attempt {attempt}"
            remove(study)
            done += struck
            say(f"{target.name}: {done} of {kills} kills, every trial once")
            if done >= kills:
                return
    raise AssertionError(f"only {done} of {kills} kills came before the study ended")

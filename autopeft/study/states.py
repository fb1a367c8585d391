"""The states of a trial: how it ended, or that it has not."""

from __future__ import annotations

COMPLETE, PRUNED, STOPPED, INFEASIBLE, FAIL = "COMPLETE", "PRUNED", "STOPPED", "INFEASIBLE", "FAIL"


INTERRUPTED = "INTERRUPTED"
"""Not an end: the trial runs again, and goes on from where it was."""


ELSEWHERE = "ELSEWHERE"
"""Not an end either: a worker with more memory has to run the trial."""


ENDS = (COMPLETE, PRUNED, STOPPED, FAIL, INFEASIBLE)
"""How trials end, in the order of a leaderboard."""


WORDS = {
    COMPLETE: "complete", PRUNED: "pruned", STOPPED: "stopped", FAIL: "failed", INFEASIBLE: "refused",
    INTERRUPTED: "interrupted",
}  # fmt: skip
"""The states in words for a person."""


COUNTED = (COMPLETE, PRUNED, FAIL)
"""States of the trials that count towards `trials`: one that the timeout stopped goes on at the next start."""


TIMED_OUT = "the study's timeout was reached"
"""The reason that stops a trial at a rung without pruning it."""

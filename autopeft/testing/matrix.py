"""A page of Markdown: which method works on which family of models, as the methods themselves say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.methods.contract import PeftMethod
from autopeft.methods.needed import ready
from autopeft.testing.tiny import ALL_FAMILIES, tiny_base

if TYPE_CHECKING:
    from collections.abc import Mapping

INTRODUCTION = """# Which method works on which model

`autopeft methods --matrix` writes this page: it asks each method whether it supports a model of each type.
`autopeft check NAME` tests that the answers are right. A method may also work on a type that is not listed, because
methods check for the parts that they need, not for the model's name.

"""


def matrix(methods: Mapping[str, PeftMethod]) -> str:
    """A table of families and methods, what else each method offers, and the reason for each no."""
    specs = {family: tiny_base(family).spec for family in ALL_FAMILIES}
    answers = {
        (name, family): ready(methods[name]).supports(spec) for name in methods for family, spec in specs.items()
    }
    rows = [["model type", *(f"`{name}`" for name in methods)], ["---"] * (len(methods) + 1)]
    rows += [[f"`{family}`", *("yes" if answers[name, family] else "no" for name in methods)] for family in specs]
    rows += [
        ["merges into the base model", *_whether(methods, "merge")],
        ["has a callback around steps", *_whether(methods, "callback")],
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    reasons = [f"- `{name}` on `{family}`: {answer.reason}" for (name, family), answer in answers.items() if not answer]
    return INTRODUCTION + table + "\n" + ("\nReasons for each no:\n\n" + "\n".join(reasons) + "\n") * bool(reasons)


def _whether(methods: Mapping[str, PeftMethod], hook: str) -> list[str]:
    return [
        "yes" if getattr(type(method), hook) is not getattr(PeftMethod, hook) else "–" for method in methods.values()
    ]

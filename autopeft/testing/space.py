"""Rules about what a method says about itself before it touches a model: its spaces, and what it supports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from autopeft.common.exceptions import nearest
from autopeft.methods.candidate import within_bounds
from autopeft.methods.contract import Support
from autopeft.methods.search_space import SearchSpace
from autopeft.methods.training_space import TRAINING_SPACE
from autopeft.testing.rule import BrokenRuleError, rule

if TYPE_CHECKING:
    from autopeft.testing.case import Case

LIGHT = """
import sys, {package}
for method in {package}.register_methods():
    method.search_space(), method.training_space()
heavy = {{"torch", "transformers", "peft"}} & set(sys.modules)
sys.exit("imported " + ", ".join(sorted(heavy)) if heavy else 0)
"""


@rule(applied=False)
def support_is_answered(case: Case) -> str | None:
    """supports() returns a Support for every model; if the answer is no, its reason says why.

    Return Support() or Support("the reason, naming the architecture"). Ask the description for what the method needs,
    such as `spec.modules("query")`, which may be empty.
    """
    spec = case.base.spec
    models = {
        "the model": spec,
        "a model whose linear maps have no known role": replace(spec, linears=()),
        "a model without layers": replace(spec, layers=(), linears=()),
        "a model with attention of its own": replace(spec, has_attention_interface=False),
        "a model of a type that is not known": replace(spec, model_type="unheard_of", architecture="UnheardOf"),
    }
    for what, described in models.items():
        try:
            support = case.method.supports(described)
        except Exception as error:
            raise BrokenRuleError(f"asked about {what} it raised {type(error).__name__}: {error}") from error
        if not isinstance(support, Support) or not isinstance(support.reason, str):
            raise BrokenRuleError(f"asked about {what} it returned {support!r}.")
        if support.reason and not support.reason.strip(" ."):
            raise BrokenRuleError(f"asked about {what} its reason was {support.reason!r}.")
    return None


@rule(applied=False)
def space_is_plain_data(case: Case) -> str | None:
    """The spaces are valid and have only values that JSON can keep; search_space() has no training dimension.

    Build them with SearchSpace, Integer, Float and Categorical, only from booleans, numbers and strings. Put training
    dimensions, such as learning_rate, and nothing else into training_space(), and keep its ranges within what the host
    can train with, such as at least one epoch.
    """
    if not case.method.supports(case.base.spec):
        return "the model is not supported"
    own, training = case.method.search_space(case.base.spec), case.method.training_space(case.base.spec)
    for name, space in {"search_space": own, "training_space": training}.items():
        if not isinstance(space, SearchSpace):
            raise BrokenRuleError(f"{name}() returned {type(space).__name__}, not a SearchSpace.")
        SearchSpace(dict(space))  # says what is wrong with defaults, ranges and conditions
        for dimension, values in space.items():
            if not dimension.isidentifier():
                raise BrokenRuleError(f'the dimension "{dimension}" of {name}() is not an identifier.')
            for value in (*values.extremes(), values.default):
                if not isinstance(value, bool | int | float | str) or json.loads(json.dumps(value)) != value:
                    raise BrokenRuleError(f'"{dimension}" of {name}() has the value {value!r}, which is not plain.')
    if strange := set(case.method.unequal or ()) - set(own):
        raise BrokenRuleError(f'`unequal` names "{min(strange)}", which is not a dimension of search_space().')
    if not space_holds_its_defaults(own):
        raise BrokenRuleError(f"the defaults of search_space() are not a point of it: {dict(own.defaults())}.")
    if shared := set(own) & set(TRAINING_SPACE):
        raise BrokenRuleError(f'search_space() has "{min(shared)}", which is a training dimension.')
    if unknown := set(training) - set(TRAINING_SPACE):
        hint = nearest(min(unknown), TRAINING_SPACE)
        raise BrokenRuleError(f'training_space() has "{min(unknown)}", which is not a training dimension; {hint}')
    try:
        within_bounds(training)
    except ValueError as error:
        raise BrokenRuleError(f"in training_space() the {error}") from None
    return None


def space_holds_its_defaults(space: SearchSpace) -> bool:
    """Whether the point of all defaults lies in the space."""
    return space.holds(space.defaults())


@rule(applied=False, once=True)
def space_is_shown_without_a_model(case: Case) -> str | None:
    """search_space() and training_space() also work without a model, and import no torch, transformers or peft.

    Treat `spec=None` as a typical model, and import heavy libraries inside the methods that need them.
    """
    for space in (case.method.search_space(), case.method.training_space()):
        if not isinstance(space, SearchSpace):
            raise BrokenRuleError(f"without a model one returned {type(space).__name__}, not a SearchSpace.")
    package = type(case.method).__module__.partition(".")[0]
    if not hasattr(sys.modules.get(package), "register_methods"):
        return None  # not a plugin's own package, such as a test: what it imports does not matter
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(package=package)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BrokenRuleError(f"a process that only calls them ended with: {done.stderr.strip().splitlines()[-1]}.")
    return None

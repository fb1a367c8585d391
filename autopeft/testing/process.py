"""The parts of a process that a method must not change: random numbers, PyTorch's settings, other people's classes."""

from __future__ import annotations

import logging
import os
import pickle
import random
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
import peft  # noqa: F401  # what importing it changes is not a method's doing
import torch
from torch import nn
from transformers.modeling_utils import AttentionInterface

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LOGGERS = ("", "torch", "transformers", "peft", "autopeft")


@dataclass(frozen=True)
class Part:
    """One part of the state of a process.

    Attributes:
        name: for people to read.
        read: returns its value now; two values are equal if nothing has changed.
        write: puts a value back.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


PARTS = (
    Part("PyTorch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Part("whether gradients are tracked", torch.is_grad_enabled, torch.set_grad_enabled),
    Part("PyTorch's number of threads", torch.get_num_threads, torch.set_num_threads),
    Part(
        "whether PyTorch is deterministic",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    Part(
        "PyTorch's random numbers",
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda state: torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8)),
    ),
    Part("Python's random numbers", random.getstate, random.setstate),
    Part(
        "NumPy's random numbers",
        lambda: pickle.dumps(np.random.get_state()),
        lambda s: np.random.set_state(pickle.loads(s)),
    ),
    Part("environment variables", lambda: dict(os.environ), lambda kept: _refill(os.environ, kept)),
    Part(
        "the filters of `warnings`", lambda: list(warnings.filters), lambda kept: _refill_list(warnings.filters, kept)
    ),
    Part("`sys.path`", lambda: list(sys.path), lambda kept: _refill_list(sys.path, kept)),
    Part(
        "the levels of loggers",
        lambda: {name: logging.getLogger(name).level for name in LOGGERS},
        lambda levels: _set_levels(levels),
    ),
)


@contextmanager
def guarded(models: Iterable[nn.Module], changes: list[str]) -> Iterator[None]:
    """Put back whatever changes inside, and add the names of changed parts to `changes`.

    These include the functions of the classes that `models` are made of, and the attention functions of transformers;
    registering new attention functions is allowed.
    """
    parts = [*PARTS, _attention(), *map(_functions, _classes(models))]
    before = [part.read() for part in parts]
    try:
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            if part.read() != value:
                part.write(value)
                changes.append(part.name)


def _classes(models: Iterable[nn.Module]) -> list[type]:
    found = {kind for model in models for module in model.modules() for kind in type(module).__mro__}
    return sorted(found - {object}, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")


def _functions(kind: type) -> Part:
    def read() -> dict[str, Any]:
        return {name: value for name, value in vars(kind).items() if isinstance(value, FunctionType)}

    def write(kept: dict[str, Any]) -> None:
        for name in read().keys() - kept.keys():
            delattr(kind, name)
        for name, value in kept.items():
            if vars(kind).get(name) is not value:
                setattr(kind, name, value)

    return Part(f"the functions of the class {kind.__module__}.{kind.__qualname__}", read, write)


def _attention() -> Part:
    registered = AttentionInterface._global_mapping
    known = tuple(registered)
    return Part(
        "the attention functions of transformers",
        lambda: {name: registered.get(name) for name in known},
        registered.update,
    )


def _refill(mapping: Any, kept: dict[str, str]) -> None:
    for name in mapping.keys() - kept.keys():
        del mapping[name]
    mapping.update(kept)


def _refill_list(entries: Any, kept: list[Any]) -> None:
    entries[:] = kept


def _set_levels(kept: dict[str, int]) -> None:
    for name, level in kept.items():
        logging.getLogger(name).setLevel(level)

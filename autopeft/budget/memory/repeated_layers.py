"""Equal layers in a row take and free the same memory, so one of them stands for the rest while a step is traced.

In a run of equal layers the first two and the last are run. The second one's part of the trace, forward and backward,
is repeated for those in between, which only pass on their input. The trace shows whether this is right: the last layer
must do what the second one did, event for event, forward and backward.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._pytree import tree_leaves

from autopeft.budget.memory.events import ACTIVATIONS, COPIES, LASTING, TRACED, Event, counterparts, of_layer
from autopeft.models.marks import LAYER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn


FEWEST = 4
"""Least layers of a run for one to be skipped."""

KEPT = ("first", "second", "last")
INDICES = (LAYER, "layer_idx", "layer_id", "layer_index", "layer_number")
"""Attributes that differ between equal layers."""


class LayersDiffer(Exception):  # noqa: N818  # not an error: the whole model must be traced
    """The trace shows that the layers of a run are not alike."""


class LayerPass(NamedTuple):
    """When the first, second and last layer of a run began in a pass; and when they began in the backward pass."""

    first: int
    second: int
    last: int
    back: tuple[int, int, int] | None


class Shortcut:
    """While it is on, only three layers of every long run of equal ones are run.

    Args:
        model: with its layers marked.
        clock: how many events the trace has so far.
        count_gradient: adds a parameter's new gradient to the trace; returns when it was taken.
    """

    def __init__(self, model: nn.Module, clock: Callable[[], int], count_gradient: Callable[[Any], int]) -> None:
        self._model, self._clock, self._count_gradient = model, clock, count_gradient
        self._runs: list[Run] = []
        self._updated: int | None = None
        self._early: set[int] = set()

    def __enter__(self) -> Self:
        """Let layers be skipped."""
        self._runs = runs(self._model, self._clock)
        self._hook = register_optimizer_step_pre_hook(self._before_update)
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the layers as they were."""
        self._hook.remove()
        for run in self._runs:
            run.undo()

    def extended(self, trace: Sequence[Event]) -> list[Event]:
        """The trace as if every layer had run; events from before the step come first.

        Raises:
            LayersDiffer: the layers are not alike.
        """
        shift = len(trace) - self._clock()
        updated = self._clock() if self._updated is None else self._updated
        before, events = trace[:shift], trace[shift:]
        added: list[tuple[int, list[Event]]] = []
        moved = list(events)
        for run in self._runs:
            added += run.copies(events, updated, moved)
        # From the update on, the trace has every layer's gradients itself, so what was added is released.
        total = sum(event.size for _, copies in added for event in copies)
        early = [event for event in events[:updated] if event.allocated_at in self._early]
        added.insert(0, (updated, [Event(ACTIVATIONS, -total, COPIES), *early]))
        found = [
            e._replace(size=0) if e.allocated_at in self._early and i < updated else e for i, e in enumerate(moved)
        ]
        for position, copies in sorted(added, key=lambda pair: pair[0], reverse=True):
            found[position:position] = copies
        return [*before, *found]

    def _before_update(self, *_: Any) -> None:
        """Give the trained parameters of skipped layers gradients like those of the second layer."""
        if self._updated is None:
            self._updated = self._clock()
            for run in self._runs:
                self._early |= run.give_gradients(self._count_gradient)


class Run:
    """Equal layers in a row; only three of them are run.

    Args:
        layers: at least `FEWEST`.
        clock: how many events the trace has so far.
    """

    def __init__(self, layers: Sequence[nn.Module], clock: Callable[[], int]) -> None:
        self.skipped, self._second, self._clock = layers[2:-1], layers[1], clock
        self._entered: list[tuple[str, int]] = []
        self._returned: list[tuple[str, int]] = []  # in the backward pass
        self._passed_on: Any = None
        self._left = 0
        kept = dict(zip(KEPT, (*layers[:2], layers[-1]), strict=True))
        self._own_forwards = {layer: vars(layer).get("forward") for layer in (*kept.values(), *self.skipped)}
        self._hooks = [(layer, layer._forward_hooks, layer._forward_pre_hooks) for layer in self.skipped]
        for place, layer in kept.items():
            layer.forward = self._watched(place, layer.forward)
        for layer in self.skipped:
            layer.forward = self._pass_on
            layer._forward_hooks, layer._forward_pre_hooks = type(layer._forward_hooks)(), type(layer._forward_hooks)()

    def undo(self) -> None:
        """Leave the layers as they were."""
        for layer, own in self._own_forwards.items():
            if own is None:
                del layer.forward
            else:
                layer.forward = own
        for layer, hooks, pre_hooks in self._hooks:
            layer._forward_hooks, layer._forward_pre_hooks = hooks, pre_hooks
        self._passed_on = None

    def copies(self, events: Sequence[Event], updated: int, moved: list[Event]) -> Iterator[tuple[int, list[Event]]]:
        """What the skipped layers would have added to the trace, and where.

        Args:
            events: the trace.
            updated: where the update begins.
            moved: the same; here events get the layer they would belong to if all had run.

        Raises:
            LayersDiffer: the layers are not alike.
        """
        passes = self._passes()
        for number, way in enumerate(passes):
            first, second, last, back = way
            done = passes[number + 1].first if number + 1 < len(passes) else updated
            around = LayerTimes(events, way, len(self.skipped))
            own = self._own(events, slice(second, last), slice(last, 2 * last - second), first)
            yield last, [around.upward(event, layer) for layer in range(len(self.skipped)) for event in own]
            self._move(moved, range(last, 2 * last - second), around.by_the_last)
            begin, end, passed_on = 2 * last - second, back[0] if back else done, Counter[int]()
            yield from self._late(events[begin:end], begin, slice(second, last), passed_on)
            if back:
                top, middle, bottom = back
                own = self._own(events, slice(middle, bottom), slice(top, middle), first)
                # The layer that ran stands for the uppermost skipped one, and so on downward.
                downward = range(len(self.skipped) - 2, TRACED - 1, -1)
                yield bottom, [around.downward(event, layer) for layer in downward for event in own]
                self._move(moved, range(top, middle), around.by_the_last)
                self._move(moved, range(middle, bottom), lambda e: around.downward(e, len(self.skipped) - 1))  # noqa: B023
                # A layer releases itself what the one above hands down; for the second layer the first does that, once.
                passed_on.update(event.size for event in events[middle:bottom] if top <= event.allocated_at < middle)
                behind = events[bottom:done]
                yield from self._late(behind, bottom, slice(second, last), Counter())
                yield from self._late(behind, bottom, slice(middle, bottom), passed_on)
            if max((last, *(back or ()))) > updated:
                raise LayersDiffer

    def _move(self, moved: list[Event], places: range, change: Callable[[Event], Event]) -> None:
        for place in places:
            if moved[place].kind == ACTIVATIONS:
                moved[place] = change(moved[place])

    def _late(
        self, events: Sequence[Event], begin: int, part: slice, passed_on: Counter[int]
    ) -> Iterator[tuple[int, list[Event]]]:
        """Releases, after the layers, of what was taken in a part: they come once per layer."""
        for place, event in enumerate(events, begin):
            if event.size < 0 and part.start <= event.allocated_at < part.stop:
                if passed_on[event.size]:
                    passed_on[event.size] -= 1
                else:
                    yield place + 1, [of_layer(event, event.allocated_at, layer) for layer in range(len(self.skipped))]

    def _own(self, events: Sequence[Event], part: slice, like: slice, since: int) -> list[Event]:
        """The part's events, as for every skipped layer.

        Activations from before `since` do not belong to it: masks and tables that all layers share are released once.

        Raises:
            LayersDiffer: the part `like` is different, or something made here stays.
        """
        own, model = (
            [event for event in events[some] if event.allocated_at >= since or event.kind != ACTIVATIONS]
            for some in (part, like)
        )
        if [e[:2] for e in own] != [e[:2] for e in model] or any(event.kind == LASTING for event in own):
            raise LayersDiffer
        return own

    def _passes(self) -> list[LayerPass]:
        """Raises `LayersDiffer` if the layers did not run one after the other."""
        forth, back = (_threes(marks, order) for marks, order in ((self._entered, KEPT), (self._returned, KEPT[::-1])))
        if back and len(back) != len(forth):
            raise LayersDiffer
        return [LayerPass(*entered, back[i] if back else None) for i, entered in enumerate(forth)]

    def give_gradients(self, count: Callable[[Any], int]) -> set[int]:
        """Give trained parameters of skipped layers gradients like the second layer's; returns those already there."""
        early = set()
        for layer in self.skipped:
            for parameter, model in zip(layer.parameters(), self._second.parameters(), strict=True):
                if parameter is not model and model.grad is not None:
                    if parameter.grad is not None:
                        early.add(count(parameter))
                    else:
                        parameter.grad = torch.empty_like(parameter)
                        count(parameter)
        return early

    def _watched(self, place: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self._entered.append((place, self._clock()))
            given = forward(*args, **kwargs)
            states = next((leaf for leaf in tree_leaves(given) if isinstance(leaf, torch.Tensor)), None)
            if states is not None and states.grad_fn is not None:
                states.grad_fn.register_prehook(lambda _: self._returned.append((place, self._clock())))
            if place == "second":
                self._passed_on, self._left = given, len(self.skipped)
            return given

        return run

    def _pass_on(self, *_: Any, **__: Any) -> Any:
        given = self._passed_on
        self._left -= 1
        if not self._left:
            self._passed_on = None  # from here on it lives as long as it would without the shortcut
        return given


class LayerTimes:
    """Tells whose tensors a layer takes and releases in a pass: its own, or those of the layer below or above.

    Layers are `TRACED` for the second one, which ran, then 0, 1, … for the skipped ones above it.
    """

    def __init__(self, events: Sequence[Event], way: LayerPass, skipped: int) -> None:
        self._first, self._second, self._last, self._skipped = way.first, way.second, way.last, skipped
        self._top, self._middle, self._bottom = way.back or (0, 0, 0)
        self._below = counterparts(events[way.first : way.second], events[way.second : way.last])
        self._above = counterparts(events[self._top : self._middle], events[self._middle : self._bottom])

    def upward(self, event: Event, layer: int) -> Event:
        """An event of the second layer's forward pass, as `layer` would have it."""
        if self._second <= event.allocated_at < self._last:
            return of_layer(event, event.allocated_at, layer)
        if self._first <= event.allocated_at < self._second and event.allocated_at in self._below:
            return of_layer(event, self._below[event.allocated_at], layer - 1)
        return event

    def downward(self, event: Event, layer: int) -> Event:
        """An event of the second layer's backward pass, as `layer` would have it."""
        if event.kind != ACTIVATIONS:  # the traced layer's gradients stay its own
            return (
                of_layer(event, event.allocated_at, layer + 1)
                if self._middle <= event.allocated_at < self._bottom
                else event
            )
        if self._second <= event.allocated_at < self._last or self._middle <= event.allocated_at < self._bottom:
            return of_layer(event, event.allocated_at, layer)
        if (
            self._top <= event.allocated_at < self._middle
            and event.allocated_at in self._above
            and layer < self._skipped - 1
        ):
            return of_layer(event, self._above[event.allocated_at], layer + 1)
        if self._first <= event.allocated_at < self._second and event.allocated_at in self._below and layer != TRACED:
            return of_layer(event, self._below[event.allocated_at], layer - 1)
        return event

    def by_the_last(self, event: Event) -> Event:
        """An event of the last layer, which is above the uppermost skipped one."""
        return (
            of_layer(event, event.allocated_at, self._skipped - 1)
            if self._second <= event.allocated_at < self._last
            else event
        )


def _threes(marks: Sequence[tuple[str, int]], order: Sequence[str]) -> list[tuple[int, int, int]]:
    found = []
    for i in range(0, len(marks), len(KEPT)):
        some = marks[i : i + len(KEPT)]
        if [place for place, _ in some] != [*order]:
            raise LayersDiffer
        found.append((some[0][1], some[1][1], some[2][1]))
    return found


def runs(model: nn.Module, clock: Callable[[], int]) -> list[Run]:
    """The model's runs of equal layers that are long enough; from now on they skip what need not run."""
    layers = [(name, module) for name, module in model.named_modules() if hasattr(module, LAYER)]
    groups = (
        [layer for _, layer in group]
        for _, group in groupby(layers, key=lambda pair: (pair[0].rpartition(".")[0], likeness(pair[1])))
    )
    return [Run(group, clock) for group in groups if len(group) >= FEWEST]


def likeness(layer: nn.Module) -> list[object]:
    """What two layers must share to take the same memory: modules, settings, shapes and which parameters train."""
    parts: list[object] = []
    for name, module in layer.named_modules():
        own = {key: value for key, value in settings(module).items() if key not in INDICES}
        tensors = [
            (key, None if t is None else (tuple(t.shape), t.dtype, t.requires_grad))
            for key, t in (*module._parameters.items(), *module._buffers.items())
        ]
        changed = "forward" in vars(module), len(module._forward_hooks), len(module._forward_pre_hooks)
        parts.append((name, type(module), own, tensors, changed))
    return parts


def settings(module: nn.Module) -> dict[str, bool | int | str | None]:
    """A module's plain attributes, as far as they affect memory.

    A float scales something or is a probability, so only whether it is zero counts.
    """
    plain = {key: bool(value) if isinstance(value, float) else value for key, value in vars(module).items()}
    return {key: value for key, value in plain.items() if value is None or isinstance(value, bool | int | str)}

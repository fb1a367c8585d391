"""The method that a winner was trained with, from its card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.methods import registry

if TYPE_CHECKING:
    from autopeft.methods.contract import PeftMethod
    from autopeft.study.card import Card


def method_of(card: Card) -> PeftMethod:
    """The method that a winner was trained with, with what is known about it.

    Raises:
        MethodError: its plugin is not installed.
        UserInputError: the method cannot use these facts.
    """
    method = registry.discover()[card.method]
    return method.knowing(card.method_facts) if card.method_facts else method

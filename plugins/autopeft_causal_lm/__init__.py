"""A text that follows a prompt or a conversation, written by a causal language model, as a plugin."""

from collections.abc import Iterable

from autopeft import Task, hookimpl


@hookimpl
def register_tasks() -> Iterable[Task]:
    """The one kind."""
    from autopeft_causal_lm.task import CausalLm

    return [CausalLm()]

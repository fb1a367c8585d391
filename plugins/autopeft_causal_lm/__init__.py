"""Plugin: a causal language model writes the text that follows a prompt or a conversation."""

from collections.abc import Iterable

from autopeft import Task, hookimpl


@hookimpl
def register_tasks() -> Iterable[Task]:
    """The kind of task `causal-lm`."""
    from autopeft_causal_lm.task import CausalLm

    return [CausalLm()]

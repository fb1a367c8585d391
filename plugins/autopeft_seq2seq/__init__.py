"""A text for a text, as in translation and summarisation, by a model with an encoder and a decoder, as a plugin."""

from collections.abc import Iterable

from autopeft import Task, hookimpl


@hookimpl
def register_tasks() -> Iterable[Task]:
    """The one kind."""
    from autopeft_seq2seq.task import Seq2Seq

    return [Seq2Seq()]

"""Plugin: a model with an encoder and a decoder writes a text for a text, as in translation and summarisation."""

from collections.abc import Iterable

from autopeft import Task, hookimpl


@hookimpl
def register_tasks() -> Iterable[Task]:
    """The kind of task `seq2seq`."""
    from autopeft_seq2seq.task import Seq2Seq

    return [Seq2Seq()]

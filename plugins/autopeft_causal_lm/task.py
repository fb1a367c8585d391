"""A text that follows a prompt or a conversation."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field as Setting

from autopeft import (
    Column,
    Encoded,
    Field,
    ModelError,
    Section,
    SpecError,
    Writing,
    WritingLimits,
    WritingOptions,
    quoted,
    token_fields,
)
from autopeft_causal_lm import apart, conversations, plain_rows
from autopeft_causal_lm.shapes import shape_of
from autopeft_causal_lm.template import AUTO, CHAT, PLAIN, PLAIN_TEMPLATE, ChatTemplate, Rendered
from autopeft_causal_lm.typed_marks import TypedMarks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    import pandas as pd

    from autopeft import ParamValue, RowTokenizer
    from autopeft_causal_lm.message import Message

MESSAGES = (
    Column("messages", "conversations", read=conversations.prompt),
    Column("answer", given=False, read=conversations.answer, of="messages"),
)
PROMPTS = (
    Column("prompt", "prompts", read=conversations.prompt_or_text),
    Column("completion", given=False, read=conversations.completion),
)
INSTRUCTIONS = (
    Column("instruction"),
    Column("input", optional=True, blank=True),
    Column("system", optional=True, blank=True),
    Column("output", given=False),
)
QUESTIONS = (Column("question"), Column("answer", given=False))
TEXTS = (Column("text"),)
FORMS = {"messages": MESSAGES, "prompt": PROMPTS, "instruction": INSTRUCTIONS, "question": QUESTIONS, "text": TEXTS}
"""The forms of rows, by their first columns: conversations, prompts with completions, instructions with outputs,
questions with answers, and texts alone."""

LONGEST, ENDS, POSITIONS = "longest_answer", "ends", "positions"
"""Facts: the most tokens of a written text, the tokens that end it, and how many positions the model has."""

TYPED, UNREAD, ENDED = "typed_marks", "unread", "ended"
"""Facts that are sentences, if there is something to say: about training rows with typed text that looks like a mark,
about training rows that the template leaves out in part, and about an ordinary token that ends answers."""

UNREAD_NAMES = {"system": "the system's message", "tool": "messages of tools", "tool_calls": "tool calls"}

WHOLE = 2**31
"""More tokens than any row has."""


class Options(WritingOptions):
    """Settings under [task]."""

    template: str = Setting(AUTO, max_length=2**16)
    """How conversations become text: "chat" by the tokenizer's own chat template, "plain" with who speaks before each
    message, or a Jinja template. Default: the tokenizer's own if it has one, else "plain"."""
    system: str = ""
    """A system message for conversations that have none."""
    learn: Literal["all", "last"] = "all"
    """Which of the assistant's messages are learnt."""


class CausalLm(Writing):
    """What comes after a prompt, after a conversation, or after the beginning of a text.

    From a conversation the model learns the assistant's messages, with the marks that end them; from a prompt with its
    completion, the completion with a mark for the end; from a text, all of it.
    """

    contract = 1
    kind = "causal-lm"
    auto_class = "AutoModelForCausalLM"
    peft_task_type = "CAUSAL_LM"
    columns: tuple[Column, ...] = MESSAGES
    Options: ClassVar[type[Section]] = Options

    def taking(self, named: Collection[str]) -> Self:
        """This task with the columns of the form that is named."""
        form = next((form for key, form in FORMS.items() if key in named), MESSAGES)
        task = copy.copy(self)
        task.columns = form
        return super(CausalLm, task).taking(named)

    def recognised(self, names: Sequence[str]) -> tuple[dict[str, str], str]:
        """The columns of the first form that a table has."""
        found = shape_of(names)
        if found is None:
            return {}, ""
        return {("messages" if name == "conversations" else name): name for name in found.columns}, found.told

    def check_folds(self, train: pd.DataFrame, folds: int, source: str) -> list[str]:
        """Make sure that there are enough rows for the folds, and that settings affect them."""
        told = super().check_folds(train, folds, source)
        if self.columns is TEXTS:
            plain = [True] * len(train)
        else:
            plain = [isinstance(prompt, str) for prompt in self._prompts(train)]
        return [*told, *plain_rows.told(self.options, plain)]

    def facts_of_config(self, config: Any) -> dict[str, ParamValue]:
        """Nothing; but refuse an encoder.

        Raises:
            ModelError: the model reads both ways.
        """
        import transformers

        masked = type(config) in transformers.AutoModelForMaskedLM._model_mapping
        if masked and not getattr(config, "is_decoder", False):
            raise ModelError(
                f"[model] name_or_path must be a model that was pretrained to continue a text, but "
                f"{config.model_type} fills in words of a text; give a causal language model."
            )
        return {}

    def example(self) -> pd.DataFrame:
        """Questions and answers."""
        import pandas as pd

        said = [("what is red", "a rose is red"), ("what is blue", "the sky is blue today"), ("what is it", "it is so")]
        rows = [(ask, f"{'well ' * count}{answer}") for count in range(4) for ask, answer in said]
        return pd.DataFrame(rows, columns=["question", "answer"])

    def facts_of_model(self, model: Any, rows: pd.DataFrame, reader: RowTokenizer) -> dict[str, ParamValue]:
        """How long a written text may be and which tokens end it, from the training rows.

        Raises:
            ModelError: the model's losses cannot be computed.
        """
        import numpy as np

        super().facts_of_model(model, rows, reader)
        self.prepare(reader)
        data = self.encode(rows, reader, ())
        labels = data.fields["labels"]
        assert labels.offsets is not None
        full = (data.lengths == data.whole) & (labels.lengths > 0)
        last = labels.values[labels.offsets[1:][full] - 1]
        own = reader.tokenizer.eos_token_id
        marked = own is not None or self.columns not in (TEXTS, PROMPTS)  # without a template rows end with `own`
        end = [int(np.bincount(last).argmax())] if marked and self.columns is not TEXTS and len(last) else []
        ends = dict.fromkeys([*end, *([own] if own is not None else [])])
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        found: dict[str, ParamValue] = {LONGEST: self.longest(labels.lengths), ENDS: json.dumps([*ends])}
        found[POSITIONS] = int(positions or 0)
        told = {TYPED: self._typed(rows, reader, "training rows"), UNREAD: self._unread(rows, reader, "training rows")}
        if end and end[0] not in {own, *reader.tokenizer.added_tokens_decoder}:
            told[ENDED] = (
                f"Answers end with the token {quoted(reader.tokenizer.decode(end))}, which is an ordinary one, so a "
                "written text ends wherever the model writes it; a template that prints {{ eos_token }} behind "
                "answers has a mark of its own."
            )
        return {**found, **{key: sentence for key, sentence in told.items() if sentence}}

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about typed marks, about what the template leaves out, and about an ordinary end token."""
        return tuple(str(self.facts[key]) for key in (TYPED, UNREAD, ENDED) if key in self.facts)

    @property
    def converses(self) -> bool:
        """Whether rows have messages."""
        return self.columns is MESSAGES

    @property
    def limits(self) -> WritingLimits:
        """The limits that the training rows set."""
        ends = json.loads(str(self.facts[ENDS]))
        return WritingLimits(int(self.facts[LONGEST]), tuple(map(int, ends)), int(self.facts[POSITIONS]) or None)

    # Rows.

    def truths(self, rows: pd.DataFrame) -> np.ndarray:
        """The texts to write, as people read them, an object array `[rows]`; "" if the rows have none."""
        import numpy as np

        found = np.full(len(rows), "", dtype=object)
        if self.columns is TEXTS:
            found[:] = rows["text"]
        elif (key := self.taught_columns[0]) in rows:
            written_here = self.columns in (MESSAGES, PROMPTS)
            found[:] = [conversations.text_of(cell) if written_here else cell for cell in rows[key]]
        return found

    def rendered(self, rows: pd.DataFrame, tokenizer: Any) -> list[Rendered]:
        """Each row as a text; if the row lacks what it teaches, as the prompt for the model.

        Raises:
            SpecError: the template does not take a conversation, or does not print it as it must.
        """
        if self.columns is TEXTS:
            return [Rendered(text, [(0, len(text))], plain=True) for text in rows["text"]]
        template = self._template(tokenizer)
        pairs = [*zip(self._prompts(rows), self._answers(rows), strict=True)]
        return apart.each(lambda row: self._rendered(*row, template), pairs)

    def _prompts(self, rows: pd.DataFrame) -> list[str | list[Message]]:
        """The prompt of each row: a text as it is, or messages."""
        first = self.columns[0].key
        if self.columns in (MESSAGES, PROMPTS):
            return [conversations.parse(cell) for cell in rows[first]]
        more, system = (rows[key] if key in self.inputs else [""] * len(rows) for key in ("input", "system"))
        found: list[str | list[Message]] = []
        for asked, given, told in zip(rows[first], more, system, strict=True):
            text = f"{asked}\n\n{given}" if given.strip() else asked
            opening = [{"role": "system", "content": told}] if told.strip() else []
            found.append([*opening, {"role": "user", "content": text}])
        return found

    def _answers(self, rows: pd.DataFrame) -> list[str | list[Message] | None]:
        """The answer of each row, likewise; None if the rows have none."""
        key = self.taught_columns[0]
        if key not in rows:
            return [None] * len(rows)
        return [conversations.parse(cell) if self.columns in (MESSAGES, PROMPTS) else cell for cell in rows[key]]

    def _rendered(
        self, prompt: str | list[Message], said: str | list[Message] | None, template: ChatTemplate
    ) -> Rendered:
        if isinstance(prompt, str):
            answer = said if isinstance(said, str) else said[-1]["content"] if said else ""
            return Rendered(prompt + answer, [] if said is None else [(len(prompt), len(prompt + answer))], plain=True)
        if said is None:
            return template.asked(self._opened(prompt))
        last = [{"role": "assistant", "content": said}] if isinstance(said, str) else said
        return template.rendered([*self._opened(prompt), *last], every=self.options.learn == "all")

    def _opened(self, prompt: list[Message]) -> list[Message]:
        """A conversation with the settings' system message, if it has none of its own."""
        if not self.options.system.strip() or prompt[0]["role"] == "system":
            return prompt
        return [{"role": "system", "content": self.options.system}, *prompt]

    def _template(self, tokenizer: Any) -> ChatTemplate:
        asked = self.options.template
        if asked == CHAT and not tokenizer.chat_template:
            raise SpecError(
                '`template` in [task] is "chat", but the tokenizer has no chat template; give "plain", or a Jinja '
                "template."
            )
        return ChatTemplate(tokenizer, {AUTO: "", CHAT: "", PLAIN: PLAIN_TEMPLATE}.get(asked, asked))

    def chat_template(self, tokenizer: Any) -> str | None:
        """The template with the settings' system message; None if rows are read as they are."""
        if self.columns in (PROMPTS, TEXTS):
            return None
        return self._template(tokenizer).beginning_with(self.options.system)

    def encode(self, rows: pd.DataFrame, reader: RowTokenizer, labels: Sequence[str]) -> Encoded:
        """The tokens of each row, and those that are learnt.

        Raises:
            SpecError: no row has anything left to learn.
        """
        import numpy as np

        texts = self.rendered(rows, reader.tokenizer)
        found = _answered(reader, texts, [row.answers for row in texts])
        counts = np.diff(found.offsets)
        if any(row.answers for row in texts) and not counts.any():
            raise SpecError(
                f"`max_length` in [model] must leave part of an answer, but with {reader.max_length} tokens no row "
                "has any left; raise it."
            )
        tokens = found.tokens
        fields = {
            **token_fields(tokens.columns, tokens.offsets, reader.tokenizer.pad_token_id),
            "answer_at": Field(found.at, found.offsets),
            "labels": Field(found.labels, found.offsets, -100),
        }
        return Encoded(fields, self.truths(rows), axis="input_ids", units=counts, whole=tokens.whole)

    def prepare(self, reader: RowTokenizer) -> None:
        """Give the tokenizer the chat template that turns conversations into text."""
        if self.columns is not TEXTS:
            reader.tokenizer.chat_template = self._template(reader.tokenizer).source

    def prompts(self, rows: pd.DataFrame, reader: RowTokenizer) -> list[np.ndarray]:
        """Each row's tokens up to where the answer begins, however long it is."""
        import numpy as np

        texts = self.rendered(rows[list(self.inputs)], reader.tokenizer)
        whole = type(reader)(reader.tokenizer, WHOLE)  # a cut prompt would not end where the answer begins
        found = _answered(whole, texts, [[] for _ in texts]).tokens
        return np.split(found.columns["input_ids"], found.offsets[1:-1])

    def told(self, rows: pd.DataFrame, reader: RowTokenizer) -> list[str]:
        """How many rows have typed text that looks like a mark, and how many the template leaves out in part."""
        given = rows[list(self.inputs)]
        return list(filter(None, [self._typed(given, reader, "rows"), self._unread(given, reader, "rows")]))

    def _typed(self, rows: pd.DataFrame, reader: RowTokenizer, called: str) -> str:
        """A sentence about rows with typed text that looks like a mark; empty if there are none."""
        said: list[tuple[Any, ...]]
        if self.columns is TEXTS:
            marks, said = TypedMarks(reader.tokenizer), [(text,) for text in rows["text"]]
        else:
            marks = self._template(reader.tokenizer).marks
            said = [*zip(self._prompts(rows), self._answers(rows), strict=True)]
        found = list(filter(None, (next(filter(None, map(marks.first_in, row)), "") for row in said)))
        if not found:
            return ""
        return (
            f"Text that looks like a mark of the tokenizer, such as {quoted(found[0])}, is in "
            f"{_counted(len(found), called)}; it is read as text, and begins or ends nothing."
        )

    def _unread(self, rows: pd.DataFrame, reader: RowTokenizer, called: str) -> str:
        """A sentence about rows that the chat template leaves out in part; empty if there are none.

        Raises:
            SpecError: it leaves out the settings' system message.
        """
        if self.columns is TEXTS:
            return ""
        template, counts = self._template(reader.tokenizer), Counter[str]()
        prompts = [prompt for prompt in self._prompts(rows) if not isinstance(prompt, str)]
        found = apart.each(lambda prompt: template.unread(self._opened(prompt)), prompts)
        for prompt, missing in zip(prompts, found, strict=True):
            if "system" in missing and prompt[0]["role"] != "system":
                raise SpecError(
                    "`system` in [task] must be read by the model, but its chat template does not print system "
                    "messages; leave it out, or give another `template`."
                )
            counts.update(missing)
        if not counts:
            return ""
        parts = [f"{UNREAD_NAMES.get(who, 'some answers')} in {_counted(n, called)}" for who, n in counts.items()]
        return f"The chat template leaves out {' and '.join(parts)}, so the model does not read that."

    def asked(self, rows: pd.DataFrame) -> list[str]:
        """The prompt, or the last message of a conversation."""
        if self.columns is TEXTS:
            return [*rows["text"]]
        return [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in self._prompts(rows)]

    def code(self, sample: Mapping[str, Sequence[Any]]) -> str:
        """The chat template filled in, or the texts as they are; then `generate`."""
        if self.columns in (TEXTS, PROMPTS):
            (texts,) = sample.values()
            asked, marks = f"prompts = {json.dumps([*texts], ensure_ascii=False)}", ""
        else:
            asked = (
                f"conversations = {json.dumps(self._shown(sample), ensure_ascii=False)}\n"
                "prompts = tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True)"
            )
            marks = ", add_special_tokens=False, split_special_tokens=False"
        limits = self.limits
        return (
            f"{asked}\n"
            f'inputs = tokenizer(prompts, padding=True, padding_side="left"{marks}, return_tensors="pt")\n'
            f"tokens = model.generate(**inputs, max_new_tokens={limits.new}, eos_token_id={[*limits.ends]}, "
            "do_sample=False)\n"
            'new = tokens[:, inputs["input_ids"].shape[1] :]\n'
            "texts = tokenizer.batch_decode(new, skip_special_tokens=True)\n"
        )

    def _shown(self, sample: Mapping[str, Sequence[Any]]) -> list[Any]:
        """The conversations of the example rows."""
        import pandas as pd

        said: Any = sample["messages"] if self.columns is MESSAGES else self._prompts(pd.DataFrame(dict(sample)))
        return [self._opened(one) for one in said]

    def sample(self, cells: Sequence[Any]) -> dict[str, Any]:
        """Two conversations of a message each, or two texts."""
        messages = [[{"role": "user", "content": str(cell)}] for cell in cells]
        return {key: messages if key == "messages" else [*cells] for key in self.inputs}


def _counted(count: int, called: str) -> str:
    return f"{count} {called if count > 1 else called.removesuffix('s')}"


def _answered(reader: RowTokenizer, texts: Sequence[Rendered], answers: Sequence[list[tuple[int, int]]]) -> Any:
    return reader.answered(
        [row.text for row in texts], answers, [row.plain for row in texts], [row.typed for row in texts]
    )

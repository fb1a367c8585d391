"""The base class of all kinds of task whose answer is a text that a language model writes."""

from __future__ import annotations

import copy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field

from autopeft.common.exceptions import DataError, SpecError
from autopeft.study.sections import Section
from autopeft.tasks import token_scores
from autopeft.tasks.contract import Baseline, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    import torch

    from autopeft.common.params import ParamValue
    from autopeft.models.writing_limits import WritingLimits
    from autopeft.tasks.metric import Metric
    from autopeft.tasks.text_scores.own import OwnScore
    from autopeft.tasks.text_scores.score import TextScore


USUAL, LONGER = 0.99, 8
"""A written text may be as long as the answers of this share of the training rows, and this many tokens longer."""


class WritingOptions(Section):
    """Settings under [task] of all kinds that write."""

    max_new_tokens: int | None = Field(None, ge=1, le=2**16)
    """Most tokens of a written text. Default: what 99 of 100 training rows need, and some more."""
    written_rows: int = Field(64, ge=0, le=10**6)
    """Held-out rows for which the winner, the base model and each default write a text at the end; 0: none."""
    scores: list[str] = Field(["exact_match", "token_f1"], min_length=1)
    """Scores of these texts, such as "rouge_l", "bleu", "chrf" or "numeric_match", or `module:function` of a Python
    file beside the study file."""
    choose_by: str | None = Field(None, min_length=1)
    """Such a score, which chooses the winner among the candidates that are best by the metric: at the end of the search
    the models of their folds write texts for `written_rows` validation rows. Default: the metric decides."""
    choose_among: int = Field(3, ge=2, le=100)
    """How many candidates `choose_by` chooses among."""


class Writing(Task):
    """A text for each row; a subclass says what a row is and how the model gets it.

    The search looks at how probable the model finds the text that a row teaches: nothing is written, and one pass
    predicts all of a row's tokens. Truths are these texts, an object array `[rows]`; answers are float32 `[rows, 3]`:
    the sum of the tokens' losses, how many tokens are the most probable ones, and how many there are. Where the model
    wrote texts (`generation`), answers are these, an object array `[rows]`.

    Beside the model's inputs a batch has `answer_at` and `labels` `[rows, tokens]`: the places whose states predict the
    tokens of the answer, and these tokens; -100 where a row has fewer. If the model's decoder reads nothing but the
    answer, there is no `answer_at`: each place predicts one token. The head was pretrained and stays as it is.

    Attributes:
        own_scores: the user's own scores of texts, which are functions, by name.
    """

    new_head: ClassVar[bool] = False
    writes: ClassVar[bool] = True
    pipeline_tag: ClassVar[str] = "text-generation"
    taught: ClassVar[tuple[str, ...]] = ("labels", "answer_at")
    metrics: ClassVar[Mapping[str, Metric]] = token_scores.metrics()
    Options: ClassVar[type[Section]] = WritingOptions
    own_scores: Mapping[str, OwnScore] = MappingProxyType({})

    @property
    def texts(self) -> int:
        """A row is one text to the tokenizer."""
        return 1

    def check(self, rows: pd.DataFrame, source: str) -> None:
        """Make sure that the scores of written texts are known, and that what they need is installed.

        Raises:
            SpecError: that is not so, or `choose_by` has no texts to go by.
        """
        if self.options.choose_by and not self.options.written_rows:
            raise SpecError(
                "`choose_by` in [task] needs texts, but `written_rows` is 0; raise it, or leave `choose_by` out."
            )
        for name in self.named_scores:
            self.text_score(name)

    @property
    def named_scores(self) -> dict[str, str]:
        """The scores of texts that are computed, by name, with the setting that names each."""
        scores = dict.fromkeys(self.options.scores if self.options.written_rows else (), "`scores` in [task]")
        by = self.options.choose_by
        return scores if by is None else {by: "`choose_by` in [task]", **scores}

    def scoring(self, own: Mapping[str, OwnScore]) -> Self:
        """This task with the user's own scores of texts, by name."""
        task = copy.copy(self)
        task.own_scores = own
        return task

    def text_score(self, name: str) -> TextScore:
        """The score of texts of that name.

        Raises:
            SpecError: it is not known, or what it needs is not installed.
        """
        from autopeft.tasks.text_scores.names import text_score

        return self.own_scores[name].score if name in self.own_scores else text_score(name)

    def check_folds(self, train: pd.DataFrame, folds: int, source: str) -> list[str]:
        """Make sure that there are enough rows for the folds."""
        if len(train) < folds:
            raise DataError(
                f"{source}: there must be a training row for each of the {folds} folds, but there are {len(train)}; "
                "lower `folds` in [validation], or give more rows."
            )
        return []

    def facts_of_model(self, model: Any, rows: pd.DataFrame, reader: Any) -> dict[str, ParamValue]:
        """Nothing; but refuse a model whose losses cannot be computed.

        Raises:
            ModelError: it has no head of the usual form.
        """
        from autopeft.models import token_loss

        token_loss.check(model)
        return {}

    def adapt(self, model: Any) -> None:
        """Have the head return states instead of logits when it is asked for states."""
        from autopeft.models import token_loss

        token_loss.put_on(model)

    def restore(self, model: Any) -> None:
        """Put the plain head back."""
        from autopeft.models.token_loss import LanguageHead

        LanguageHead.take_off(model)

    def run(self, model: Any, batch: Mapping[str, torch.Tensor]) -> Any:
        """The losses of the answers' tokens, and whether each is the most probable one."""
        import torch

        from autopeft.models.token_loss import token_losses

        labels = batch["labels"]
        every = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
        return token_losses(model, self.model_inputs(batch), batch.get("answer_at", every), labels)

    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy of the answers' tokens; 0 without any."""
        losses: torch.Tensor = outputs["losses"]
        return losses.sum() / (batch["labels"] >= 0).sum().clamp(min=1)

    def answer(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sums over each row's tokens, float32 `[rows, 3]`."""
        import torch

        told = outputs["losses"], outputs["hits"], (batch["labels"] >= 0).float()
        return torch.stack([each.sum(dim=1) for each in told], dim=1)

    def prepare(self, reader: Any) -> None:
        """Add to a reader what others need when it is saved, such as a chat template. Default: nothing."""

    def prompts(self, rows: pd.DataFrame, reader: Any) -> list[np.ndarray]:
        """The tokens of the prompt that the model gets for each row.

        Args:
            rows: the task's inputs by their keys.
            reader: as `encode` is given it.
        """
        raise NotImplementedError(f"{self.kind} must say how its rows are put to the model.")

    def longest(self, lengths: np.ndarray) -> int:
        """Most tokens of a written text: as the settings say, or else some more than most training rows teach.

        Args:
            lengths: how many tokens each training row teaches, int64 `[rows]`.
        """
        import numpy as np

        asked: int | None = self.options.max_new_tokens
        return asked or int(np.quantile(lengths, USUAL)) + LONGER

    @property
    def limits(self) -> WritingLimits:
        """When writing ends."""
        raise NotImplementedError(f"{self.kind} must say when writing ends.")

    @property
    def converses(self) -> bool:
        """Whether the first input of a row is a conversation: a list of messages, each with `role` and `content`."""
        return False

    def chat_template(self, tokenizer: Any) -> str | None:
        """The chat template with which the tokenizer alone makes the same prompt of a conversation as this task.

        Default: None, as rows are not conversations.
        """
        return None

    def told(self, rows: pd.DataFrame, reader: Any) -> list[str]:
        """What a user should know about the rows that the model answers, a sentence each. Default: nothing."""
        return []

    def write(
        self,
        model: Any,
        rows: pd.DataFrame,
        reader: Any,
        say: Callable[[str], None] | None = None,
        *,
        new: int | None = None,
        **sampling: Any,
    ) -> np.ndarray:
        """What the model writes for each row, an object array of texts `[rows]`; see `generation.written`.

        Args:
            model: of transformers.
            rows: the task's inputs by their keys.
            reader: as `encode` is given it.
            say: gets each sentence that a user should know about the rows.
            new: most tokens of a text. Default: what `limits` says.
            sampling: of transformers' `GenerationConfig`.

        Raises:
            UserInputError: `new` is less than one.
        """
        import numpy as np

        from autopeft.models import generation

        found = np.empty(len(rows), dtype=object)
        prompts, limits = self.prompts(rows, reader), self.limits.having(new)
        if say:
            for told in [*self.told(rows, reader), *limits.told(prompts)]:
                say(told)
        made = generation.written(model, reader.tokenizer, prompts, limits, **sampling)
        found[:] = reader.tokenizer.batch_decode(made, skip_special_tokens=True)
        return found

    def asked(self, rows: pd.DataFrame) -> list[str]:
        """What a person reads as the prompt of each row. Default: the first input."""
        return [str(cell) for cell in rows[self.inputs[0]]]

    def untrained(self, rows: pd.DataFrame) -> dict[str, list[str]]:
        """Texts that no model wrote and that are scored beside those of models, by their names. Default: none.

        Args:
            rows: the task's columns by their keys.
        """
        return {}

    def code(self, sample: Mapping[str, Sequence[Any]]) -> str:
        """Python code with which a `model` and a `tokenizer` write for those rows without autopeft; for READMEs.

        Args:
            sample: two rows, a list of cells for each input.
        """
        raise NotImplementedError(f"{self.kind} must say how it is asked by hand.")

    def written(self, answers: np.ndarray, labels: Sequence[str]) -> list[str]:
        """The sums of each row as JSON; texts as they are."""
        return [*answers] if answers.dtype == object else token_scores.written(answers)

    def written_truths(self, truths: np.ndarray, labels: Sequence[str]) -> list[str]:
        """The texts."""
        return [*truths]

    def as_value(self, written: str) -> Any:
        """A text as it is; sums as a mapping with `loss`, `hits` and `tokens`."""
        return token_scores.sums_in(written) or written

    def table(self, answers: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
        """A column `text`; for sums, the mean loss of a token and the share of hits."""
        import pandas as pd

        if answers.dtype == object:
            return pd.DataFrame({"text": [*answers]})
        return pd.DataFrame(
            {"loss": -token_scores.neg_loss(answers), "token_accuracy": token_scores.token_accuracy(answers)}
        )

    def as_json(self, answer: Any, labels: Sequence[str]) -> dict[str, Any]:
        """The text; for sums, the mean loss of a token and the share of hits."""
        if isinstance(answer, str):
            return {"text": answer}
        return {
            "loss": float(-token_scores.neg_loss(answer)),
            "token_accuracy": float(token_scores.token_accuracy(answer)),
        }

    def baseline(self, train: np.ndarray, test: np.ndarray, labels: Sequence[str]) -> Baseline:
        """There is none: the host asks the base model as it was pretrained."""
        raise NotImplementedError(f"{self.kind} is compared with the base model itself.")

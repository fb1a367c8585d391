"""Texts that a language model writes after prompts, or for sources: the likeliest token each time, many rows at once.

A decoder continues its prompts, so they are padded on the left. An encoder–decoder model reads its sources whole,
padded on the right, and its decoder begins with its own tokens.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from autopeft.common.containment import heartbeat
from autopeft.common.exceptions import AutopeftError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from autopeft.models.growing_text import GrowingText
    from autopeft.models.writing_limits import WritingLimits

TOKENS_AT_ONCE = {"cpu": 2**13, "cuda": 2**16}
"""Tokens of prompts, padding and written texts at a time, by kind of device."""

_over: ContextVar[Callable[[], bool] | None] = ContextVar("over", default=None)
"""Says that writing must end; None where only the texts' own limits end it."""


class StoppedError(AutopeftError):
    """A text was not written to its end."""


@contextmanager
def until(over: Callable[[], bool]) -> Iterator[None]:
    """In this block, this thread writes only until `over` says so, which is asked before each token.

    Raises:
        StoppedError: writing was ended by it.
    """
    before = _over.set(over)
    try:
        yield
    finally:
        _over.reset(before)


def written(
    model: Any, tokenizer: Any, prompts: Sequence[np.ndarray], limits: WritingLimits, **sampling: Any
) -> list[np.ndarray]:
    """The tokens that the model writes after each prompt, or for each source, without the end token.

    If a prompt leaves no room, its end is kept; an empty prompt begins a text.

    Args:
        model: of transformers; methods may have changed it.
        tokenizer: for its padding token.
        prompts: tokens of each; if `limits.begin` is set, the encoder's input.
        limits: when writing ends.
        sampling: settings of transformers' `GenerationConfig`, such as `do_sample` and `temperature`. Default: greedy.

    Raises:
        StoppedError: it was ended (`until`).
    """
    new, _ = limits.room
    prompts = [_fitting(ids, tokenizer, limits) for ids in prompts]
    found: list[np.ndarray] = [np.zeros(0, np.int64)] * len(prompts)
    for rows in _batches([len(ids) + new for ids in prompts], TOKENS_AT_ONCE.get(model.device.type, 2**13)):
        heartbeat()
        _check(_over.get())
        for row, ids in zip(
            rows, _batch(model, tokenizer, [prompts[row] for row in rows], new, limits, sampling), strict=True
        ):
            found[row] = ids
    return found


def streamed(
    model: Any, tokenizer: Any, prompt: np.ndarray, limits: WritingLimits, text: GrowingText, **sampling: Any
) -> None:
    """Write after one prompt, as `written` does, and pass each token to `text` as soon as it is there."""
    new, _ = limits.room
    _batch(model, tokenizer, [_fitting(prompt, tokenizer, limits)], new, limits, sampling, text)
    text.end()


def _fitting(prompt: np.ndarray, tokenizer: Any, limits: WritingLimits) -> np.ndarray:
    """As much of a prompt as there is room for, at least one token."""
    if not len(prompt):  # the way texts of pretraining begin
        first = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        return np.array([next(token for token in first if token is not None)])
    _, most = limits.room
    return prompt if most is None else prompt[-most:]


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Rows of similar length, together at most `most` tokens with padding; the longest come first."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while order:
        count = max(1, most // lengths[order[0]])
        yield order[:count]
        order = order[count:]


def _batch(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[np.ndarray],
    new: int,
    limits: WritingLimits,
    sampling: dict[str, Any],
    streamer: GrowingText | None = None,
) -> list[np.ndarray]:
    from transformers import GenerationConfig

    pad, begin = int(tokenizer.pad_token_id), [*limits.begin]
    ids, mask = _padded(prompts, pad, left=not begin)  # else the written text would come after padding
    inputs = {"input_ids": ids, "attention_mask": mask}
    if begin:
        inputs["decoder_input_ids"] = torch.tensor([begin] * len(prompts))
    config = GenerationConfig(
        max_new_tokens=new,
        eos_token_id=list(limits.ends) or None,
        pad_token_id=pad,
        use_cache=True,
        **(_of_decoder(begin, pad, limits.ends) if begin else {}),
        **{"do_sample": False, **sampling},
    )
    with torch.no_grad(), _configured(model, config):
        given = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        made = model.generate(**given, **_stopping(), **({"streamer": streamer} if streamer else {}))
    return [_ended(row, limits.ends) for row in made[:, len(begin) or ids.shape[1] :].cpu().numpy()]


def _stopping() -> dict[str, Any]:
    """The argument of `generate` with which `until` ends it."""
    from transformers import StoppingCriteriaList

    over = _over.get()
    if over is None:
        return {}

    def criterion(ids: torch.Tensor, scores: Any, **others: Any) -> torch.Tensor:
        _check(over)
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    return {"stopping_criteria": StoppingCriteriaList([criterion])}


def _check(over: Callable[[], bool] | None) -> None:
    if over is not None and over():
        raise StoppedError("the text was not written to its end, because the program ends; ask again when it runs.")


def _of_decoder(begin: Sequence[int], pad: int, ends: Sequence[int]) -> dict[str, Any]:
    """Settings of a decoder after an encoder."""
    never = {} if pad in ends else {"suppress_tokens": [pad]}  # Marian's models find padding probable
    return {"decoder_start_token_id": begin[0], **never}


def _padded(prompts: Sequence[np.ndarray], pad: int, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of all rows, padded on one side, and their mask."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        place = slice(longest - len(prompt), longest) if left else slice(len(prompt))
        ids[row, place] = torch.from_numpy(np.asarray(prompt, np.int64))
        mask[row, place] = 1
    return ids, mask


@contextmanager
def _configured(model: Any, config: Any) -> Iterator[None]:
    """Use only these settings: temperature and beams in a model's files must not affect scores."""
    from transformers import GenerationMixin

    # peft's wrapper around a model with an encoder leaves the model its own settings.
    plain = next((module for module in model.modules() if isinstance(module, GenerationMixin)), model)
    own = plain.generation_config
    plain.generation_config = config
    try:
        yield
    finally:
        plain.generation_config = own


def _ended(ids: np.ndarray, ends: Sequence[int]) -> np.ndarray:
    """Tokens before the first end token."""
    places = np.flatnonzero(np.isin(ids, list(ends)))
    return ids[: places[0]] if len(places) else ids

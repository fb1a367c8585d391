"""Codes of languages that tokenizers put beside texts, as mBART's, NLLB's and M2M100's do."""

from __future__ import annotations

import re
from typing import Any

from autopeft import SpecError, nearest, quoted

CODE = re.compile(r"[a-z]{2,3}_[A-Za-z]{2,4}")
"""Such as "en_XX" and "eng_Latn"."""


def codes_of(tokenizer: Any) -> tuple[str, ...]:
    """The codes that a tokenizer knows; none where it does not tell languages apart.

    Args:
        tokenizer: of transformers.
    """
    if not isinstance(getattr(type(tokenizer), "src_lang", None), property):
        return ()
    known = getattr(tokenizer, "lang_code_to_id", None) or filter(CODE.fullmatch, tokenizer.all_special_tokens)
    return tuple(known)


def speak(tokenizer: Any, source: str, target: str) -> None:
    """Have a tokenizer that knows codes put these beside sources and targets; empty: as it is.

    Args:
        tokenizer: of transformers.
        source: the code of what is read.
        target: the code of what is written.
    """
    known = codes_of(tokenizer)
    for attribute, code in (("src_lang", source), ("tgt_lang", target)):
        if code in known:
            setattr(tokenizer, attribute, code)
            tokenizer.init_kwargs[attribute] = code  # which is saved with it


def check(tokenizer: Any, source: str, target: str, *, choosing: bool) -> None:
    """Refuse codes that the tokenizer does not know, or needs and was not given.

    Args:
        tokenizer: of transformers.
        source: `source_language` in [task].
        target: `target_language`.
        choosing: whether they also say which of several texts of a row is read, and which is written.

    Raises:
        SpecError: in one sentence.
    """
    known = codes_of(tokenizer)
    kind = type(tokenizer).__name__
    settings = ("source_language", source, "src_lang"), ("target_language", target, "tgt_lang")
    for name, code, attribute in settings:
        if not known and code and not choosing:
            raise SpecError(
                f"`{name}` in [task] is for tokenizers that know codes of languages, such as mBART's and NLLB's, or "
                f"for rows with a column `translation`, but this is {kind} and the rows have none; remove it, and say "
                "in `prefix` what the model needs to be told."
            )
        if known and not code and not tokenizer.init_kwargs.get(attribute):  # it would take English, or nothing
            raise SpecError(
                f"`{name}` in [task] must name a language, since {kind} puts its code beside every text, but is not "
                f"given; {nearest('', known)}"
            )
        if known and code and code not in known:
            raise SpecError(
                f"`{name}` in [task] must be a code that {kind} knows, but got {quoted(code)}; {nearest(code, known)}"
            )

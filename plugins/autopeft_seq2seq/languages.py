"""Language codes that tokenizers put beside texts, as those of mBART, NLLB and M2M100 do."""

from __future__ import annotations

import re
from typing import Any

from autopeft import SpecError, nearest, quoted

CODE = re.compile(r"[a-z]{2,3}_[A-Za-z]{2,4}")
"""The form of codes such as "en_XX" and "eng_Latn"."""


def codes_of(tokenizer: Any) -> tuple[str, ...]:
    """The codes that a tokenizer knows; empty if it does not use languages.

    Args:
        tokenizer: of transformers.
    """
    if not isinstance(getattr(type(tokenizer), "src_lang", None), property):
        return ()
    known = getattr(tokenizer, "lang_code_to_id", None) or filter(CODE.fullmatch, tokenizer.all_special_tokens)
    return tuple(known)


def speak(tokenizer: Any, source: str, target: str) -> None:
    """Have a tokenizer that knows codes put these beside sources and targets; an empty code changes nothing.

    Args:
        tokenizer: of transformers.
        source: the code of the texts to read.
        target: the code of the texts to write.
    """
    known = codes_of(tokenizer)
    for attribute, code in (("src_lang", source), ("tgt_lang", target)):
        if code in known:
            setattr(tokenizer, attribute, code)
            tokenizer.init_kwargs[attribute] = code  # these are saved with the tokenizer


def check(tokenizer: Any, source: str, target: str, *, choosing: bool) -> None:
    """Refuse codes that the tokenizer does not know, and missing codes that it needs.

    Args:
        tokenizer: of transformers.
        source: `source_language` in [task].
        target: `target_language`.
        choosing: whether they also say which of a row's texts is read, and which is written.

    Raises:
        SpecError: in one sentence.
    """
    known = codes_of(tokenizer)
    kind = type(tokenizer).__name__
    settings = ("source_language", source, "src_lang"), ("target_language", target, "tgt_lang")
    for name, code, attribute in settings:
        if not known and code and not choosing:
            raise SpecError(
                f"`{name}` in [task] is for tokenizers that know language codes, such as mBART's and NLLB's, or for "
                f"rows with a column `translation`, but this is {kind} and the rows have none; remove it, and use "
                "`prefix` if the model needs an instruction."
            )
        if known and not code and not tokenizer.init_kwargs.get(attribute):  # it would take English, or nothing
            raise SpecError(
                f"`{name}` in [task] must name a language, since {kind} puts its code beside every text, but it is not "
                f"set; {nearest('', known)}"
            )
        if known and code and code not in known:
            raise SpecError(
                f"`{name}` in [task] must be a code that {kind} knows, but got {quoted(code)}; {nearest(code, known)}"
            )

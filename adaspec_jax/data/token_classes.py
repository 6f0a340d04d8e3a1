"""Which class of text a token belongs to: by what it shows, the same in every place where tokens are counted."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKEN_CLASSES = ("digits", "operators", "names", "words", "code", "punctuation", "whitespace", "special", "other")
_DIGITS = re.compile(r"\d+(?:[.,:]\d+)*[.,]?")
_OPERATORS = re.compile(r"[-+*/=<>^%$€£¥#&|~×÷±≤≥≠≈−√∑∏∫∞°]+")
_CODE = re.compile(r".*[{}\[\]\\_`@;].*|.*\w[(.]\w.*|.*[=!<>]=.*|.*(?:->|=>|::|//|&&|\|\|).*", re.DOTALL)
_MIXED = re.compile(r"[^\W\d_]+\d\w*|\d+[^\W\d_]\w*|[^\W\d_]*[a-z][A-Z]\w*")  # x1, 2nd, camelCase
_LETTERS = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*['’-]?|['’][^\W\d_]+")


def token_class(text: str) -> str:
    """One of `TOKEN_CLASSES` but "special", by the text alone; spaces around it do not count.

    "names" are words with a capital first letter, beginnings of sentences among them; "code" is what has brackets of
    code, underscores, joined operators or capitals inside; "other" is what shows nothing, half a character or several
    of the others at once.
    """
    core = text.strip()
    if not core:
        return "whitespace" if text else "other"
    if _DIGITS.fullmatch(core):
        return "digits"
    if _CODE.fullmatch(core):
        return "code"
    if _OPERATORS.fullmatch(core):
        return "operators"
    if _MIXED.fullmatch(core):
        return "code"
    if _LETTERS.fullmatch(core):
        return "names" if core[0].isupper() else "words"
    if all(unicodedata.category(letter)[0] in "PS" for letter in core):
        return "other" if "\ufffd" in core else "punctuation"
    return "other"


def token_classes(tokenizer: PreTrainedTokenizerBase, rows: int | None = None) -> np.ndarray:
    """[V] int8: the index in `TOKEN_CLASSES` of each token, decoded alone; of `rows` rows, those without a token last.

    A row that no token owns is "other".
    """
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    special = set(tokenizer.all_special_ids)
    names = ["special" if token in special else token_class(text) for token, text in enumerate(texts)]
    names += ["other"] * max((rows or 0) - len(names), 0)
    return np.array([TOKEN_CLASSES.index(name) for name in names], np.int8)

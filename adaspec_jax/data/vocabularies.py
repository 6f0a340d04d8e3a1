"""Two vocabularies side by side: which tokens have one string, and how each token is spelled in the other's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from adaspec_jax.data.texts import following
from adaspec_jax.data.tokenization import opening
from adaspec_jax.data.tokenizer_identity import parts
from adaspec_jax.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST = 8  # tokens of a spelling that are kept; ours
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# What a decoder does to whole texts says nothing about a token's string: it joins them, or takes the first blank away.
_OF_TEXTS = ("Fuse", "Strip")


class Table(NamedTuple):
    """A row per token: its spelling in the other vocabulary."""

    tokens_VK: np.ndarray  # int32; past the spelling's end, and where no token says the same, -1
    lengths_V: np.ndarray  # int32; above K where tokens at the end were cut off


class Vocabularies(NamedTuple):
    """A target's and a draft's: rows are those of the models' logits."""

    draft_of_V: np.ndarray  # int32: the draft's token of the same string, -1: there is none
    spelling: Table  # [V + 1]: the target's tokens in the draft's, the last K of them; at the end the draft's beginning
    meaning: Table  # [W]: the draft's tokens in the target's, the first K of them
    tokens: int  # that the target's tokenizer has

    @property
    def shared(self) -> int:
        """How many of the target's tokens are the draft's too."""
        return int((self.draft_of_V >= 0).sum())

    @property
    def ratio(self) -> float:
        """Draft tokens of a target token, the mean over the vocabulary; texts have fewer, of more frequent words."""
        return float(self.spelling.lengths_V[: self.tokens].mean())


def side_by_side(
    target: PreTrainedTokenizerBase,
    draft: PreTrainedTokenizerBase,
    *,
    target_rows: int,
    draft_rows: int,
    names: tuple[str, str] = ("the target", "the draft"),
) -> Vocabularies:
    """The two vocabularies, of models with so many rows of logits; UserError where a token's string cannot be told.

    Two tokens are one where they add the same bytes to a text. No special token has a string; the ends of text are one
    where both tokenizers name one, and a beginning of the target's is the draft's, or for lack of one its end. Any
    other token is spelled as the other tokenizer encodes its text, in the middle of a line, special tokens' names
    included; part of a character byte by byte.
    """
    ours, theirs = (_Side.of(each, name) for each, name in zip((target, draft), names, strict=True))
    begins = tuple(opening(draft))
    draft_of_V = np.full(target_rows, -1, np.int32)
    for text, token in ours.id_of.items():
        draft_of_V[token] = theirs.id_of.get(text, -1)
    spellings, meanings = theirs.spellings(ours), ours.spellings(theirs)
    end, their_end = target.eos_token_id, draft.eos_token_id
    for token in opening(target):
        spellings[token] = () if begins else (their_end,) if their_end is not None else spellings[token]
    for token in theirs.special:
        meanings[token] = (-1,)
    if end is not None and their_end is not None:
        draft_of_V[draft_of_V == their_end] = -1
        draft_of_V[end] = their_end
        spellings[end], meanings[their_end] = (their_end,), (end,)
    spelled = [spellings.get(token, ()) for token in range(target_rows)]
    spelling = _table([row[-LONGEST:] for row in (*spelled, begins)])
    meant = [meanings.get(token) or (-1,) for token in range(draft_rows)]
    return Vocabularies(draft_of_V, spelling, _table(meant), max(ours.texts) + 1)


class _Side(NamedTuple):
    """A tokenizer, and the strings of its tokens."""

    tokenizer: Any
    texts: Mapping[int, bytes]  # of every token, special ones by their names
    special: frozenset[int]
    id_of: Mapping[bytes, int]  # strings of tokens that are not special; of several with one string, what is written

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, name: str) -> _Side:
        read, added = _reader(tokenizer, name), tokenizer.added_tokens_decoder
        texts = {i: read(token) for token, i in tokenizer.get_vocab().items() if i not in added}
        texts |= {i: token.content.encode() for i, token in added.items()}
        special = frozenset(i for i, token in added.items() if token.special)
        by_text: dict[bytes, list[int]] = {}
        for i in sorted(texts.keys() - special):
            by_text.setdefault(texts[i], []).append(i)
        return cls(tokenizer, texts, special, {text: _written(text, ids, tokenizer) for text, ids in by_text.items()})

    def spellings(self, other: _Side) -> dict[int, tuple[int, ...]]:
        """Every token of the other side in tokens of this one; () where this one has none for it."""
        found: dict[int, tuple[int, ...]] = {}
        to_encode = {}
        for i, text in other.texts.items():
            if i not in other.special and text in self.id_of:
                found[i] = (self.id_of[text],)
                continue
            try:
                to_encode[i] = text.decode()
            except UnicodeDecodeError:
                whole = [self.id_of.get(bytes([byte])) for byte in text]
                there = tuple(token for token in whole if token is not None)
                found[i] = there if len(there) == len(whole) else ()
        return found | dict(zip(to_encode, map(tuple, following([*to_encode.values()], self.tokenizer)), strict=True))


def _written(text: bytes, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """Of several tokens with one string, the one that the tokenizer writes; else the first that is no single byte."""
    if len(ids) == 1:
        return ids[0]
    try:
        [encoded] = following([text.decode()], tokenizer)
    except UnicodeDecodeError:
        encoded = []
    if len(encoded) == 1 and encoded[0] in ids:
        return encoded[0]
    return next((i for i in ids if not _BYTE.fullmatch(tokenizer.convert_ids_to_tokens(i))), ids[0])


def _reader(tokenizer: PreTrainedTokenizerBase, name: str) -> Callable[[str], bytes]:
    """From a token as its vocabulary has it to the bytes that it adds to a text, as the tokenizer's decoder says."""
    steps = [step for step in parts(tokenizer).get("decoder", ()) if step["type"] not in _OF_TEXTS]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return _of_byte_level
    asked = [_replacement(step) for step in steps if step["type"] in ("Replace", "Metaspace")]
    replaced = [pair for pair in asked if pair is not None]
    if not steps or set(kinds) - {"Replace", "Metaspace", "ByteFallback"} or len(replaced) < len(asked):
        said = f"a decoder of {', '.join(kinds)}" if kinds else "no decoder in a tokenizer.json"
        raise UserError(
            f"which strings the tokens of {name} stand for is not known here: its tokenizer has {said}; take a model "
            "whose tokenizer is byte-level BPE, or SentencePiece's"
        )

    def read(token: str) -> bytes:
        if "ByteFallback" in kinds and (byte := _BYTE.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        for old, new in replaced:
            token = token.replace(old, new)
        return token.encode()

    return read


def _replacement(step: Mapping[str, Any]) -> tuple[str, str] | None:
    """What becomes what; None for a pattern that is no plain string."""
    if step["type"] == "Metaspace":
        return step["replacement"], " "
    old = step["pattern"].get("String")
    return None if old is None else (old, step["content"])


def _byte_of_character() -> dict[str, int]:
    """GPT-2's table: bytes that are no printable Latin-1 characters are written as those from U+0100 on."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(0x100 + n): byte for n, byte in enumerate(hidden)}


_BYTE_OF_CHARACTER = _byte_of_character()


def _of_byte_level(token: str) -> bytes:
    try:
        return bytes(_BYTE_OF_CHARACTER[character] for character in token)
    except KeyError:  # as the decoder has it: not written in the table's characters, so it stands for itself
        return token.encode()


def _table(rows: Sequence[Sequence[int]]) -> Table:
    longest = min(LONGEST, max(1, *map(len, rows)))
    tokens_VK = np.full((len(rows), longest), -1, np.int32)
    for tokens_K, row in zip(tokens_VK, rows, strict=True):
        tokens_K[: len(row)] = row[:longest]
    return Table(tokens_VK, np.array([len(row) for row in rows], np.int32))

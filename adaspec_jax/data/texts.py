"""Text into tokens and back where two pieces meet: prompts, answers after them, and what each further token adds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from adaspec_jax.data.tokenization import opening
from adaspec_jax.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HALF = "\ufffd"  # what a decoder shows of a character whose bytes are not all there
_WINDOW = 16  # tokens before a new one that may change how it is shown
_LONGEST = 8  # tokens of one character; more are no character's


def ids_of(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Nothing added; UserError for what is no text: half of a surrogate pair, as bytes become that are not UTF-8."""
    try:
        # verbose=False: what is longer than the tokenizer's own idea of a model is the caller's business.
        return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    except TypeError:
        halves = [text for text in texts if any("\ud800" <= letter <= "\udfff" for letter in text)]
        if not halves:
            raise
        raise UserError(
            f"the text {halves[0][:40]!a} holds half of a surrogate pair, which no tokenizer reads: give it in UTF-8"
        ) from None


def begun(ids: Sequence[int], begin: Sequence[int]) -> list[int]:
    """`ids` after what the tokenizer begins every text with, once: a text may carry it already."""
    return [*ids] if [*ids[: len(begin)]] == [*begin] else [*begin, *ids]


def prompt_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A prompt as a server reads it."""
    return begun(ids_of([text], tokenizer)[0], opening(tokenizer))


def answer_ids(
    prompts: list[str], answers: list[str], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[list[int]], list[list[int]]]:
    """(prompts' ids, answers' ids), nothing added.

    Prompts are tokenised alone, as a server that has no answer yet does. Where the joint text begins with the same
    ids, the answer's are the rest of it. Else a token of the joint text lies across the boundary, and the answer's ids
    are those it has after a line break: text that follows, without the space that SentencePiece puts before a first
    word.
    """
    alone, joint = ids_of(prompts, tokenizer), ids_of([p + a for p, a in zip(prompts, answers, strict=True)], tokenizer)
    follow = following(answers, tokenizer)
    rest = [
        whole[len(prompt) :] if whole[: len(prompt)] == prompt else after
        for prompt, whole, after in zip(alone, joint, follow, strict=True)
    ]
    return alone, rest


def ended_at(answer: Sequence[int], ends: Collection[int], tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many tokens an answer has up to its own end of text, where nothing but blanks follows; None without one."""
    last = max((at for at, token in enumerate(answer) if token in ends), default=None)
    if last is None or text_of(answer[last + 1 :], tokenizer).strip():
        return None
    while last and answer[last - 1] in ends and answer[last - 1] == answer[last]:
        last -= 1
    return last + 1


def following(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The ids of texts as after a line break, where that is a token of its own; else as at the beginning of a text."""
    [before] = ids_of(["\n"], tokenizer)
    whole = ids_of(["\n" + text for text in texts], tokenizer) if texts else []
    joined = [at for at, ids in enumerate(whole) if ids[: len(before)] != before]
    found = [ids[len(before) :] for ids in whole]
    for at, ids in zip(joined, ids_of([texts[at] for at in joined], tokenizer) if joined else (), strict=True):
        found[at] = ids
    return found


def text_of(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, *, special: bool = True) -> str:
    """As the tokenizer's decoder says; `special` tokens are shown, or left out."""
    return tokenizer.decode([*ids], skip_special_tokens=not special, clean_up_tokenization_spaces=False)


def continuation(
    before: Sequence[int], new: Sequence[int], tokenizer: PreTrainedTokenizerBase, *, special: bool = True
) -> str:
    """What `new` tokens add to the text of those before them."""
    start = text_of(before, tokenizer, special=special)
    whole = text_of([*before, *new], tokenizer, special=special)
    kept = start if whole.startswith(start) else start.rstrip(HALF)
    return whole[len(kept) :] if whole.startswith(kept) else text_of(new, tokenizer, special=special)


def pieces(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """What each token adds to the text: together they are all of it; a character of several tokens is its last's."""
    growing = Growing((), tokenizer)
    for at, token in enumerate(ids, 1):
        yield growing.add([token]) + (growing.rest() if at == len(ids) else "")


class Growing:
    """The text of tokens that come a few at a time, after `before`: what they add is decoded from a few tokens earlier.

    Together, what `add` and at last `rest` give is `continuation` of all tokens. Half a character waits for its rest.
    """

    def __init__(self, before: Sequence[int], tokenizer: PreTrainedTokenizerBase, *, special: bool = True) -> None:
        self._tokenizer, self._special = tokenizer, special
        self._ids, self._waiting = [*before], 0  # the tokens of the stretch, and how many of them are not given out
        self._begin_again()

    def add(self, new: Sequence[int]) -> str:
        """What these tokens add, as far as no later token can change it."""
        return "".join(map(self._one, new))

    def rest(self) -> str:
        """What still waits, half characters and all."""
        return self._given_out(self._text()) if self._waiting else ""

    def _one(self, token: int) -> str:
        self._ids.append(token)
        text = self._text()
        if text.endswith(HALF) and self._waiting < _LONGEST:
            self._waiting += 1
            return ""
        return self._given_out(text)

    def _given_out(self, text: str) -> str:
        said = self._said if text.startswith(self._said) else self._said.rstrip(HALF)
        self._waiting = 0
        self._begin_again()
        return text[len(said) :]

    def _begin_again(self) -> None:
        """The stretch is now the last tokens alone, from one on with which a character begins."""
        for size in range(_WINDOW, _WINDOW + _LONGEST):
            last = self._ids[-size:]
            self._said = text_of(last, self._tokenizer, special=self._special)
            if size >= len(self._ids) or not self._said.startswith(HALF):
                break
        self._ids = last

    def _text(self) -> str:
        return text_of(self._ids, self._tokenizer, special=self._special)

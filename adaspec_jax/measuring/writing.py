"""Text as it is decoded, up to a stop string."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adaspec_jax import data
from adaspec_jax.decoding import Context, Generation, Logprobs, Sampling, stream
from adaspec_jax.decoding.engine import checked_exactly, per_token, round_up
from adaspec_jax.decoding.types import Drafter
from adaspec_jax.errors import UserError
from adaspec_jax.methods import Given, Method


class Piece(NamedTuple):
    """Of a text that is being written."""

    text: str
    guessed: bool  # of the draft's accepted guesses, not of the target's own tokens


@dataclass
class Pace:
    """How fast a text came: its first round apart, which holds the compilation."""

    began: float = field(default_factory=time.perf_counter)
    first: tuple[int, float] | None = None  # tokens and time after it
    last: tuple[int, float] | None = None

    def step(self, tokens: int) -> None:
        """A round is done, after which there are so many new tokens."""
        self.last = tokens, time.perf_counter()
        self.first = self.first or self.last

    @property
    def seconds_to_first(self) -> float:
        return self.first[1] - self.began

    @property
    def tokens_per_second(self) -> float | None:
        """Of the rounds after the first; None where there were no more."""
        seconds = self.last[1] - self.first[1]
        return (self.last[0] - self.first[0]) / seconds if seconds > 0 else None


def pieces_of(
    rounds: Iterator[Generation],
    growing: data.Growing,
    start: int,
    most: int,
    *,
    pace: Pace,
    silent: Collection[int] = (),
) -> Iterator[tuple[list[Piece], Generation | None]]:
    """What each round of one row adds after `start` tokens, and at last what still waits, with the generation so far.

    Of the tokens the new ones alone are fetched, at `most` so many. `silent` ones are not written.
    """
    made, length, accepted = None, start, 0
    for made in rounds:
        row = made.tokens_BS, made.lengths_B, made.accepted_BN
        new, end, in_all = jax.device_get(_new(*row, length, most=most))
        pace.step(int(end) - start)
        tokens, guessed = new[: end - length].tolist(), int(in_all) - accepted
        parts = tokens[:guessed], tokens[guessed:]
        texts = [growing.add([token for token in part if token not in silent]) for part in parts]
        yield [Piece(texts[0], True), Piece(texts[1], False)], made
        length, accepted = int(end), int(in_all)
    yield [Piece(growing.rest(), False)], made


class Writing:
    """Iterates over pieces of the text that follows a prompt, as rounds commit it; then `made` says how.

        for piece in Writing(given, methods.find("vanilla"), tokens, ends, stop=["\\n\\n"]):
            print(piece, end="", flush=True)

    Together the pieces are the text of `generate`, special tokens left out, up to the first of the `stop` strings,
    which is left out too. A piece that may still become a stop string, or half a character, waits for what follows it.
    `pieces` says of each whether it was guessed.
    """

    def __init__(
        self,
        given: Given,
        method: Method,
        tokens: Sequence[int],
        ends: data.Ends,
        *,
        max_new_tokens: int = 128,
        sampling: Sampling = Sampling(temperature=0.0),  # noqa: B008 (frozen)
        stop: Sequence[str] = (),
        logprobs: Logprobs | None = None,
        seed: int = 0,
        exact: bool | int = False,
        drafter: Drafter | None = None,
    ) -> None:
        """`drafter`: of the method, made beforehand, where several texts are written."""
        if not all(stop):
            raise ValueError("an empty stop string stops everywhere")
        method.check_sampling(sampling)
        self.made: Generation | None = None  # on the host, after the last piece
        self.stopped_by: str | None = None
        self.pace = Pace()
        self._prompt, self._stop = len(tokens), tuple(stop)
        # On the device and as wide as its bucket: every round slices what it made, in one program for all such widths.
        padded = np.zeros((1, round_up(len(tokens))), np.int32)
        padded[0, : len(tokens)] = tokens
        prompt = Context(jnp.asarray(padded), jnp.asarray([len(tokens)], jnp.int32))
        self._width = len(tokens) + max_new_tokens
        knobs: dict[str, Any] = {"max_new_tokens": max_new_tokens, "sampling": sampling, "eos_id": ends}
        knobs |= {"accept": method.accept, "logprobs": logprobs}
        drafter = method.make(given) if drafter is None else drafter
        if exact is not False:
            try:
                checked_exactly(given.target, drafter, prompt, max_new_tokens, exact, sampling, method.accept)
            except ValueError as error:
                raise UserError(f"the method {method.label} with --exact: {error}") from None
            knobs["exact"] = exact
        self._growing = data.Growing(tokens, given.tokenizer, special=False)
        self._most = drafter.num_nodes + 1  # tokens of a round
        self._rounds = stream(given.target, drafter, prompt, jax.random.key(seed), **knobs)

    @property
    def new_tokens(self) -> int:
        """How many were decoded, those of a stop string and after it in its round included."""
        return int(self.made.lengths_B[0]) - self._prompt

    def __iter__(self) -> Iterator[str]:
        return ("".join(piece.text for piece in pieces) for pieces in self._stretches())

    def pieces(self) -> Iterator[Piece]:
        """The same text, in pieces that are either guessed or the target's own."""
        for stretch in self._stretches():
            yield from stretch

    def _stretches(self) -> Iterator[list[Piece]]:
        """What is sure after each round."""
        waiting: list[tuple[str, bool]] = []  # its characters
        with contextlib.closing(self._texts()) as pieces:
            for piece in pieces:
                waiting += [(character, guessed) for text, guessed in piece for character in text]
                text = "".join(character for character, _ in waiting)
                if found := [(text.index(stop), stop) for stop in self._stop if stop in text]:
                    end, self.stopped_by = min(found)
                    waiting = waiting[:end]
                    break
                if sure := len(self._sure(text)):
                    yield _joined(waiting[:sure])
                waiting = waiting[sure:]
        if waiting:
            yield _joined(waiting)

    def _texts(self) -> Iterator[list[Piece]]:
        made = None
        try:
            what = self._rounds, self._growing, self._prompt, self._most
            for pieces, made in pieces_of(*what, pace=self.pace):  # noqa: B007 (read below)
                yield pieces
        finally:
            self.made = None if made is None else per_token(jax.device_get(made), lambda array: array[:, : self._width])

    def _sure(self, text: str) -> str:
        """Without an end that what follows may make a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for count in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-count:]) for stop in self._stop):
                return text[:-count]
        return text


def _joined(characters: Sequence[tuple[str, bool]]) -> list[Piece]:
    groups = groupby(characters, key=lambda each: each[1])
    return [Piece("".join(character for character, _ in group), guessed) for guessed, group in groups]


@partial(jax.jit, static_argnames="most")
def _new(tokens_BS, lengths_B, accepted_BN, start, *, most: int):
    """The first row's `most` tokens from column `start` on, how many tokens it has, how many guesses were accepted."""
    at_X = jnp.minimum(start + jnp.arange(most), tokens_BS.shape[1] - 1)
    return tokens_BS[0, at_X], lengths_B[0], jnp.sum(accepted_BN[0])

"""Text as it is decoded, up to a stop string."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from adaspec_jax import data
from adaspec_jax.decoding import Context, Generation, Sampling, stream
from adaspec_jax.decoding.engine import checked_exactly
from adaspec_jax.errors import UserError
from adaspec_jax.methods import Given, Method

_HALF = "\ufffd"  # what a decoder shows of a character whose bytes are not all there


class Writing:
    """Iterates over pieces of the text that follows a prompt, as rounds commit it; then `made` says how.

        for piece in Writing(given, methods.find("vanilla"), tokens, ends, stop=["\\n\\n"]):
            print(piece, end="", flush=True)

    Together the pieces are the text of `generate`, special tokens left out, up to the first of the `stop` strings,
    which is left out too. A piece that may still become a stop string, or half a character, waits for what follows it.
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
        seed: int = 0,
        exact: bool | int = False,
    ) -> None:
        if not all(stop):
            raise ValueError("an empty stop string stops everywhere")
        self.made: Generation | None = None  # on the host, after the last piece
        self.stopped_by: str | None = None
        self._tokens, self._tokenizer, self._stop = list(tokens), given.tokenizer, tuple(stop)
        prompt = Context(np.asarray([self._tokens]), np.asarray([len(self._tokens)]))
        knobs: dict[str, Any] = {"max_new_tokens": max_new_tokens, "sampling": sampling, "eos_id": ends}
        key, drafter = jax.random.key(seed), method.make(given)
        if exact is not False:
            try:
                checked_exactly(given.target, drafter, prompt, max_new_tokens, exact, sampling, method.accept)
            except ValueError as error:
                raise UserError(f"the method {method.label} with --exact: {error}") from None
        self._rounds = stream(given.target, drafter, prompt, key, accept=method.accept, exact=exact, **knobs)

    @property
    def new_tokens(self) -> int:
        """How many were decoded, those of a stop string and after it in its round included."""
        return int(self.made.lengths_B[0]) - len(self._tokens)

    def __iter__(self) -> Iterator[str]:
        said = ""
        for made in self._rounds:
            self.made = jax.device_get(made)
            text = self._text()
            if found := [(text.index(stop), stop) for stop in self._stop if stop in text]:
                end, self.stopped_by = min(found)
                yield from _further(text[:end], said)
                return
            sure = self._sure(text)
            yield from _further(sure, said)
            said = sure if sure.startswith(said) else said
        yield from _further(self._text(), said)

    def _text(self) -> str:
        new = self.made.tokens_BS[0, len(self._tokens) : self.made.lengths_B[0]].tolist()
        return data.continuation(self._tokens, new, self._tokenizer, special=False)

    def _sure(self, text: str) -> str:
        """Without an end that what follows may change, or make a stop string."""
        text = text.rstrip(_HALF)
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for count in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-count:]) for stop in self._stop):
                return text[:-count]
        return text


def _further(text: str, said: str) -> Iterator[str]:
    if len(text) > len(said) and text.startswith(said):
        yield text[len(said) :]

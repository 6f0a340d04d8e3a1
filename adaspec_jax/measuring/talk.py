"""One conversation with a target, speeded up by any method: what was said before is not read again."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import NamedTuple

import jax
import numpy as np

from adaspec_jax import data
from adaspec_jax.data.chat import ASSISTANT, Refused, Template, opened_reasoning
from adaspec_jax.decoding import Context, Dialogue, Generation, Logprobs, Sampling
from adaspec_jax.decoding.types import Drafter
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.evaluation import check_contexts
from adaspec_jax.measuring.writing import Pace, Piece, pieces_of
from adaspec_jax.methods import Given, Method


class Answer(NamedTuple):
    """What the assistant said, and how it was decoded."""

    text: str
    made: Generation  # on the host; its one row is the whole conversation
    new_tokens: int
    read: int  # tokens that the target read before the first of them


class Talk:
    """A conversation handle: `say` something, and get an answer with all that was said as its context.

        given, ends = load_given("TARGET", ["DRAFT"])
        talk = Talk(given, methods.find("vanilla"), data.chat.template_of(given.tokenizer), ends, system="Be brief.")
        print(talk.say("Who was Ada Lovelace?").text)
        print(talk.say("And her mother?").text)

    `messages` is the conversation so far, in OpenAI's form.
    """

    def __init__(
        self,
        given: Given,
        method: Method,
        template: Template,
        ends: data.Ends,
        *,
        system: str | None = None,
        max_new_tokens: int = 128,
        sampling: Sampling = Sampling(temperature=0.0),  # noqa: B008 (frozen)
        logprobs: Logprobs | None = None,
        seed: int = 0,
        drafter: Drafter | None = None,
    ) -> None:
        """`drafter`: of the method, made beforehand."""
        method.check(given)
        method.check_sampling(sampling)
        self.messages: list[dict] = [{"role": "system", "content": system}] if system else []
        self._given, self._template, self._ends = given, template, ends
        self._max_new_tokens, self._key = max_new_tokens, jax.random.key(seed)
        knobs = {"max_new_tokens": max_new_tokens, "sampling": sampling, "eos_id": ends, "accept": method.accept}
        knobs["logprobs"] = logprobs
        drafter = method.make(given) if drafter is None else drafter
        self._most = drafter.num_nodes + 1  # tokens of a round
        self._dialogue = Dialogue(given.target, drafter, **knobs)
        self.answer: Answer | None = None  # the last one
        self.pace = Pace()  # of the last one that was streamed

    def change_drafter(self, drafter: Drafter) -> None:
        """Another of the same method guesses from the next turn on."""
        self._dialogue.change_drafter(drafter)

    def say(self, text: str) -> Answer:
        """The assistant's answer; UserError where the template refuses the turn, or the context is too long for it."""
        turns, rendered, tokens = self._asked(text)
        made = jax.device_get(self._dialogue.turn(*self._given_to_decode(turns, tokens)))
        new = made.tokens_BS[0, len(tokens) : made.lengths_B[0]].tolist()
        words = new[:-1] if new and new[-1] in self._ends.ids else new
        said = data.continuation(tokens, words, self._template.tokenizer, special=False)
        return self._kept(turns, rendered, said, made, len(new))

    def saying(self, text: str) -> Iterator[Piece]:
        """The same in pieces, as rounds commit them; then `answer` has it. Who stops iterating breaks it off there."""
        turns, rendered, tokens = self._asked(text)
        growing, self.pace, said, made = data.Growing(tokens, self._template.tokenizer, special=False), Pace(), "", None
        rounds = self._dialogue.stream(*self._given_to_decode(turns, tokens))
        how = {"pace": self.pace, "silent": self._ends.ids}
        try:
            for pieces, made in pieces_of(rounds, growing, len(tokens), self._most, **how):  # noqa: B007 (read below)
                for piece in filter(itemgetter(0), pieces):
                    said += piece.text
                    yield piece
        finally:
            if made is not None:
                made = jax.device_get(made)
                self._kept(turns, rendered, said, made, int(made.lengths_B[0]) - len(tokens))

    def _asked(self, text: str) -> tuple[list[dict], str, list[int]]:
        """The conversation with this turn of the user's, as the template renders it, and its tokens."""
        turns = [*self.messages, {"role": "user", "content": text}]
        try:
            rendered = self._template.text(turns, answer_follows=True)
        except Refused as refused:
            raise UserError(f"the chat template refuses this turn: {refused}") from None
        tokens = self._template.ids(rendered)
        needed = len(tokens) + self._max_new_tokens
        check_contexts(self._given, needed, "begin a new conversation, or lower max_new_tokens")
        return turns, rendered, tokens

    def _given_to_decode(self, turns: list[dict], tokens: list[int]) -> tuple[Context, jax.Array]:
        prompt = Context(np.asarray([tokens]), np.asarray([len(tokens)]))
        return prompt, jax.random.fold_in(self._key, len(turns))

    def _kept(self, turns: list[dict], rendered: str, said: str, made: Generation, new_tokens: int) -> Answer:
        """The answer, which the conversation has from now on."""
        self.messages = [*turns, {"role": ASSISTANT, "content": opened_reasoning(rendered) + said}]
        self.answer = Answer(said, made, new_tokens, int(self._dialogue.read_B[0]))
        return self.answer

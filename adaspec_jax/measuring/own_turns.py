"""What a target answers to the user's turns of conversations: each answer is the context of the turns after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from adaspec_jax import data
from adaspec_jax.data.chat import ASSISTANT, Chat, Conversation, Endless, Refused, Tally, is_in_words, opened_reasoning
from adaspec_jax.data.prompts import Prompt
from adaspec_jax.decoding import Context, Dialogue, NoDraft, Sampling
from adaspec_jax.devices import processes, sharding
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.placing import rows_on


class Turn(NamedTuple):
    """One answer as the target gave it: `[*prompt, *answer]` is what a server would have decoded."""

    prompt: list[int]
    answer: list[int]  # its end of text included; empty where only the prompt was asked for


def own_turns(
    target: Any,
    conversations: Sequence[Conversation],
    chat: Chat,
    *,
    rows: int,
    max_new_tokens: int,
    longest: int,
    sampling: Sampling,
    ends: data.Ends,
    key: jax.Array,
    place: Callable[[Any], Any] = lambda rows: rows,
    last_prompt_only: bool = False,
    refused: list[RefusedTurns] | None = None,
) -> list[list[Turn]]:
    """The turns of each of at most `rows` conversations, in one batch of so many rows.

    The file's own answers in words are not looked at; what it has of tools stays. A conversation ends before a prompt
    of more than `longest` tokens, and where the template refuses what the target said. What a turn shares with the
    turns before it is not read again. `last_prompt_only`: nothing is decoded after the last prompt of a conversation.
    What the template refuses is added to `refused`.
    """
    dialogue = Dialogue(target, NoDraft(), max_new_tokens=max_new_tokens, sampling=sampling, eos_id=ends)
    talks = [_Talk(conversation, chat, longest) for conversation in conversations]
    wave = 0
    while any([talk.ask() for talk in talks]):
        decoded = [talk for talk in talks if talk.asking and not (last_prompt_only and talk.at_its_last)]
        if decoded:
            prompts = [talk.prompt or [0] for talk in talks]
            prompts += prompts[-1:] * (rows - len(prompts))
            answers = _answers(dialogue, prompts, jax.random.fold_in(key, wave), place=place, pad_id=ends.closing)
        for number, each in enumerate(talks):
            if each.asking:
                each.hear(answers[number] if each in decoded else [], ends)
        wave += 1
    if refused is not None:
        refused.extend(each.refused for each in talks if each.refused)
    return [each.turns for each in talks]


class RefusedTurns(NamedTuple):
    """A conversation that the chat template takes no more of."""

    where: str
    why: str
    before: int  # turns that were answered
    turns: int  # turns that were due and are not asked


class TurnPrompt(NamedTuple):
    """What a server reads before one turn of a conversation."""

    conversation: int  # its place among those given
    turn: int  # from 1
    tokens: list[int]


def turn_prompts(
    target: Any,
    conversations: Sequence[Conversation],
    chat: Chat,
    *,
    batch_size: int,
    key: jax.Array,
    advance: Callable[[int], None] = lambda conversations: None,
    **how: Any,
) -> list[TurnPrompt]:
    """The prompts of all turns, in order, each with the target's own answers to those before it.

    The rest as `own_turns`. UserError where the template refuses more than 1 % of the conversations, and where there is
    no prompt: every one is too long.
    """
    order = sorted(range(len(conversations)), key=lambda i: len(conversations[i].awaited()))
    found, refused = {}, []
    for start in range(0, len(order), batch_size):
        block = order[start : start + batch_size]
        talks = [conversations[i] for i in block]
        keyed = {"key": jax.random.fold_in(key, start), "rows": batch_size}
        keyed |= {"last_prompt_only": True, "refused": refused}
        found |= dict(zip(block, own_turns(target, talks, chat, **how, **keyed), strict=True))
        advance(len(block))
    tally = Tally(len(conversations))
    for each in refused:
        if not each.before:
            tally.leave_out(each.why, each.where)
    tally.check()
    prompts = [TurnPrompt(i, n, turn.prompt) for i in sorted(found) for n, turn in enumerate(found[i], 1)]
    if not prompts:
        raise UserError(
            f"none of {len(conversations)} conversations has a first turn that the chat template takes, of at most "
            f"{how['longest']} tokens"
        )
    return prompts


def spoken_prompts(
    target: Any, conversations: Sequence[Conversation], chat: Chat, *, mesh: Mesh, seed: int, **how: Any
) -> list[Prompt]:
    """`turn_prompts` of a target on this mesh as requests, by the conversations' ids and categories."""
    key, place = jax.random.key(seed), rows_on(mesh)
    with sharding.over(mesh):
        prompts = turn_prompts(target, conversations, chat, key=key, place=place, **how)
    found = []
    for number, turn, tokens in prompts:
        talk = conversations[number]
        name = number + 1 if talk.id is None else talk.id
        found.append(Prompt(name, talk.prompt, talk.category, turn, tuple(tokens)))
    return found


def _answers(dialogue: Dialogue, prompts: list[list[int]], key: jax.Array, *, place, pad_id: int) -> list[list[int]]:
    lengths_B = np.array([len(prompt) for prompt in prompts], np.int32)
    tokens_BS = np.full((len(prompts), int(lengths_B.max())), pad_id, np.int32)
    for tokens_S, prompt in zip(tokens_BS, prompts, strict=True):
        tokens_S[: len(prompt)] = prompt
    made = dialogue.turn(Context(place(tokens_BS), place(lengths_B)), key)
    made_BS, ends_B = processes.fetch((made.tokens_BS, made.lengths_B))
    return [row[start:end].tolist() for row, start, end in zip(made_BS, lengths_B, ends_B, strict=True)]


@dataclass(eq=False)
class _Talk:
    """A conversation on its way: what has been said, and what the target is asked next."""

    conversation: Conversation
    chat: Chat
    longest: int
    turns: list[Turn] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)  # of the last turn asked for
    asking: bool = True
    refused: RefusedTurns | None = None  # where the template took no more of it

    def __post_init__(self) -> None:
        self._due = self.conversation.awaited()
        self._said: list = []
        self._next = 0  # message of the file
        self._opened = ""

    @property
    def at_its_last(self) -> bool:
        return len(self.turns) + 1 == len(self._due)

    def ask(self) -> bool:
        """Whether there is a next prompt, which is then `prompt`."""
        self.asking = self.asking and len(self.turns) < len(self._due)
        if not self.asking:
            return False
        until = self._due[len(self.turns)]
        self._said += self.conversation.messages[self._next : until]
        try:
            self.conversation.check_said(("user",))
            text = self.chat.template.text(self._said, self.conversation.tools, answer_follows=True)
        except Endless as endless:
            raise UserError(f"{self.conversation.where}: {endless}") from None
        except (Refused, ValueError) as refused:
            before, where = len(self.turns), self.conversation.where
            self.asking, self.refused = False, RefusedTurns(where, str(refused), before, len(self._due) - before)
            return False
        self._opened, prompt = opened_reasoning(text), self.chat.template.ids(text)
        follows = self.conversation.messages[until:]
        self._next = until + sum(1 for _ in takewhile(is_in_words, follows))  # the file's own answer
        self.asking = 0 < len(prompt) <= self.longest
        self.prompt = prompt if self.asking else self.prompt
        return self.asking

    def hear(self, answer: list[int], ends: data.Ends) -> None:
        self.turns.append(Turn(self.prompt, answer))
        words = answer[:-1] if answer and answer[-1] in ends.ids else answer
        text = data.continuation(self.prompt, words, self.chat.template.tokenizer, special=False)
        self._said.append({"role": ASSISTANT, "content": self._opened + text})

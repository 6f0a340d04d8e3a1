"""Conversations of several turns: what the target has read in the turns before, it does not read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.acceptance import rejection_sample
from adaspec_jax.decoding.engine import BUCKET, STATIC, Inputs, program_arguments, round_up, trimmed
from adaspec_jax.decoding.logprobs import Logprobs
from adaspec_jax.decoding.prefill import Kept, takes_back
from adaspec_jax.decoding.rounds import Loop
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.streaming import round_of
from adaspec_jax.decoding.types import Accept, Context, Drafter, Generation, Model, asks_of


class Dialogue:
    """A batch of conversations, one a row: `generate` turn by turn, with the target reading only what is new.

    New is what follows the longest prefix that a row's prompt shares with what the row held after the turn before,
    prompt and answer: whatever a chat template has rewritten is read again, with all that comes after it. A row that
    shares nothing begins another conversation. The drafter goes on from its own state if it has `extend`; else it reads
    whole prompts, and the target too where such a drafter asks for its hidden states.

    Programs are reused while the batch size stays the same, the most tokens to read fall into the same bucket (as in
    `generate`), and the caches have room: else they grow, by a third or a half, and keep what they hold.

    Attributes:
      read_B: how many tokens of each row's prompt the target read in the last turn, the last token always among them;
        None before the first turn.
    """

    def __init__(
        self,
        target: Model,
        drafter: Drafter,
        *,
        max_new_tokens: int,
        sampling: Sampling,
        eos_id: int | Sequence[int] = -1,
        accept: Accept = rejection_sample,
        logprobs: Logprobs | None = None,
    ) -> None:
        """No turn has been taken. All arguments are those of `generate`."""
        self.read_B: Array | None = None
        self._pair, self._limits = (target, drafter), (max_new_tokens, eos_id)
        self._static = {"sampling": sampling, "accept": accept, "logprobs": logprobs}
        self._extends = hasattr(drafter, "extend")
        self._held: _Held | None = None

    def turn(self, prompt: Context, key: Array) -> Generation:
        """What `generate` gives for these prompts, `Context(tokens_BS, lengths_B)`: each row's whole conversation.

        Token for token and count for count, but for near-ties: sums are rounded otherwise where fewer tokens are read
        at once.

        Raises:
          ValueError: as `generate`; another number of rows than in the turn before.
        """
        arguments, kept, slots = self._readied(prompt, key)
        generation, state = _decode_turn(*arguments, kept, slots=slots, **self._static)
        self._hold(generation, *state)
        return trimmed(generation, prompt, self._limits[0])

    def change_drafter(self, drafter: Drafter) -> None:
        """Another drafter guesses from the next turn on, before which all that was said is read anew."""
        self._pair = self._pair[0], drafter
        self._extends, self._held = hasattr(drafter, "extend"), None

    def stream(self, prompt: Context, key: Array) -> Iterator[Generation]:
        """`turn`, as it stands after each round; who stops iterating ends the turn there.

        What was decided until then is held, so that the next turn need not read it. Raises as `turn`.
        """
        arguments, kept, slots = self._readied(prompt, key)
        static = {"slots": slots, **self._static}
        loop = _begin_turn(*arguments, kept, **static)
        del kept
        these = arguments.target, arguments.drafter, arguments.max_new_tokens, arguments.eos_E
        while not loop.done_B.all():
            self._held = None  # what the round before left is written over
            loop, made = round_of(loop, *these, **static)
            self._hold(made, loop.context.target_cache, loop.draft_state)  # in case nobody asks for more
            yield trimmed(made, prompt, self._limits[0])

    def _readied(self, prompt: Context, key: Array) -> tuple[Inputs, Kept | None, int]:
        """What a turn's program takes, and its slots; nothing is held any more."""
        arguments, slots = program_arguments(*self._pair, prompt, key, *self._limits)
        lengths_B = arguments.lengths_B
        held = self._held
        if held is not None and len(held.lengths_B) != len(lengths_B):
            raise ValueError(f"a dialogue of {len(held.lengths_B)} rows cannot go on with {len(lengths_B)}")
        self._held = None  # its arrays are given away: they become the next turn's, or are free before that begins
        slots, kept, self.read_B = _roomy(slots), None, lengths_B
        if held is not None:
            slots, kept, self.read_B = self._kept(held, arguments, slots)
        if kept is not None and self._extends:  # whose program need not know how wide the prompts are
            arguments = arguments._replace(tokens_BS=_widened(arguments.tokens_BS, (len(lengths_B), slots)))
        return arguments, kept, slots

    def _hold(self, generation: Generation, target_cache: Any, draft_state: Any) -> None:
        """For the next turn, unless the drafter has to see the whole of it again."""
        if self._extends or not asks_of(self._pair[1]).layers:
            draft_state = draft_state if self._extends else None
            self._held = _Held(generation.tokens_BS, generation.lengths_B, target_cache, draft_state)

    def _kept(self, held: _Held, arguments: Inputs, slots: int) -> tuple[int, Kept | None, Array]:
        """(the slots that caches need now, what they keep, the tokens to read per row)."""
        # Before the first round a head needs the target's hidden state at the last token but one.
        unread = 2 if asks_of(self._pair[1]).layers else 1
        texts = arguments.tokens_BS, arguments.lengths_B, held.tokens_BS, held.lengths_B
        back = takes_back((held.target_cache, held.draft_state))
        kept_B, read_B, most_kept, most_read = _overlap(*texts, unread=unread, back=back)
        if not int(most_kept):
            return slots, None, read_B
        state, slots = (held.target_cache, held.draft_state), max(slots, held.tokens_BS.shape[1])
        if slots > held.tokens_BS.shape[1]:
            cache, draft_state = jax.eval_shape(partial(_start, slots=slots, **self._static), *arguments)
            state = jax.tree.map(
                lambda array, like: _widened(array, like.shape), state, (cache, draft_state if self._extends else None)
            )
        return slots, Kept(kept_B, *state, width=round_up(int(most_read))), read_B


class _Held(NamedTuple):
    """What a turn leaves: its tokens, of which the cache holds all but each row's last."""

    tokens_BS: Array
    lengths_B: Array
    target_cache: Any
    draft_state: Any  # None where the drafter has no `extend`


@partial(jax.jit, static_argnames=STATIC, donate_argnums=len(Inputs._fields))
def _decode_turn(*inputs_and_kept: Any, **static: Any) -> tuple[Generation, tuple[Any, Any]]:
    """The generation, and (the target's cache, the drafter's state) after it."""
    *inputs, kept = inputs_and_kept
    rounds, loop = Inputs(*inputs).begun(kept=kept, **static)
    loop = rounds.to_the_end(loop)
    return rounds.finished(loop), (loop.context.target_cache, loop.draft_state)


@partial(jax.jit, static_argnames=STATIC, donate_argnums=len(Inputs._fields))
def _begin_turn(*inputs_and_kept: Any, **static: Any) -> Loop:
    *inputs, kept = inputs_and_kept
    return Inputs(*inputs).begun(kept=kept, **static)[1]


def _start(*inputs: Any, **static: Any) -> tuple[Any, Any]:
    """(the target's cache, the drafter's state) after whole prompts."""
    _, loop = Inputs(*inputs).begun(**static)
    return loop.context.target_cache, loop.draft_state


@partial(jax.jit, static_argnames=("unread", "back"))
def _overlap(
    tokens_BS: Array, lengths_B: Array, held_BS: Array, held_lengths_B: Array, *, unread: int, back: int | None
) -> tuple[Array, Array, Array, Array]:
    """(tokens kept per row, to be read per row, the most kept, the most to be read); at least `unread` are read.

    Where caches go back by `back` tokens alone, a row that has to go back further, guesses of its last round counted,
    keeps nothing.
    """
    width = min(tokens_BS.shape[1], held_BS.shape[1])
    shared_B = jnp.sum(jnp.cumprod(tokens_BS[:, :width] == held_BS[:, :width], axis=1), axis=1, dtype=jnp.int32)
    kept_B = jnp.maximum(jnp.minimum(shared_B, jnp.minimum(held_lengths_B - 1, lengths_B - unread)), 0)
    if back is not None:
        kept_B = jnp.where(held_lengths_B - kept_B <= back // 2, kept_B, 0)
    read_B = lengths_B - kept_B
    return kept_B, read_B, jnp.max(kept_B), jnp.max(read_B)


def _widened(array: Array, shape: tuple[int, ...]) -> Array:
    """The array with zeros after its end in every dimension that `shape` has longer."""
    if array.shape == shape:
        return array
    return jnp.pad(array, [(0, new - old) for old, new in zip(array.shape, shape, strict=True)])


def _roomy(slots: int) -> int:
    """The least of 64, 96, 128, 192, 256, 384, ... that is no less."""
    size = BUCKET << ((slots - 1) // BUCKET).bit_length()
    return size * 3 // 4 if BUCKET < size and slots <= size * 3 // 4 else size

"""A draft model with a vocabulary of its own: it reads the target's text as its own tokens spell it."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.drafters.models.reread import Read
from adaspec_jax.decoding.drafters.shapes import InARow
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Model


@pytree()
class Spelling:
    """Every token of one vocabulary as tokens of another."""

    tokens_VK: Array  # int32; past a token's length, and where nothing says the same, -1
    lengths_V: Array  # int32; what a length has above K is -1 too

    @property
    def longest(self) -> int:
        """K: so many tokens of a spelling are kept."""
        return self.tokens_VK.shape[1]

    def ends(self, tokens_BT: Array, lengths_B: Array) -> Array:
        """int32_BT: where each token's spelling ends in that of its row, of which the first `lengths_b` count."""
        inside_BT = jnp.arange(tokens_BT.shape[1])[None] < lengths_B[:, None]
        return jnp.cumsum(jnp.where(inside_BT, self.lengths_V[tokens_BT], 0), axis=1)

    def at(self, tokens_BT: Array, ends_BT: Array, place_BX: Array) -> Array:
        """int32_BX: what stands at these places of the rows' spellings, counted from 0; past the end -1."""
        of_BX = jax.vmap(partial(jnp.searchsorted, side="right"))(ends_BT, place_BX)
        of_BX = jnp.minimum(of_BX, tokens_BT.shape[1] - 1)
        token_BX, end_BX = (jnp.take_along_axis(values_BT, of_BX, axis=1) for values_BT in (tokens_BT, ends_BT))
        within_BX = place_BX - end_BX + self.lengths_V[token_BX]
        kept_BX = (within_BX < self.longest) & (place_BX < end_BX)
        return jnp.where(kept_BX, self.tokens_VK[token_BX, jnp.clip(within_BX, 0, self.longest - 1)], -1)


class _Spelled(NamedTuple):
    """The committed text of every row, after what the draft's texts begin with."""

    tokens_BT: Array
    ends_BT: Array  # in draft tokens

    @property
    def total_B(self) -> Array:
        return self.ends_BT[:, -1]


@pytree("room", "context")
class Foreign:
    """A draft model, and how its tokens and the target's are told from each other. V: the target's, W: the draft's.

    A row's text in draft tokens is the row's last spelling of all, what the draft's texts begin with, and then that of
    each committed token. So tokens are spelled one by one: where the draft's tokenizer would join what two of them say,
    the draft reads the two.

    The draft's cache has lengths of its own, and what it holds is always the beginning of that text. Reading on takes a
    fixed number of draft tokens: a row that lacks more has nothing to guess from until later rounds have read the rest.
    The cache has `room` slots for each of the target's, and no more than the draft's `context`; in a row whose text
    outgrows them nothing is guessed.
    """

    model: Model
    draft_of_V: Array  # int32: the draft's token of the same string, -1: there is none
    spelling: Spelling  # [V + 1]; the last row is what the draft's texts begin with
    meaning: Spelling  # [W]: each draft token in target tokens; -1: no token says it
    room: int = 1
    context: int = 1 << 30

    @property
    def shared(self) -> int:
        """How many of the target's tokens are the draft's too."""
        return int(jnp.sum(self.draft_of_V >= 0))

    def read_prompt(self, prompt: Context, slots: int):
        """The draft's cache after right-padded prompts."""
        batch, length = prompt.tokens_BS.shape
        most = self._slots(slots)
        width = min(self._room(length), most)
        return self._read(self.model.init_cache(batch, most), self._spelled(prompt), None, width)[1]

    def read_on(self, cache, prompt: Context, kept_B: Array, width: int):
        """`read_prompt` from the cache of the turn before, of whose tokens the prompt has the first `kept_B` still.

        The cache's own lengths say what it lacked then. No prompt has more than `width` tokens beyond `kept_B`.
        """
        spelled = self._spelled(prompt)
        end_B = jnp.take_along_axis(spelled.ends_BT, kept_B[:, None], axis=1)[:, 0]
        start_B = jnp.minimum(cache.lengths_B, end_B)
        return self._read(cache, spelled, start_B, self._room(width))[1]

    def reread(self, cache, context: Context, *, width: int, ahead: int) -> tuple[Read, Array]:
        """The draft after the last committed token, and in which rows it is that: those with room for `ahead` more.

        The last `width` draft tokens are read (again), or in a row that lacks more the first of those it lacks. All
        that the cache holds before them must be right, as in `reread.reread`. It comes back with what was read.
        """
        most, spelled = self._slots(context.tokens_BS.shape[1]), self._spelled(context)
        start_B = jnp.clip(jnp.minimum(cache.lengths_B, spelled.total_B - width), 0, most)
        hidden_BXD, cache = self._read(cache, spelled, start_B, width)
        last_B = spelled.total_B - 1 - start_B
        ready_B = (0 <= last_B) & (last_B < width) & (spelled.total_B + ahead <= most)
        last_B11 = jnp.clip(last_B, 0, width - 1)[:, None, None]
        last_BD = jnp.take_along_axis(hidden_BXD, last_B11, axis=1)[:, 0]
        cache = cache.roll_back(jnp.minimum(cache.lengths_B, most))
        return Read(self.model.unembed(last_BD), last_BD, cache), ready_B

    def _read(self, cache, spelled: _Spelled, start_B: Array | None, width: int) -> tuple[Array, object]:
        """Hidden states at `width` draft tokens from `start_b` on, and the cache, which holds no more than the text.

        None: from the beginning, into a new cache.
        """
        begun_B = jnp.zeros_like(spelled.total_B) if start_B is None else start_B
        place_BX = begun_B[:, None] + jnp.arange(width)[None]
        tokens_BX = jnp.maximum(self.spelling.at(*spelled, place_BX), 0)
        cache = cache if start_B is None else cache.roll_back(start_B)
        hidden_BXD, cache = self.model.features(tokens_BX, cache)
        return hidden_BXD, cache.roll_back(jnp.minimum(spelled.total_B, begun_B + width))

    def _spelled(self, text: Context) -> _Spelled:
        beginning = len(self.spelling.lengths_V) - 1
        tokens_BT = jnp.pad(text.tokens_BS, ((0, 0), (1, 0)), constant_values=beginning)
        return _Spelled(tokens_BT, self.spelling.ends(tokens_BT, text.lengths_B + 1))

    def _room(self, tokens: int) -> int:
        """Draft tokens for which there is room beside so many of the target's."""
        return tokens * self.room + self.spelling.longest

    def _slots(self, slots: int) -> int:
        return min(self._room(slots), self.context)


class Translating(InARow):
    """Of drafters with fields `foreign` and `length`, whose state is the foreign model's cache."""

    foreign: Foreign
    length: int

    asks = Asks(likeliest=0)

    def init(self, prompt: Context, slots: int):
        return self.foreign.read_prompt(prompt, slots)

    def extend(self, cache, prompt: Context, kept_B: Array, width: int):
        return self.foreign.read_on(cache, prompt, kept_B, width)

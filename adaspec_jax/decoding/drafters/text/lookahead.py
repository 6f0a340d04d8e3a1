"""LOOKAHEAD decoding: n-grams gathered from Jacobi trajectories, which the verifying pass itself carries on."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.types import Asks, Context, Proposal

_NONE = -1  # in place of a token: there is no n-gram here


class _State(NamedTuple):
    filled_B: Array  # window rows beyond the first that have been computed; -1 before the first pass
    window_BLC: Array  # [B, N - 1, W + N - 2]; column 0 of row 0 is the root
    pool_BVGK: Array  # per first token up to G continuations of N - 1 tokens, the oldest first


class _Combs(NamedTuple):
    """Where the window's tokens lie among the nodes, for every number of filled rows."""

    row_FN: np.ndarray
    column_FN: np.ndarray
    parent_FN: np.ndarray
    used_FN: np.ndarray


@pytree("vocab_size", "ngram", "window", "guesses", "from_prompt")
class Lookahead:
    """In one pass of the target: a step for a window of guessed future tokens, and n-grams seen before, verified.

    Fu et al. 2024 (arXiv 2402.02057) with N = `ngram`, W = `window`, G = `guesses`, as their code has it. The window
    has N - 1 rows of W columns. Its first row is a chain from the last committed token; column c of the other rows goes
    on from the first row's tokens up to c, so that the whole is a comb. What the target says after the last row's
    tokens becomes the newest row, and each column, read downwards, an n-gram of a pool of G for each first token (the
    least recently found is forgotten). Then the first row is dropped, whatever was accepted. A text begins with W + N -
    3 tokens of its prompt, taken in order (one of the ways their code has; by default it takes them at random), and
    fills its window in N - 2 passes before it gathers.

    The pool's n-grams that begin with the last committed token are the guesses: point masses, exact at any temperature.
    Those with a common beginning share its nodes. The window itself is computed and never judged. `from_prompt`: the
    pool begins with the prompt's n-grams (their code then adds those of the answer too, which are not added here).

    A row's pool takes 4 * V * G * (N - 1) bytes.
    """

    vocab_size: int
    ngram: int = 5
    window: int = 7
    guesses: int = 7
    from_prompt: bool = False

    asks = Asks(likeliest=1)

    def __post_init__(self) -> None:
        if self.ngram < 3 or self.window < 1 or self.guesses < 1:
            numbers = f"ngram {self.ngram}, window {self.window}, guesses {self.guesses}"
            raise ValueError(f"n-grams have at least 3 tokens, window and guesses at least one: not {numbers}")

    @property
    def depth(self) -> int:
        return self.ngram - 1

    @property
    def num_nodes(self) -> int:
        return self._combs.row_FN.shape[1] + self.guesses * (self.ngram - 1)

    @cached_property
    def _combs(self) -> _Combs:
        shapes = [(filled + 1, self.window + self.ngram - 2 - filled) for filled in range(self.ngram - 1)]
        nodes = max(rows * columns for rows, columns in shapes) - 1
        place_N = 1 + np.arange(nodes)  # the root is place 0 of every comb
        combs = []
        for rows, columns in shapes:
            row_N, column_N = place_N // columns, place_N % columns
            used_N = row_N < rows
            parent_N = np.where(row_N == 0, place_N - 2, place_N - columns - 1)
            combs.append((row_N * used_N, column_N * used_N, np.where(used_N, parent_N, -1), used_N))
        return _Combs(*map(np.stack, zip(*combs, strict=True)))

    def init(self, prompt: Context, slots: int) -> _State:
        (batch, length), columns = prompt.tokens_BS.shape, self.window + self.ngram - 2
        at_BC = (np.arange(columns)[None] - 1) % prompt.lengths_B[:, None]
        first_BC = jnp.take_along_axis(prompt.tokens_BS, jnp.minimum(at_BC, length - 1), axis=1)
        pool_BVGK = jnp.full((batch, self.vocab_size, self.guesses, self.ngram - 1), _NONE, jnp.int32)
        starts_S = jnp.arange(max(length - self.ngram + 1, 0) if self.from_prompt else 0)

        def learn(pool_BVGK, start):
            gram_BN = jax.lax.dynamic_slice_in_dim(prompt.tokens_BS, start, self.ngram, axis=1)
            return _remembered(pool_BVGK, gram_BN, start + self.ngram <= prompt.lengths_B), None

        window_BLC = jnp.zeros((batch, self.ngram - 1, columns), jnp.int32).at[:, 0].set(first_BC)
        pool_BVGK = jax.lax.scan(learn, pool_BVGK, starts_S)[0] if len(starts_S) else pool_BVGK
        return _State(jnp.full((batch,), -1, jnp.int32), window_BLC, pool_BVGK)

    def propose(self, key, state: _State, context: Context) -> tuple[Proposal, _State]:
        state = self._harvested(state, context.likeliest_BMK[..., 0])
        root_B1 = jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)
        window_BLC = state.window_BLC.at[:, 0, 0].set(root_B1[:, 0])
        row_B1 = jnp.arange(len(root_B1))[:, None]
        row_BN, column_BN, parent_BN, used_BN = (jnp.asarray(table)[state.filled_B] for table in self._combs)
        ahead_BN = jnp.where(used_BN, window_BLC[row_B1, row_BN, column_BN], 0)
        full_B11 = (state.filled_B == self.ngram - 2)[:, None, None]
        guesses_BGK = jnp.where(full_B11, state.pool_BVGK[row_B1[:, 0], root_B1[:, 0]], _NONE)
        tokens_BGK, parents_BGK, valid_BGK = _trie(guesses_BGK, first=ahead_BN.shape[1])
        flat = (len(root_B1), -1)
        proposal = Proposal(
            jnp.concatenate([ahead_BN, tokens_BGK.reshape(flat)], axis=1),
            jnp.concatenate([parent_BN, parents_BGK.reshape(flat)], axis=1),
            valid_BN=jnp.concatenate([jnp.zeros_like(used_BN), valid_BGK.reshape(flat)], axis=1),
        )
        return proposal, state._replace(window_BLC=window_BLC)

    def _harvested(self, state: _State, said_BM: Array) -> _State:
        """The state after the last pass: a new window row, and n-grams once the window is full."""
        filled_B, window_BLC = state.filled_B, state.window_BLC
        last, columns = self.ngram - 2, window_BLC.shape[2]
        of_row_B = jnp.clip(filled_B, 0, last)
        width_B = self.window + last - of_row_B
        at_BC = (of_row_B * width_B)[:, None] + jnp.arange(columns)[None]
        said_BC = jnp.take_along_axis(said_BM, jnp.minimum(at_BC, said_BM.shape[1] - 1), axis=1)

        full_B = filled_B == last
        gram_BWN = jnp.swapaxes(jnp.concatenate([window_BLC, said_BC[:, None]], axis=1), 1, 2)[:, : self.window]
        pool_BVGK = jax.lax.scan(
            lambda pool, gram_BN: (_remembered(pool, gram_BN, full_B), None),
            state.pool_BVGK,
            jnp.swapaxes(gram_BWN, 0, 1),
        )[0]
        # Full: rows move up. Before: all rows stay, one place nearer, and what was said is one row more.
        rolled_BLC = jnp.concatenate([window_BLC[:, 1:], said_BC[:, None]], axis=1)
        is_next_BL1 = (jnp.arange(last + 1)[None] == filled_B[:, None] + 1)[..., None]
        grown_BLC = jnp.roll(jnp.where(is_next_BL1, said_BC[:, None], window_BLC), -1, axis=2)
        begun_B11 = (filled_B >= 0)[:, None, None]
        window_BLC = jnp.where(begun_B11, jnp.where(full_B[:, None, None], rolled_BLC, grown_BLC), window_BLC)
        return _State(jnp.minimum(filled_B + 1, last), window_BLC, pool_BVGK)


def _remembered(pool_BVGK: Array, gram_BN: Array, wanted_B: Array) -> Array:
    """The pool with these n-grams as the newest under their first tokens, in rows where it is wanted."""
    row_B, (vocab_size, guesses) = jnp.arange(len(gram_BN)), pool_BVGK.shape[1:3]
    key_B, gram_BK = gram_BN[:, 0], gram_BN[:, 1:]
    held_BGK = pool_BVGK[row_B, key_B]
    count_B = jnp.sum(held_BGK[..., 0] != _NONE, axis=1)
    same_BG = jnp.all(held_BGK == gram_BK[:, None], axis=2)
    full_B = count_B == guesses
    leaves_B = jnp.where(jnp.any(same_BG, axis=1), jnp.argmax(same_BG, axis=1), jnp.where(full_B, 0, guesses))
    place_1G = jnp.arange(guesses)[None]
    from_BG = jnp.minimum(place_1G + (place_1G >= leaves_B[:, None]), guesses - 1)
    held_BGK = jnp.take_along_axis(held_BGK, from_BG[..., None], axis=1)
    newest_BG = place_1G == (count_B - (leaves_B < guesses))[:, None]
    held_BGK = jnp.where(newest_BG[..., None], gram_BK[:, None], held_BGK)
    return pool_BVGK.at[row_B, jnp.where(wanted_B, key_B, vocab_size)].set(held_BGK, mode="drop")


def _trie(guesses_BGK: Array, *, first: int) -> tuple[Array, Array, Array]:
    """(tokens, parents, valid), each [B, G, K]: G chains of which only the first with a beginning has nodes for it.

    Node k of chain g is number `first + g * K + k`.
    """
    count, depth = guesses_BGK.shape[1:]
    same_BGHK = guesses_BGK[:, :, None] == guesses_BGK[:, None, :]
    shared_BGHK = jnp.cumprod(same_BGHK, axis=3).astype(bool)
    owner_BGK = jnp.argmax(shared_BGHK, axis=2).astype(jnp.int32)  # the first chain with the same k + 1 tokens
    node_BGK = first + owner_BGK * depth + jnp.arange(depth, dtype=jnp.int32)[None, None]
    parents_BGK = jnp.pad(node_BGK[..., :-1], ((0, 0), (0, 0), (1, 0)), constant_values=-1)
    own_BGK = owner_BGK == jnp.arange(count, dtype=jnp.int32)[None, :, None]
    there_BGK = guesses_BGK != _NONE
    return jnp.where(there_BGK, guesses_BGK, 0), parents_BGK, own_BGK & there_BGK

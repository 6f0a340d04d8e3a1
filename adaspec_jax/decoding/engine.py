"""The one decoding loop: propose, verify, commit. Plain decoding is this loop with `NoDraft`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.acceptance import rejection_sample
from adaspec_jax.decoding.sampling import Sampling, most_likely
from adaspec_jax.decoding.types import GUESS, TARGET, Context, Drafter, Generation, Model, Proposal, Tree, Verdict

BUCKET = 64  # prompts and budgets are padded to multiples of this, so that few programs serve all lengths

Accept = Callable[[Array, Proposal, Array, Sampling], Verdict]


def generate(
    target: Model,
    drafter: Drafter,
    prompt: Context,
    key: Array,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    eos_id: int | Sequence[int] = -1,
    accept: Accept = rejection_sample,
) -> Generation:
    """Continues every row of a right-padded prompt by at most `max_new_tokens`, or up to and including an `eos_id`.

    One compiled program: prefill, then rounds of propose, verify and commit in a `lax.while_loop` until every row is
    done. With a lossless `accept` the tokens follow the target alone; the drafter only decides how many target calls
    that takes. Programs are reused while the batch size and the lengths' buckets (multiples of 64) stay the same.

    Args:
      target, drafter: pytrees; their weights are arguments of the program, not constants in it.
      prompt: `Context(tokens_BS, lengths_B)` of any integer type, 1 <= lengths_B <= S.
      key: a JAX key; unused when greedy and the drafter is deterministic.
      max_new_tokens: per row. Guesses beyond it, or past an EOS, are neither judged nor accepted.
      sampling: applied to target and draft alike; temperature 0 is greedy.
      eos_id: one id or several; -1 never stops early.
      accept: an acceptance rule; see `adaspec_jax.decoding.acceptance`.

    Returns:
      A `Generation`; `tokens_BS` has S + max_new_tokens columns.

    Raises:
      ValueError: empty rows, lengths beyond S, or a budget below 1.
    """
    target, drafter = _as_pytree(target), _as_pytree(drafter)
    tokens_BS, lengths_B = _checked_prompt(prompt, max_new_tokens)
    width = tokens_BS.shape[1]
    padded = _round_up(width)
    slots = padded + _round_up(max_new_tokens) + drafter.num_nodes + 1
    tokens_BS = jnp.pad(tokens_BS, ((0, 0), (0, padded - width)))
    eos_E = jnp.atleast_1d(jnp.asarray(eos_id, jnp.int32))
    generation = _decode(
        target, drafter, tokens_BS, lengths_B, key, max_new_tokens, eos_E, slots=slots, sampling=sampling, accept=accept
    )
    trimmed = {name: getattr(generation, name)[:, : width + max_new_tokens] for name in _PER_TOKEN}
    return dataclasses.replace(generation, **trimmed)


class _Constant:
    """An object of a class that is no pytree, taken into the program as it is: what it holds must not change later."""

    def __init__(self, value) -> None:
        self._value = value

    def __getattr__(self, name: str):
        return getattr(self._value, name)

    def __call__(self, *args, **kwargs):
        return self._value(*args, **kwargs)

    def __eq__(self, other) -> bool:
        return isinstance(other, _Constant) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


jax.tree_util.register_static(_Constant)


def _as_pytree(value):
    return _Constant(value) if jax.tree.structure(value) == jax.tree.structure(0) else value


_PER_TOKEN = ("tokens_BS", "origin_BS", "rejected_BS")


def _round_up(length: int) -> int:
    return -(-length // BUCKET) * BUCKET


def _checked_prompt(prompt: Context, max_new_tokens: int) -> tuple[Array, Array]:
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if np.ndim(prompt.tokens_BS) != 2 or np.shape(prompt.lengths_B) != np.shape(prompt.tokens_BS)[:1]:
        shapes = f"{np.shape(prompt.tokens_BS)} and {np.shape(prompt.lengths_B)}"
        raise ValueError(f"a prompt is tokens_BS [batch, length] with lengths_B [batch], not {shapes}")
    if not isinstance(prompt.lengths_B, jax.core.Tracer):
        lengths = np.asarray(prompt.lengths_B)
        if lengths.size and not (1 <= lengths.min() and lengths.max() <= prompt.tokens_BS.shape[1]):
            raise ValueError(
                f"prompt lengths must be between 1 and {prompt.tokens_BS.shape[1]}, not {lengths.tolist()}"
            )
    tokens_BS, lengths_B = jnp.asarray(prompt.tokens_BS, jnp.int32), jnp.asarray(prompt.lengths_B, jnp.int32)
    # Padding may be any number; one that is no token would poison what attends to it, masked or not.
    return jnp.where(jnp.arange(tokens_BS.shape[1])[None] < lengths_B[:, None], tokens_BS, 0), lengths_B


class _Loop(NamedTuple):
    key: Array
    context: Context
    draft_state: object
    done_B: Array
    generation: Generation  # its tokens_BS and lengths_B stay unused: the context has them


@partial(jax.jit, static_argnames=("slots", "sampling", "accept"))
def _decode(target, drafter, tokens_BS, lengths_B, key, max_new_tokens, eos_E, *, slots, sampling, accept):
    prompt_lengths_B = lengths_B
    batch, nodes = tokens_BS.shape[0], drafter.num_nodes
    wants_hidden = getattr(drafter, "wants_hidden", False)

    def call(tokens_BT, cache, **where):
        if not wants_hidden:
            return *target(tokens_BT, cache, **where), None
        hidden_BTD, cache = target.features(tokens_BT, cache, **where)
        return target.unembed(hidden_BTD), cache, hidden_BTD

    def is_eos(tokens):
        return jnp.any(tokens[..., None] == eos_E.reshape((1,) * tokens.ndim + (-1,)), axis=-1)

    def start() -> _Loop:
        _, cache, hidden_BTD = call(tokens_BS, target.init_cache(batch, slots))
        buffer_BS = jnp.pad(tokens_BS, ((0, 0), (0, slots - tokens_BS.shape[1])))
        prompt = Context(
            buffer_BS, lengths_B, hidden_BMD=hidden_BTD, target_cache=cache.roll_back(lengths_B - 1), sampling=sampling
        )
        draft_state = drafter.init(dataclasses.replace(prompt, tokens_BS=tokens_BS), slots)
        if wants_hidden:  # from now on: root and nodes; before the first round only the root's entry is real
            before_last_B11 = jnp.maximum(lengths_B - 2, 0)[:, None, None]
            root_B1D = jnp.take_along_axis(hidden_BTD, before_last_B11, axis=1)
            hidden_BTD = jnp.repeat(root_B1D, nodes + 1, axis=1)
        zeros_B = jnp.zeros((batch,), jnp.int32)
        context = dataclasses.replace(
            prompt,
            accepted_B=zeros_B,
            path_BN=jnp.zeros((batch, nodes), jnp.int32),
            choices_BM=jnp.zeros((batch, nodes + 1), jnp.int32),
            hidden_BMD=hidden_BTD,
        )
        counts = Generation(
            tokens_BS=None,
            lengths_B=None,
            rounds_B=zeros_B,
            accepted_BN=jnp.zeros((batch, nodes), jnp.int32),
            judged_BN=jnp.zeros((batch, nodes), jnp.int32),
            drafted_B=zeros_B,
            histogram_BM=jnp.zeros((batch, nodes + 1), jnp.int32),
            origin_BS=jnp.zeros((batch, slots), jnp.int8),
            rejected_BS=jnp.full((batch, slots), -1, jnp.int32),
        )
        return _Loop(key, context, draft_state, jnp.zeros((batch,), bool), counts)

    def one_round(loop: _Loop) -> _Loop:
        context, counts = loop.context, loop.generation
        key, propose_key, accept_key = jax.random.split(loop.key, 3)
        proposal, draft_state = drafter.propose(propose_key, loop.draft_state, context)
        tree = Tree.of(proposal)
        room_B = prompt_lengths_B + max_new_tokens - context.lengths_B
        proposal = _clamp(proposal, tree, jnp.where(loop.done_B, 0, room_B), is_eos(proposal.tokens_BN))

        cache, base_B = context.target_cache, context.lengths_B - 1
        root_B1 = jnp.take_along_axis(context.tokens_BS, base_B[:, None], axis=1)
        where = {}
        if proposal.parents_BN is not None:
            where["positions_BT"] = base_B[:, None] + jnp.pad(tree.depth_BN, ((0, 0), (1, 0)))
            where["mask_BTS"] = tree.attention_mask(base_B, slots)
        logits_BMV, cache, hidden_BMD = call(jnp.concatenate([root_B1, proposal.tokens_BN], axis=1), cache, **where)
        verdict = accept(accept_key, proposal, logits_BMV, sampling)

        accepted_B = jnp.sum(verdict.accepted_BN, axis=1, dtype=jnp.int32)
        path_BN = jnp.argsort(~verdict.accepted_BN, axis=1, stable=True).astype(jnp.int32)  # topological = by depth
        guesses_BN = jnp.take_along_axis(proposal.tokens_BN, path_BN, axis=1)
        ended_B = jnp.any(is_eos(guesses_BN) & (jnp.arange(nodes)[None] < accepted_B[:, None]), axis=1)
        count_B = jnp.minimum(accepted_B + jnp.where(ended_B, 0, 1), room_B)
        count_B = jnp.where(loop.done_B, 0, count_B)
        ended_B |= is_eos(verdict.next_token_B) & (count_B > accepted_B)

        # Column m of the round: the m-th accepted guess, or the target's own token right after the last of them.
        column_1M = jnp.arange(nodes + 1)[None]
        own_BM = column_1M == accepted_B[:, None]
        round_BM = jnp.where(own_BM, verdict.next_token_B[:, None], jnp.pad(guesses_BN, ((0, 0), (0, 1))))
        refused_BN = verdict.judged_BN & ~verdict.accepted_BN & (tree.depth_BN == accepted_B[:, None] + 1)
        refused_B = jnp.max(jnp.where(refused_BN, jnp.arange(nodes)[None], -1), axis=1, initial=-1)
        refused_token_B = jnp.take_along_axis(
            jnp.pad(proposal.tokens_BN, ((0, 0), (0, 1))), jnp.maximum(refused_B, 0)[:, None], axis=1
        )
        rejected_BM = jnp.where(own_BM & (refused_B >= 0)[:, None], refused_token_B, -1)
        slot_BM = jnp.where(column_1M < count_B[:, None], context.lengths_B[:, None] + column_1M, slots)
        row_B1 = jnp.arange(batch)[:, None]

        def commit(buffer_BS, values_BM):
            return buffer_BS.at[row_B1, slot_BM].set(values_BM.astype(buffer_BS.dtype), mode="drop")

        lengths_B = context.lengths_B + count_B
        if proposal.parents_BN is not None:
            cache = cache.keep_path(base_B, jnp.pad(path_BN + 1, ((0, 0), (1, 0))))
        done_B = loop.done_B | ended_B | (lengths_B - prompt_lengths_B >= max_new_tokens)
        context = Context(
            tokens_BS=commit(context.tokens_BS, round_BM),
            lengths_B=lengths_B,
            accepted_B=accepted_B,
            path_BN=path_BN,
            choices_BM=most_likely(logits_BMV),
            hidden_BMD=hidden_BMD,
            target_cache=cache.roll_back(lengths_B - 1),
            sampling=sampling,
        )
        active_B = ~loop.done_B
        counts = dataclasses.replace(
            counts,
            rounds_B=counts.rounds_B + active_B,
            accepted_BN=counts.accepted_BN + verdict.accepted_BN,
            judged_BN=counts.judged_BN + verdict.judged_BN,
            drafted_B=counts.drafted_B + jnp.sum(proposal.valid_BN, axis=1, dtype=jnp.int32),
            histogram_BM=counts.histogram_BM + (own_BM & active_B[:, None]),
            origin_BS=commit(counts.origin_BS, jnp.where(own_BM, TARGET, GUESS)),
            rejected_BS=commit(counts.rejected_BS, rejected_BM),
        )
        return _Loop(key, context, draft_state, done_B, counts)

    loop = jax.lax.while_loop(lambda loop: ~jnp.all(loop.done_B), one_round, start())
    lengths_B = loop.context.lengths_B
    tokens_BS = jnp.where(jnp.arange(slots)[None] < lengths_B[:, None], loop.context.tokens_BS, 0)
    return dataclasses.replace(loop.generation, tokens_BS=tokens_BS, lengths_B=lengths_B)


def _clamp(proposal: Proposal, tree: Tree, room_B: Array, eos_BN: Array) -> Proposal:
    """Invalidates guesses that could not be committed: beyond the row's budget, below an EOS or an invalid guess."""
    nodes = proposal.tokens_BN.shape[1]
    valid_BN = jnp.ones_like(eos_BN) if proposal.valid_BN is None else proposal.valid_BN
    above_BNN = tree.ancestors_BNN & ~jnp.eye(nodes, dtype=bool)[None]
    below_end_BN = jnp.any(above_BNN & (eos_BN | ~valid_BN)[:, None, :], axis=-1)
    return dataclasses.replace(proposal, valid_BN=valid_BN & ~below_end_BN & (tree.depth_BN <= room_B[:, None]))

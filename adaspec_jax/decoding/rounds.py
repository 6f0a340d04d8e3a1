"""One round of speculative decoding: propose, verify, commit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.sampling import Sampling, most_likely
from adaspec_jax.decoding.tree import Tree
from adaspec_jax.decoding.types import GUESS, TARGET, Context, Drafter, Generation, Model, Proposal, Verdict

Accept = Callable[[Array, Proposal, Array, Sampling], Verdict]


class Loop(NamedTuple):
    """What rounds change. Every array but the key has a row of the batch first."""

    key: Array
    context: Context
    draft_state: Any
    prompt_lengths_B: Array
    done_B: Array
    generation: Generation  # its tokens_BS and lengths_B stay unused: the context has them


@dataclass(frozen=True)
class Rounds:
    """How to begin and what to do again and again; lives while a program is traced."""

    target: Model
    drafter: Drafter
    max_new_tokens: Array
    eos_E: Array
    slots: int
    sampling: Sampling
    accept: Accept

    def start(self, key: Array, tokens_BS: Array, lengths_B: Array) -> Loop:
        """Prefill of right-padded prompts."""
        target, drafter, slots = self.target, self.drafter, self.slots
        batch, nodes = tokens_BS.shape[0], drafter.num_nodes
        _, cache, hidden_BTD = self._call(tokens_BS, target.init_cache(batch, slots))
        buffer_BS = jnp.pad(tokens_BS, ((0, 0), (0, slots - tokens_BS.shape[1])))
        cache = cache.roll_back(lengths_B - 1)
        prompt = Context(buffer_BS, lengths_B, hidden_BMD=hidden_BTD, target_cache=cache, sampling=self.sampling)
        draft_state = drafter.init(dataclasses.replace(prompt, tokens_BS=tokens_BS), slots)
        if self._wants_hidden:  # from now on: root and nodes; before the first round only the root's entry is real
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
        return Loop(key, context, draft_state, lengths_B, jnp.zeros((batch,), bool), counts)

    def one_round(self, loop: Loop) -> Loop:
        """Propose, verify, commit; rows that are done stay as they are."""
        context, counts = loop.context, loop.generation
        batch, nodes, slots = context.lengths_B.shape[0], self.drafter.num_nodes, self.slots
        key, propose_key, accept_key = jax.random.split(loop.key, 3)
        proposal, draft_state = self.drafter.propose(propose_key, loop.draft_state, context)
        tree = Tree.of(proposal)
        room_B = loop.prompt_lengths_B + self.max_new_tokens - context.lengths_B
        proposal = _clamp(proposal, tree, jnp.where(loop.done_B, 0, room_B), self._is_eos(proposal.tokens_BN))

        cache, base_B = context.target_cache, context.lengths_B - 1
        root_B1 = jnp.take_along_axis(context.tokens_BS, base_B[:, None], axis=1)
        where = {}
        if proposal.parents_BN is not None:
            where["positions_BT"] = base_B[:, None] + jnp.pad(tree.depth_BN, ((0, 0), (1, 0)))
            where["mask_BTS"] = tree.attention_mask(base_B, slots)
        tokens_BM = jnp.concatenate([root_B1, proposal.tokens_BN], axis=1)
        logits_BMV, cache, hidden_BMD = self._call(tokens_BM, cache, **where)
        verdict = self.accept(accept_key, proposal, logits_BMV, self.sampling)

        accepted_B = jnp.sum(verdict.accepted_BN, axis=1, dtype=jnp.int32)
        path_BN = jnp.argsort(~verdict.accepted_BN, axis=1, stable=True).astype(jnp.int32)  # topological = by depth
        guesses_BN = jnp.take_along_axis(proposal.tokens_BN, path_BN, axis=1)
        ended_B = jnp.any(self._is_eos(guesses_BN) & (jnp.arange(nodes)[None] < accepted_B[:, None]), axis=1)
        count_B = jnp.minimum(accepted_B + jnp.where(ended_B, 0, 1), room_B)
        count_B = jnp.where(loop.done_B, 0, count_B)
        ended_B |= self._is_eos(verdict.next_token_B) & (count_B > accepted_B)

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
        done_B = loop.done_B | ended_B | (lengths_B - loop.prompt_lengths_B >= self.max_new_tokens)
        context = Context(
            tokens_BS=commit(context.tokens_BS, round_BM),
            lengths_B=lengths_B,
            accepted_B=accepted_B,
            path_BN=path_BN,
            choices_BM=most_likely(logits_BMV),
            hidden_BMD=hidden_BMD,
            target_cache=cache.roll_back(lengths_B - 1),
            sampling=self.sampling,
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
        return Loop(key, context, draft_state, loop.prompt_lengths_B, done_B, counts)

    def finished(self, loop: Loop) -> Generation:
        """The rows as they stand, zero past their ends."""
        lengths_B = loop.context.lengths_B
        tokens_BS = jnp.where(jnp.arange(self.slots)[None] < lengths_B[:, None], loop.context.tokens_BS, 0)
        return dataclasses.replace(loop.generation, tokens_BS=tokens_BS, lengths_B=lengths_B)

    @property
    def _wants_hidden(self) -> bool:
        return getattr(self.drafter, "wants_hidden", False)

    def _call(self, tokens_BT, cache, **where):
        if not self._wants_hidden:
            return *self.target(tokens_BT, cache, **where), None
        hidden_BTD, cache = self.target.features(tokens_BT, cache, **where)
        return self.target.unembed(hidden_BTD), cache, hidden_BTD

    def _is_eos(self, tokens: Array) -> Array:
        return jnp.any(tokens[..., None] == self.eos_E.reshape((1,) * tokens.ndim + (-1,)), axis=-1)


def _clamp(proposal: Proposal, tree: Tree, room_B: Array, eos_BN: Array) -> Proposal:
    """Invalidates guesses that could not be committed: beyond the row's budget, below an EOS or an invalid guess."""
    nodes = proposal.tokens_BN.shape[1]
    valid_BN = jnp.ones_like(eos_BN) if proposal.valid_BN is None else proposal.valid_BN
    above_BNN = tree.ancestors_BNN & ~jnp.eye(nodes, dtype=bool)[None]
    below_end_BN = jnp.any(above_BNN & (eos_BN | ~valid_BN)[:, None, :], axis=-1)
    return dataclasses.replace(proposal, valid_BN=valid_BN & ~below_end_BN & (tree.depth_BN <= room_B[:, None]))

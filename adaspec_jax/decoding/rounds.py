"""One round of speculative decoding: propose, verify, commit, count."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.conditional import changed_if
from adaspec_jax.decoding.logprobs import Logprobs, none_yet, with_logits, with_logprobs, written
from adaspec_jax.decoding.noise import check_shared, noise_in_tree, request_keys
from adaspec_jax.decoding.prefill import Kept, Seen, check_taken_back, prefill, see, untaught
from adaspec_jax.decoding.present import present_in_tree
from adaspec_jax.decoding.sampling import GREEDY, Sampling
from adaspec_jax.decoding.tree import Tree
from adaspec_jax.decoding.types import (
    GUESS,
    TARGET,
    Accept,
    Context,
    Drafter,
    Generation,
    Model,
    Proposal,
    Verdict,
    asks_of,
    depth_of,
    given_by,
    widths_of,
)


class Loop(NamedTuple):
    """What rounds change. Every array but the key has a row of the batch first."""

    key: Any  # an Array; () where rows are merged
    context: Context
    draft_state: Any
    start_lengths_B: Array  # tokens per row when the rounds began
    done_B: Array
    generation: Generation  # its tokens_BS and lengths_B stay unused: the context has them
    logits_BLV: Array | None = None  # by which each of the first L committed tokens was decided, where asked for


class _Decided(NamedTuple):
    """What a round adds to every row; column m is the m-th accepted guess, or the target's own token after the last."""

    tokens_BM: Array
    count_B: Array  # columns that are committed
    ended_B: Array  # rows that reach an end of text
    accepted_B: Array
    path_BN: Array
    own_BM: Array  # bool: the column of the target's own token
    rejected_BM: Array  # the guess refused in its place, or -1


@dataclass(frozen=True)
class Rounds:
    """How to begin and what to do again and again; lives while a program is traced."""

    target: Model
    drafter: Drafter
    max_new_tokens: Array | int
    eos_E: Array
    slots: int
    sampling: Sampling
    accept: Accept
    logprobs: Logprobs | None = None

    def start(
        self,
        key: Array,
        tokens_BS: Array,
        lengths_B: Array,
        noise_B: Array | None = None,
        *,
        kept: Kept | None = None,
    ) -> Loop:
        """Prefill of right-padded prompts, or of what they have beyond `kept`, then `begin`."""
        opinion = getattr(self.accept, "opinion", False)
        if noise_B is None and self.sampling.shares_noise:
            noise_B = request_keys(key, jnp.arange(len(lengths_B)))
        prompt = Context(tokens_BS, lengths_B, noise_B=noise_B, sampling=self.sampling, opinion=opinion)
        return self.begin(key, *prefill(self.target, self.drafter, prompt, slots=self.slots, kept=kept))

    def begin(self, key: Array, context: Context, draft_state: Any, *, logits: int = 0) -> Loop:
        """Rounds from where target and drafter already stand: after a prefill, or inside a larger model's round.

        `context` has the tokens in a buffer of all slots, the target's cache with lengths_B - 1 of them, the hidden
        states that the drafter asks for, [B, M, D], and what rounds before taught (`untaught`), if there were any.
        `logits`: for how many committed tokens the loop keeps the target's logits [B, logits, V], after the
        processors, for a drafter whose guesses are what these rounds decide. Only a lossless rule's tokens follow
        their law: after a lossy one they are point masses.
        """
        batch, nodes = context.lengths_B.shape[0], self.drafter.num_nodes
        if self.sampling.shares_noise:
            check_shared(context.noise_B, self.accept)
        if len(context.hidden) != len(asks_of(self.drafter).layers):
            raise ValueError(
                f"the drafter asks for layers {asks_of(self.drafter).layers}, and {len(context.hidden)} are given"
            )
        check_taken_back((context.target_cache, draft_state), nodes)
        nothing = untaught(self.drafter, batch)
        zeros_B = nothing["accepted_B"]
        if context.accepted_B is None:
            context = dataclasses.replace(context, **nothing)
        counts = Generation(
            tokens_BS=None,  # type: ignore[arg-type]  # unused in the loop: the context has both
            lengths_B=None,  # type: ignore[arg-type]
            rounds_B=zeros_B,
            accepted_BN=jnp.zeros((batch, nodes), jnp.int32),
            judged_BN=jnp.zeros((batch, nodes), jnp.int32),
            drafted_B=zeros_B,
            histogram_BM=jnp.zeros((batch, nodes + 1), jnp.int32),
            origin_BS=jnp.zeros((batch, self.slots), jnp.int8),
            rejected_BS=jnp.full((batch, self.slots), -1, jnp.int32),
            logprobs=none_yet(self.logprobs, batch, self.slots),
        )
        logits_BLV = None
        if logits:
            vocab_size = jax.eval_shape(lambda: self.target(context.tokens_BS[:, :1])[0]).shape[-1]
            logits_BLV = jnp.zeros((batch, logits, vocab_size), jnp.float32)
        return Loop(key, context, draft_state, context.lengths_B, jnp.zeros((batch,), bool), counts, logits_BLV)

    def one_round(self, loop: Loop) -> Loop:
        """Propose, verify, commit, count; rows that are done stay as they are."""
        key, propose_key, accept_key = jax.random.split(loop.key, 3)
        with jax.named_scope("draft"):
            proposal, draft_state = self.drafter.propose(propose_key, loop.draft_state, loop.context)
            tree = Tree.of(proposal)
            proposal = self._clamped(loop, proposal, tree)
        with jax.named_scope("verify"):
            seen = self._verified(loop.context, proposal, tree)
        with jax.named_scope("accept"):
            raw_BMV = seen.logits_BMV
            seen = seen._replace(logits_BMV=self._processed(loop.context, proposal, tree, raw_BMV))
            verdict = self._judged(accept_key, loop.context, proposal, seen.logits_BMV, tree)
            decided = self._decided(loop, proposal, tree, verdict)
            context = self._committed(loop.context, proposal, seen, decided)
        return Loop(
            key,
            context,
            draft_state,
            loop.start_lengths_B,
            loop.done_B | decided.ended_B | (self._room(loop, context.lengths_B) <= 0),
            self._counted(loop, proposal, verdict, decided, (raw_BMV, seen.logits_BMV)),
            self._with_logits(loop, seen.logits_BMV, decided),
        )

    def to_the_end(self, loop: Loop) -> Loop:
        """Rounds until every row is done."""
        return jax.lax.while_loop(lambda loop: ~jnp.all(loop.done_B), self.one_round, loop)

    def finished(self, loop: Loop) -> Generation:
        """The rows as they stand, zero past their ends."""
        lengths_B = loop.context.lengths_B
        tokens_BS = jnp.where(jnp.arange(self.slots)[None] < lengths_B[:, None], loop.context.tokens_BS, 0)
        return dataclasses.replace(loop.generation, tokens_BS=tokens_BS, lengths_B=lengths_B)

    def _clamped(self, loop: Loop, proposal: Proposal, tree: Tree) -> Proposal:
        """Without guesses that could not be committed: beyond the row's budget, below an EOS or an invalid guess."""
        nodes, eos_BN = proposal.tokens_BN.shape[1], self._is_eos(proposal.tokens_BN)
        room_B = jnp.where(loop.done_B, 0, self._room(loop, loop.context.lengths_B))
        valid_BN = jnp.ones_like(eos_BN) if proposal.valid_BN is None else proposal.valid_BN
        if widths_of(self.drafter) and proposal.width is not None:
            valid_BN &= (jnp.arange(nodes) < proposal.width)[None]
        above_BNN = tree.ancestors_BNN & ~jnp.eye(nodes, dtype=bool)[None]
        below_end_BN = jnp.any(above_BNN & (eos_BN | ~valid_BN)[:, None, :], axis=-1)
        return dataclasses.replace(proposal, valid_BN=valid_BN & ~below_end_BN & (tree.depth_BN <= room_B[:, None]))

    def _verified(self, context: Context, proposal: Proposal, tree: Tree) -> Seen:
        """The target at root and nodes: at as many of them as are in use, of the few widths that the drafter names."""
        base_B = context.lengths_B - 1
        cache = context.target_cache
        if proposal.target_cache is not None:
            cache = proposal.target_cache.roll_back(base_B)
        root_B1 = jnp.take_along_axis(context.tokens_BS, base_B[:, None], axis=1)
        tokens_BM = jnp.concatenate([root_B1, proposal.tokens_BN], axis=1)
        columns = {}
        if proposal.parents_BN is not None:
            columns["positions_BT"] = base_B[:, None] + jnp.pad(jnp.asarray(tree.depth_BN), ((0, 0), (1, 0)))
            columns["mask_BTS"] = tree.attention_mask(base_B, self.slots)
        if proposal.entry is not None:
            columns["hidden_BTD"] = proposal.entry.hidden_BMD
        full, layers = tokens_BM.shape[1], asks_of(self.drafter).layers

        def call(width: int, cache: Any) -> Seen:
            cut = {name: column[:, :width] for name, column in columns.items()}
            first = {} if proposal.entry is None else {"first": proposal.entry.layer}
            return see(self.target, layers, tokens_BM[:, :width], cache, **cut, **first).widened(full)

        if not widths_of(self.drafter) or proposal.width is None:
            return call(full, cache)
        widths = sorted({min(width + 1, full) for width in widths_of(self.drafter)} | {full})
        index = jnp.minimum(jnp.searchsorted(jnp.asarray(widths), proposal.width + 1), len(widths) - 1)
        shapes = jax.eval_shape(lambda cache: call(full, cache), cache)
        seen = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes._replace(cache=()))._replace(cache=cache)
        for place, width in enumerate(widths):
            seen = changed_if(index == place, jax.tree_util.Partial(lambda n, seen: call(n, seen.cache), width), seen)
        return seen

    def _processed(self, context: Context, proposal: Proposal, tree: Tree, logits_BMV: Array) -> Array:
        """The logits after the sampling's processors, for which a node's text ends with the node."""
        present = context.present(logits_BMV.shape[-1])
        if present is not None:
            present = present_in_tree(present, proposal.tokens_BN, tree.ancestors_BNN)
        return self.sampling.processed(logits_BMV, present)

    def _judged(self, key: Array, context: Context, proposal: Proposal, logits_BMV: Array, tree: Tree) -> Verdict:
        """The rule's verdict; with shared noise on the target's choices, which are then all there is to follow."""
        if not self.sampling.shares_noise:
            return self.accept(key, proposal, logits_BMV, self.sampling)
        noise_BMV = noise_in_tree(context, tree, depth_of(self.drafter), logits_BMV)
        return self.accept(key, proposal, self.sampling.filtered(logits_BMV) + noise_BMV, GREEDY)

    def _decided(self, loop: Loop, proposal: Proposal, tree: Tree, verdict: Verdict) -> _Decided:
        nodes, room_B = proposal.tokens_BN.shape[1], self._room(loop, loop.context.lengths_B)
        accepted_B = jnp.sum(verdict.accepted_BN, axis=1, dtype=jnp.int32)
        path_BN = jnp.argsort(~verdict.accepted_BN, axis=1, stable=True).astype(jnp.int32)  # topological = by depth
        guesses_BN = jnp.take_along_axis(proposal.tokens_BN, path_BN, axis=1)
        ended_B = jnp.any(self._is_eos(guesses_BN) & (jnp.arange(nodes)[None] < accepted_B[:, None]), axis=1)
        count_B = jnp.minimum(accepted_B + jnp.where(ended_B, 0, 1), room_B)
        count_B = jnp.where(loop.done_B, 0, count_B)
        ended_B |= self._is_eos(verdict.next_token_B) & (count_B > accepted_B)
        own_BM = jnp.arange(nodes + 1)[None] == accepted_B[:, None]
        tokens_BM = jnp.where(own_BM, verdict.next_token_B[:, None], jnp.pad(guesses_BN, ((0, 0), (0, 1))))
        refused_BN = verdict.judged_BN & ~verdict.accepted_BN & (tree.depth_BN == accepted_B[:, None] + 1)
        refused_B = jnp.max(jnp.where(refused_BN, jnp.arange(nodes)[None], -1), axis=1, initial=-1)
        refusable_BM = jnp.pad(proposal.tokens_BN, ((0, 0), (0, 1)))
        refused_token_B1 = jnp.take_along_axis(refusable_BM, jnp.maximum(refused_B, 0)[:, None], axis=1)
        rejected_BM = jnp.where(own_BM & (refused_B >= 0)[:, None], refused_token_B1, -1)
        return _Decided(tokens_BM, count_B, ended_B, accepted_B, path_BN, own_BM, rejected_BM)

    def _committed(self, context: Context, proposal: Proposal, seen: Seen, decided: _Decided) -> Context:
        """The context after the round, with what the verification taught."""
        lengths_B, cache = context.lengths_B + decided.count_B, seen.cache
        if proposal.parents_BN is not None:
            rows_BM = jnp.pad(decided.path_BN[:, : depth_of(self.drafter)] + 1, ((0, 0), (1, 0)))
            cache = cache.keep_path(context.lengths_B - 1, rows_BM)
        refused_B = jnp.any(decided.rejected_BM >= 0, axis=1)
        return dataclasses.replace(
            context,
            tokens_BS=written(context.tokens_BS, decided.tokens_BM, self._slots(context, decided)),
            lengths_B=lengths_B,
            accepted_B=decided.accepted_B,
            judged_B=decided.accepted_B + refused_B,
            path_BN=decided.path_BN,
            likeliest_BMK=seen.likeliest(asks_of(self.drafter).likeliest),
            hidden=seen.hidden,
            target_cache=cache.roll_back(lengths_B - 1),
        )

    def _counted(self, loop: Loop, proposal: Proposal, verdict: Verdict, decided: _Decided, logits: Any) -> Generation:
        """The counts, and the log-probabilities where they are asked for, by the logits as they came and processed."""
        counts, active_B, given = loop.generation, ~loop.done_B, given_by(self.drafter)
        own_BM = decided.own_BM | ~_beyond(given, jnp.ones_like(decided.own_BM)) if given else decided.own_BM
        slot_BM = self._slots(loop.context, decided)
        of_tokens = (decided.path_BN, decided.tokens_BM, slot_BM)
        return dataclasses.replace(
            counts,
            rounds_B=counts.rounds_B + (2 * active_B if given else active_B),
            accepted_BN=counts.accepted_BN + _beyond(given, verdict.accepted_BN),
            judged_BN=counts.judged_BN + _beyond(given, verdict.judged_BN),
            drafted_B=counts.drafted_B
            + jnp.sum(_beyond(given, jnp.asarray(proposal.valid_BN)), axis=1, dtype=jnp.int32),
            histogram_BM=counts.histogram_BM + (decided.own_BM & active_B[:, None]),
            origin_BS=written(counts.origin_BS, jnp.where(own_BM, TARGET, GUESS), slot_BM),
            rejected_BS=written(counts.rejected_BS, decided.rejected_BM, slot_BM),
            logprobs=with_logprobs(self.logprobs, counts.logprobs, self.sampling, logits, *of_tokens),
        )

    def _with_logits(self, loop: Loop, logits_BMV: Array, decided: _Decided) -> Array | None:
        """The logits kept so far, and the target's by which this round commits."""
        if loop.logits_BLV is None:
            return None
        slot_BM = self._slots(loop.context, decided)
        at_BM = jnp.where(slot_BM < self.slots, slot_BM - loop.start_lengths_B[:, None], loop.logits_BLV.shape[1])
        return with_logits(loop.logits_BLV, logits_BMV, decided.path_BN, at_BM)

    def _slots(self, context: Context, decided: _Decided) -> Array:
        """Where each column of the round is committed; past the end where it is not."""
        column_1M = jnp.arange(decided.tokens_BM.shape[1])[None]
        return jnp.where(column_1M < decided.count_B[:, None], context.lengths_B[:, None] + column_1M, self.slots)

    def _room(self, loop: Loop, lengths_B: Array) -> Array:
        return loop.start_lengths_B + self.max_new_tokens - lengths_B

    def _is_eos(self, tokens: Array) -> Array:
        return jnp.any(tokens[..., None] == self.eos_E.reshape((1,) * tokens.ndim + (-1,)), axis=-1)


def _beyond(given: int, nodes_BN: Array) -> Array:
    """What is said of a drafter's nodes, of which the first `given` are no guesses, for the guesses alone."""
    return nodes_BN & (jnp.arange(nodes_BN.shape[1])[None] >= given) if given else nodes_BN

"""What passes between the engine, a drafter, an acceptance rule and a model."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.decoding.sampling import GREEDY, Sampling


def _pytree(*static: str):
    """Registers a frozen dataclass whose `static` fields are compile-time constants."""

    def register(cls):
        cls = dataclasses.dataclass(frozen=True)(cls)
        data = [f.name for f in dataclasses.fields(cls) if f.name not in static]
        return jax.tree_util.register_dataclass(cls, data_fields=data, meta_fields=list(static))

    return register


@_pytree("sampling")
class Context:
    """What is decided so far, and what the last verification taught. A bare prompt is `Context(tokens_BS, lengths_B)`.

    `tokens_BS[b, :lengths_B[b]]` are the committed tokens of row b; the rest is padding. All other fields are what a
    drafter may learn from the last verification; before the first one they are None or zero.
    """

    tokens_BS: Array  # any integer type; the engine hands on int32
    lengths_B: Array  # committed tokens per row, >= 1
    accepted_B: Array | None = None  # guesses accepted in the last round
    path_BN: Array | None = None  # their node indices, in order of depth; entries past accepted_B mean nothing
    choices_BM: Array | None = None  # the target's most likely token at the root and at every node
    hidden_BMD: Array | None = None  # the target's hidden states there (in `init`: at every prompt token)
    target_cache: Any = None  # the target's cache, holding lengths_B - 1 tokens per row
    sampling: Sampling = GREEDY


@_pytree()
class Proposal:
    """Guesses in topological order, and the law each was drawn from."""

    tokens_BN: Array
    parents_BN: Array | None = None  # node index of the parent, -1 for the root; None: a chain
    valid_BN: Array | None = None  # None: all of them; an invalid node is never judged, nor are its descendants
    probs_BNV: Array | None = None  # None: deterministic guesses (a point mass each)


@_pytree()
class Verdict:
    """What an acceptance rule decides in one round. The accepted nodes form one path from the root."""

    accepted_BN: Array  # bool
    judged_BN: Array  # bool: tested, whether accepted or not
    next_token_B: Array  # the target's own token after the last accepted node


@_pytree()
class Generation:
    """Prompt and continuation of every row, and the counts that acceptance statistics need."""

    tokens_BS: Array  # zero past lengths_B
    lengths_B: Array  # prompt + new tokens
    rounds_B: Array  # target calls while the row was unfinished, prefill not counted
    accepted_BN: Array  # rounds in which node n was accepted
    judged_BN: Array  # rounds in which node n was judged
    drafted_B: Array  # guesses that could have been committed (within max_new_tokens, not past an EOS)
    histogram_BM: Array  # rounds in which exactly m guesses were accepted
    origin_BS: Array  # int8 per token: PROMPT, GUESS (accepted) or TARGET (correction or bonus)
    rejected_BS: Array  # the last guess refused at that position in the round that decided it, -1 where none was


PROMPT, GUESS, TARGET = 0, 1, 2


class Drafter(Protocol):
    """Proposes continuations. A drafter is a pytree: weights are leaves, everything else is static."""

    num_nodes: int

    def init(self, prompt: Context, slots: int) -> Any:
        """The state after reading a right-padded prompt; `slots` is the most tokens a row may come to hold."""

    def propose(self, key: Array, state: Any, context: Context) -> tuple[Proposal, Any]:
        """Guesses for what follows `context`, and the new state.

        The drafter rolls its own state back to `context.lengths_B`: guesses that were refused are simply absent there.
        """


class Model(Protocol):
    """What decoding needs of a model; `adaspec_jax.models.CausalLM` is one."""

    def __call__(self, tokens_BT, cache=None, *, positions_BT=None, mask_BTS=None) -> tuple[Array, Any]: ...

    def features(self, tokens_BT, cache=None, *, positions_BT=None, mask_BTS=None) -> tuple[Array, Any]: ...

    def unembed(self, hidden_BTD) -> Array: ...

    def init_cache(self, batch_size: int, slots: int) -> Any: ...


class Tree(NamedTuple):
    """The shape of a proposal: `ancestors_BNN[b, n, m]` says that m is n or above it; depth counts from 1."""

    ancestors_BNN: Array
    depth_BN: Array

    @classmethod
    def of(cls, proposal: Proposal) -> Tree:
        batch, nodes = proposal.tokens_BN.shape
        if proposal.parents_BN is None:
            below = jnp.tril(jnp.ones((nodes, nodes), bool))
            ancestors_BNN = jnp.broadcast_to(below[None], (batch, nodes, nodes))
        else:
            own_NN = jnp.eye(nodes, dtype=bool)

            def extend(ancestors_BNN, node):
                parent_B = jnp.take(proposal.parents_BN, node, axis=1)
                inherited_BN = jnp.take_along_axis(ancestors_BNN, jnp.maximum(parent_B, 0)[:, None, None], axis=1)[:, 0]
                row_BN = (inherited_BN & (parent_B >= 0)[:, None]) | own_NN[node][None]
                return ancestors_BNN.at[:, node].set(row_BN), None

            empty = jnp.zeros((batch, nodes, nodes), bool)
            ancestors_BNN, _ = jax.lax.scan(extend, empty, jnp.arange(nodes))
        return cls(ancestors_BNN, jnp.sum(ancestors_BNN, axis=-1, dtype=jnp.int32))

    def attention_mask(self, start_B: Array, slots: int) -> Array:
        """`mask_BMS`: root and nodes, at slots start.., see what lies before, the root, ancestors, themselves."""
        batch, nodes, _ = self.ancestors_BNN.shape
        sees_BMM = jnp.zeros((batch, nodes + 1, nodes + 1), bool).at[:, :, 0].set(True)
        sees_BMM = sees_BMM.at[:, 1:, 1:].set(self.ancestors_BNN)
        row_BS = jnp.arange(slots)[None, :] - start_B[:, None]
        inside_BS = (row_BS >= 0) & (row_BS <= nodes)
        index_BMS = jnp.broadcast_to(jnp.clip(row_BS, 0, nodes)[:, None, :], (batch, nodes + 1, slots))
        tree_BMS = jnp.take_along_axis(sees_BMM, index_BMS, axis=2)
        return (row_BS < 0)[:, None, :] | (inside_BS[:, None, :] & tree_BMS)

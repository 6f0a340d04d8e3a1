"""What passes between the engine, a drafter, an acceptance rule and a model."""

from __future__ import annotations

from typing import Any, Protocol

from jax import Array

from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.sampling import GREEDY, Sampling


@pytree("sampling")
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


@pytree()
class Proposal:
    """Guesses in topological order, and the law each was drawn from."""

    tokens_BN: Array
    parents_BN: Array | None = None  # node index of the parent, -1 for the root; None: a chain
    valid_BN: Array | None = None  # None: all of them; an invalid node is never judged, nor are its descendants
    probs_BNV: Array | None = None  # None: deterministic guesses (a point mass each)


@pytree()
class Verdict:
    """What an acceptance rule decides in one round. The accepted nodes form one path from the root."""

    accepted_BN: Array  # bool
    judged_BN: Array  # bool: tested, whether accepted or not
    next_token_B: Array  # the target's own token after the last accepted node


@pytree()
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

"""What passes between the engine, a drafter, an acceptance rule and a model."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from jax import Array

from adaspec_jax.decoding.logprobs import TokenLogprobs
from adaspec_jax.decoding.noise import noise_at
from adaspec_jax.decoding.present import present
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.sampling import GREEDY, Sampling, most_likely


class Asks(NamedTuple):
    """What a drafter wants of the prefill and of every verification, known before anything is traced."""

    layers: tuple[float, ...] = ()  # the target's hidden states after these layers; -1: after the final norm;
    # i + 0.5: of layer i after its attention alone
    likeliest: int = 1  # the target's so many likeliest tokens at the root and at every node; 0: none


@pytree("sampling", "behind", "opinion")
class Context:
    """What is decided so far, and what the last verification taught. A bare prompt is `Context(tokens_BS, lengths_B)`.

    `tokens_BS[b, :lengths_B[b]]` are the committed tokens of row b; the rest is padding. All other fields are what a
    drafter may learn from the last verification; before the first one they are None or zero, but for `hidden`, whose
    root entries hold the position before the last prompt token.

    `behind`: how many of the last committed tokens a drafter's own cache may lack. Two directly under the engine: the
    last one, and after a full acceptance the last guess. Inside another model's round one more per level, because the
    outer target may have replaced what the inner round had decided: re-read `behind` tokens, never two.

    A drafter that writes into `target_cache` hands it back in `Proposal.target_cache`: else the cache before and after
    are both alive, and XLA copies all of it in every round.
    """

    tokens_BS: Any  # an Array of int32; in a prompt any array of integers, NumPy's too
    lengths_B: Any  # likewise; committed tokens per row, >= 1
    # None in a bare prompt alone, which no `propose` is given.
    accepted_B: Array = None  # type: ignore[assignment]  # guesses accepted in the last round
    judged_B: Array = None  # type: ignore[assignment]  # that, and one more where a refusal ended the round
    path_BN: Array = None  # type: ignore[assignment]  # the accepted nodes by depth; past accepted_B they mean nothing
    likeliest_BMK: Any = None  # the target's likeliest tokens, an Array, at the root and at every node, as asked for
    hidden: tuple[Array, ...] = ()  # [B, M, D] per layer asked for (in `init`: [B, S, D], at every prompt token; in
    # `extend`: [B, width, D], at the prompt tokens from kept_B on)
    target_cache: Any = None  # the target's cache, holding lengths_B - 1 tokens per row
    noise_B: Array | None = None  # with shared noise, a key per request (`noise.request_keys`); None: its place's
    sampling: Sampling = GREEDY
    behind: int = 2  # static
    opinion: bool = False  # static: the rule compares laws, and wants `Proposal.opinion_BNV`

    @property
    def has_noise(self) -> bool:
        """Whether draws take the noise of their places: keys alone, where it is not shared, say nothing."""
        return self.sampling.shares_noise and self.noise_B is not None

    def present(self, vocab_size: int) -> Array | None:
        """bool_BV: the tokens of each row's text, for `Sampling.processed`; None where that does not ask."""
        if self.sampling.repetition_penalty == 1:
            return None
        return present(self.tokens_BS, self.lengths_B, vocab_size)

    def pick(self, key: Array, logits_BV: Array, position_B: Array) -> tuple[Array, Array | None]:
        """A drafter's guess for these places in the rows, and the law it was drawn from; None where it is settled.

        The logits have been through `Sampling.processed`; a drafter that leaves that out is as exact, and accepts less.
        """
        if not self.has_noise:
            return self.sampling.pick(key, logits_BV)
        return most_likely(self.noisy(logits_BV[:, None], position_B[:, None])[:, 0]), None

    def noisy(self, logits_BTV: Array, position_BT: Array) -> Array:
        """Filtered logits plus the shared noise of these places, of which the greatest is a draw from their law."""
        assert self.noise_B is not None, "a context of shared noise has keys"
        noise_BTV = noise_at(self.noise_B, position_BT, logits_BTV.shape[-1])
        return self.sampling.filtered(logits_BTV) + noise_BTV


@pytree("layer")
class Entry:
    """Hidden states with which the target goes on, in place of embedded tokens."""

    layer: int  # the first that is still to run; the cache holds the nodes for the layers before it
    hidden_BMD: Array  # what enters it, at the root and at every node


@pytree()
class Proposal:
    """Guesses in topological order, and the law each was drawn from.

    `valid_BN` may not depend on a guess's own draw while `probs_BNV` is given: a drafter that withdraws a weak guess
    after drawing it biases the law. Decide before the draw, or withdraw what comes after the weak guess. Without
    `probs_BNV` the rule for point masses is exact whatever drew or withdrew a guess: the safe choice for a drafter that
    cannot state its law. Guesses that a lossy rule has sifted have no law to state.
    """

    tokens_BN: Array
    parents_BN: Array | np.ndarray | None = None  # the parent's index, -1: the root; NumPy [N] or [B, N] where the
    # shape is known beforehand, so that masks and depths are constants; None: a chain
    valid_BN: Array | None = None  # None: all of them; an invalid node is never judged, nor are its descendants
    probs_BNV: Array | None = None  # None: deterministic guesses (a point mass each)
    opinion_BNV: Array | None = None  # the drafter's logits there, for rules that compare laws; lossless rules do not
    width: Array | None = None  # scalar: no row uses more than so many first nodes; see `Drafter.widths`
    target_cache: Any = None  # the target's, handed back by a drafter that wrote past its lengths
    entry: Entry | None = None  # where the target goes on; None: at the tokens


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
    rounds_B: Array  # target calls while the row was unfinished, those of drafting too, prefill not counted
    accepted_BN: Array  # rounds in which node n was accepted
    judged_BN: Array  # rounds in which node n was judged
    drafted_B: Array  # guesses that could have been committed (within max_new_tokens, not past an EOS)
    histogram_BM: Array  # rounds in which exactly m guesses were accepted
    origin_BS: Array  # int8 per token: PROMPT, GUESS (accepted) or TARGET (correction or bonus)
    rejected_BS: Array  # the last guess refused at that position in the round that decided it, -1 where none was
    logprobs: TokenLogprobs | None = None  # of every new token, where they are asked for


PROMPT, GUESS, TARGET = 0, 1, 2


class Drafter(Protocol):
    """Proposes continuations. A drafter is a pytree: weights are leaves, everything else is static.

    Its state has the batch first in every array; what rows share (a datastore, heads, a tree's tables) are leaves of
    the drafter itself. These three are all that it must have; `WholeDrafter` says what it may have beside them.
    """

    @property
    def num_nodes(self) -> int:
        """Guesses of a proposal."""

    def init(self, prompt: Context, slots: int, /) -> Any:
        """The state after reading a right-padded prompt; `slots` is the most tokens a row may come to hold."""

    def propose(self, key: Array, state: Any, context: Context, /) -> tuple[Proposal, Any]:
        """Guesses for what follows `context`, and the new state.

        The drafter rolls its own state back to `context.lengths_B`: guesses that were refused are simply absent there.
        """


class WholeDrafter(Drafter, Protocol):
    """A drafter with all that one may have; each of these may be left out, and is then as is said beside it.

    One that may learn across requests has the last three: `memory` is a field, arrays of fixed shapes that rows share,
    or None where it forgets. See `memory.generate_and_learn`.
    """

    @property
    def depth(self) -> int:
        """The longest path of a proposal; default: num_nodes."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of first nodes that verifications are compiled for beside all; default: none."""

    @property
    def asks(self) -> Asks:
        """Of every verification; default: the target's likeliest token."""

    @property
    def enters(self) -> bool:
        """Whether its proposals have an `entry`; default: no."""

    def extend(self, state: Any, prompt: Context, kept_B: Array, width: int, /) -> Any:
        """What `init` makes of a prompt, from the state after the turn before (see `Dialogue`), reading what is new.

        The first `kept_B` tokens of a row are those it held after that turn, without the last of them at least; no row
        has more than `width` tokens beyond. Where the slots have become more, the state's arrays come with zeros after
        their ends, in the shapes that `init` makes.
        """

    @property
    def given(self) -> int:
        """How many of its first nodes the target itself drew, in one more call of it: no guesses; default: none."""

    @property
    def memory(self) -> Any:
        """What it has learnt."""

    def blank(self) -> Any:
        """The memory before the first request."""

    def remember(self, state: Any, context: Context, begun_B: Array, /) -> Any:
        """The memory after requests that are done and began with `begun_B` tokens, taken in the order of the rows."""


def asks_of(drafter: Drafter) -> Asks:
    return getattr(drafter, "asks", Asks())


def depth_of(drafter: Drafter) -> int:
    return getattr(drafter, "depth", drafter.num_nodes)


def given_by(drafter: Drafter) -> int:
    return getattr(drafter, "given", 0)


def is_chain(drafter: Drafter) -> bool:
    """Whether all its guesses stand in a row, as far as it is known beforehand."""
    return depth_of(drafter) == drafter.num_nodes and not getattr(drafter, "branches", False)


def widths_of(drafter: Drafter) -> tuple[int, ...]:
    return getattr(drafter, "widths", ())


class Accept(Protocol):
    """Decides which guesses stay: a static, hashable value, equal to itself in every call."""

    @property
    def lossless(self) -> bool:
        """Whether the committed tokens follow the target's law exactly."""

    @property
    def opinion(self) -> bool:
        """Whether it reads `Proposal.opinion_BNV`."""

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling, /) -> Verdict:
        """Row 0 of `logits_BMV` follows the root, row n + 1 follows node n."""


class Cache(Protocol):
    """A model's memory of what it has read, an argument and a result of its calls."""

    @property
    def lengths_B(self) -> Array:
        """Tokens that each row holds."""

    @property
    def slots(self) -> int:
        """Tokens for which a row has room."""

    def roll_back(self, lengths_B: Array) -> Cache:
        """Holding `lengths_B` tokens per row."""

    def keep_path(self, start_B: Array, rows_BM: Array) -> Cache:
        """Entries of slots `start_b + rows_BM[b, m]` moved to `start_b + m`."""

    def select(self, slots_BGX: Array) -> Cache:
        """A cache of X slots per row, taken for each of the G heads of keys."""


class Model(Protocol):
    """What decoding needs of a model; `adaspec_jax.models.CausalLM` is one.

    `run`, under the other methods, is only called for drafters that ask for layers or begin at one.
    """

    def __call__(
        self, tokens_BT: Any, cache: Any = None, *, positions_BT: Any = None, mask_BTS: Any = None
    ) -> tuple[Array, Any]:
        """(logits_BTV, the cache)."""

    def features(
        self, tokens_BT: Any, cache: Any = None, *, positions_BT: Any = None, mask_BTS: Any = None
    ) -> tuple[Array, Any]:
        """(hidden_BTD, the cache)."""

    def unembed(self, hidden_BTD: Any, /) -> Array:
        """logits_BTV."""

    def init_cache(self, batch_size: int, slots: int, /) -> Any:
        """A `Cache` that holds nothing."""

    def run(
        self,
        tokens_BT: Any,
        cache: Any = None,
        *,
        positions_BT: Any = None,
        mask_BTS: Any = None,
        first: int = 0,
        last: int | None = None,
        hidden_BTD: Any = None,
        taps: tuple[float, ...] = (),
    ) -> tuple[Array, Any, tuple[Array, ...]]:
        """(hidden_BTD, cache, the hidden states after each layer of `taps`); see `CausalLM.run`."""

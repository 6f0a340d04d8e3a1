"""An independent draft model that guesses a tree of fixed shape."""

from __future__ import annotations

from math import prod
from typing import Any

from jax import Array

from adaspec_jax.decoding.drafters.levels import (
    Counts,
    Found,
    Level,
    distinct,
    guessed_tree,
    independent,
    nodes_of,
    read_nodes,
)
from adaspec_jax.decoding.drafters.models.reread import read_on, read_prompt, reread
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.types import Asks, Context, Model, Proposal


@pytree("branching", "replacement")
class TreeDrafter:
    """Nodes at depth d have `branching[d]` children: i.i.d. draws when sampling, the most likely tokens when greedy.

    Verified without loss by `rejection_sample` (SpecInfer, arXiv 2305.09781, multi-round rule). Without `replacement`
    siblings differ: each is drawn from what its earlier siblings have left of the draft's law, and states that law; a
    sibling for which nothing is left is invalid. EAGLE-1 draws so (2401.15077).
    """

    model: Model
    branching: tuple[int, ...] = (2, 2, 1)
    replacement: bool = True

    asks = Asks(likeliest=0)

    @property
    def depth(self) -> int:
        return len(self.branching)

    @property
    def num_nodes(self) -> int:
        return nodes_of(self._counts)

    def init(self, prompt: Context, slots: int) -> Any:
        return read_prompt(self.model, prompt, slots)

    def extend(self, cache: Any, prompt: Context, kept_B: Array, width: int) -> Any:
        return read_on(self.model, cache, prompt, kept_B, width, window=self._window(prompt))

    def propose(self, key: Array, cache: Any, context: Context) -> tuple[Proposal, Any]:
        logits_BV, _, cache = reread(self.model, cache, context, window=self._window(context))
        position_BR, mask_BRS = read_nodes(self._counts, context.lengths_B, context.tokens_BS.shape[1])

        def expand(cache: Any, level: Level) -> tuple[Array, Any]:
            where = {"positions_BT": position_BR[:, level.places], "mask_BTS": mask_BRS[:, level.places]}
            return self.model(level.tokens_BW, cache, **where)

        return guessed_tree(self._counts, expand, cache, logits_BV, key, context, self._children)

    @property
    def _counts(self) -> Counts:
        """All nodes of a level have equally many children."""
        return tuple((width,) * prod(self.branching[:depth]) for depth, width in enumerate(self.branching))

    def _window(self, context: Context) -> int:
        # The accepted path lies scattered in this cache, so all a round can commit is read again: depth + 1 tokens.
        return self.depth - 1 + context.behind

    def _children(self, key: Array, logits_BWV: Array, width: int, sampling: Sampling) -> Found:
        return (independent if self.replacement else distinct)(key, logits_BWV, width, sampling)

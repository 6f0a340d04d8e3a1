"""An independent draft model that guesses a tree of fixed shape."""

from __future__ import annotations

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.decoding.drafters.models.reread import read_on, read_prompt, reread
from adaspec_jax.decoding.present import with_token
from adaspec_jax.decoding.pytree import pytree
from adaspec_jax.decoding.tree import Tree
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
        return sum(prod(self.branching[: depth + 1]) for depth in range(len(self.branching)))

    def init(self, prompt: Context, slots: int):
        return read_prompt(self.model, prompt, slots)

    def extend(self, cache, prompt: Context, kept_B: Array, width: int):
        return read_on(self.model, cache, prompt, kept_B, width, window=self._window(prompt))

    def propose(self, key, cache, context: Context):
        slots = context.tokens_BS.shape[1]
        parents_N = self._parents()
        logits_BV, _, cache = reread(self.model, cache, context, window=self._window(context))
        shape = Tree.of(Proposal(parents_N[None], parents_N))
        # The root is already in the cache: drop its row, and count node slots from the first one after it.
        mask_BNS = shape.attention_mask(context.lengths_B - 1, slots)[:, 1:]
        position_BN = context.lengths_B[:, None] - 1 + shape.depth_BN

        logits_BWV, start, tokens, laws, valid, opinions = logits_BV[:, None], 0, [], [], [], []
        present_BWV = jax.tree.map(lambda present_BV: present_BV[:, None], context.present(logits_BV.shape[-1]))
        keys = jax.random.split(key, len(self.branching))
        for depth, (width, level_key) in enumerate(zip(self.branching, keys, strict=True)):
            logits_BWV = context.sampling.processed(logits_BWV, present_BWV)
            noisy_BWV = self._noisy(context, logits_BWV, depth)
            tokens_BW, probs_BWV, valid_BW = self._children(level_key, noisy_BWV, width, context.sampling)
            tokens.append(tokens_BW)
            laws.append(probs_BWV)
            valid.append(valid_BW)
            opinions.append(jnp.repeat(logits_BWV, width, axis=1) if context.opinion else None)
            end = start + tokens_BW.shape[1]
            if end < len(parents_N):  # the leaves need no reading
                level = slice(start, end)
                if present_BWV is not None:
                    present_BWV = with_token(jnp.repeat(present_BWV, width, axis=1), tokens_BW)
                logits_BWV, cache = self.model(
                    tokens_BW, cache, positions_BT=position_BN[:, level], mask_BTS=mask_BNS[:, level]
                )
            start = end
        found = (valid, laws, opinions)
        valid_BN, probs_BNV, opinion_BNV = (None if a[0] is None else jnp.concatenate(a, axis=1) for a in found)
        return Proposal(jnp.concatenate(tokens, axis=1), parents_N, valid_BN, probs_BNV, opinion_BNV), cache

    def _window(self, context: Context) -> int:
        # The accepted path lies scattered in this cache, so all a round can commit is read again: depth + 1 tokens.
        return self.depth - 1 + context.behind

    def _parents(self) -> np.ndarray:
        parents, level = [], [-1]
        for width in self.branching:
            first = len(parents)
            parents += [parent for parent in level for _ in range(width)]
            level = list(range(first, len(parents)))
        return np.asarray(parents, np.int32)

    def _noisy(self, context: Context, logits_BWV, depth: int):
        """The logits, plus the noise of the place that nodes below `depth` others take, where noise is shared."""
        if not context.has_noise:
            return logits_BWV
        batch, width, _ = logits_BWV.shape
        position_BW = jnp.broadcast_to(context.lengths_B[:, None] + depth, (batch, width))
        return context.noisy(logits_BWV, position_BW)

    def _children(self, key, logits_BWV, width: int, sampling):
        """(tokens [B, W * width], their laws, whether there was anything to draw), siblings side by side."""
        batch = logits_BWV.shape[0]
        if sampling.settled:
            return jax.lax.top_k(logits_BWV, width)[1].reshape(batch, -1).astype(jnp.int32), None, None
        if self.replacement:
            probs_BNV = jnp.repeat(sampling.probs(logits_BWV), width, axis=1)
            return sampling.draw(key, probs_BNV), probs_BNV, None
        left_BWV, drawn = sampling.probs(logits_BWV), []
        for sibling_key in jax.random.split(key, width):
            mass_BW = jnp.sum(left_BWV, axis=-1)
            law_BWV = left_BWV / jnp.where(mass_BW > 0, mass_BW, 1.0)[..., None]
            token_BW = sampling.draw(sibling_key, law_BWV)
            drawn.append((token_BW, law_BWV, mass_BW > 0))
            taken_BWV = jnp.arange(left_BWV.shape[-1])[None, None] == token_BW[..., None]
            left_BWV = jnp.where(taken_BWV, 0.0, law_BWV)
        return tuple(jnp.stack(a, axis=2).reshape(batch, -1, *a[0].shape[2:]) for a in zip(*drawn, strict=True))

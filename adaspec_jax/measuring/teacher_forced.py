"""Models along texts that are given: how likely one finds them, and how often two agree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from adaspec_jax.models import CausalLM
from adaspec_jax.models.heads import Head, features_of


@partial(jax.tree_util.register_dataclass, data_fields=["head", "target"], meta_fields=[])
@dataclass(frozen=True)
class AlongText:
    """A head on its target as if it were a model: what its nearest guess says along a text that is given."""

    head: Head
    target: CausalLM

    def __call__(self, tokens_BT: Array) -> tuple[Array, None]:
        """Logits [B, T, V]: column t is of token t + 1, guessed from what precedes it.

        The first columns, of tokens that a head does not guess, are flat.
        """
        head = self.head.config.nearest(self.head)
        kind = head.config
        features_BTF = features_of(self.target, tokens_BT, kind.layers)
        made_BTD = head.guessed(self.target, tokens_BT, features_BTF)[0]
        logits_BTV = kind.spread(head, head.logits(self.target, made_BTD))
        ahead = kind.terms[0].shift
        logits_BTV = logits_BTV[:, : logits_BTV.shape[1] - ahead]
        return jnp.pad(logits_BTV, ((0, 0), (ahead, 0), (0, 0))), None


@jax.jit
def teacher_forced(target, draft, tokens_BS, prompt_lengths_B, lengths_B):
    """Sums over the continuation's positions of sum_x min(p, q) at temperature 1 and of argmax equality, per row.

    One row at a time, so that two rows of [S, V] logits are all that is held.
    """

    def row(tokens_S, prompt_length, length):
        p_SV, q_SV = (model(tokens_S[None])[0][0].astype(jnp.float32) for model in (target, draft))
        overlap_S = jnp.sum(jnp.minimum(jax.nn.softmax(p_SV), jax.nn.softmax(q_SV)), axis=-1)
        same_S = jnp.argmax(p_SV, axis=-1) == jnp.argmax(q_SV, axis=-1)
        predicts_S = jnp.arange(1, tokens_S.shape[0] + 1)  # position s predicts token s + 1
        counted_S = (predicts_S >= prompt_length) & (predicts_S < length)
        totals = jnp.sum(jnp.where(counted_S, overlap_S, 0.0)), jnp.sum(counted_S & same_S), jnp.sum(counted_S)
        return totals

    return jax.lax.map(lambda args: row(*args), (tokens_BS, prompt_lengths_B, lengths_B))


@jax.jit
def given_logprobs(model, tokens_BS) -> Array:
    """Log-probability in nats of each token of right-padded rows after those before it, float32 [B, S]; 0 in column 0.

    One pass over the whole batch; of logits, one row's [S, V] are held at a time.
    """
    hidden_BSD, _ = model.features(tokens_BS)

    def row(args):
        hidden_SD, tokens_S = args
        logits_SV = model.unembed(hidden_SD[None])[0].astype(jnp.float32)[:-1]
        of_next_S = jnp.take_along_axis(logits_SV, tokens_S[1:, None], axis=-1)[:, 0]
        return jnp.pad(of_next_S - jax.nn.logsumexp(logits_SV, axis=-1), (1, 0))

    return jax.lax.map(row, (hidden_BSD, tokens_BS))

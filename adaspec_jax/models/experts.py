"""A gated MLP of experts: a router gives each token to a few of them, and adds what they make by its shares.

Every token gets all the experts that its router chose, however many others chose the same ("dropless"), so that a
text's logits do not depend on what is beside it in the batch. The router's logits, the shares and the sum are float32.
Parameters: `router/kernel` [D, E], `experts/{up,gate}` [E, D, F], `experts/down` [E, F, D].
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from adaspec_jax.devices.sharding import ROWS, over_shards
from adaspec_jax.models.decoder_config import ACTIVATIONS, DecoderConfig
from adaspec_jax.models.grouped_products import form_of, map_groups

ROUTER, EXPERTS = "router", "experts"
_WHOLE, _LAST, _MIDDLE = (None, None), (None, None, "tensor"), (None, "tensor", None)


class _Router(nn.Module):
    config: DecoderConfig

    @nn.compact
    def __call__(self) -> Array:
        c = self.config
        return self.param("kernel", nn.initializers.normal(c.initializer_range), (c.hidden_size, c.experts))


class _Matrices(nn.Module):
    config: DecoderConfig

    @nn.compact
    def __call__(self) -> dict[str, Array]:
        c = self.config
        init, wide, inside = nn.initializers.normal(c.initializer_range), c.hidden_size, c.expert_size
        shapes = {"up": (wide, inside), "gate": (wide, inside), "down": (inside, wide)}
        return {name: self.param(name, init, (c.experts, *shape)) for name, shape in shapes.items()}


class MixtureMLP(nn.Module):
    """In place of a layer's MLP, where the config has experts."""

    config: DecoderConfig

    def setup(self) -> None:
        self.router = _Router(self.config, name=ROUTER)
        self.experts = _Matrices(self.config, name=EXPERTS)

    def __call__(self, hidden_BTD: Array) -> Array:
        """Each device routes its own rows; matrices are cut inside the experts, never between them.

        Then all devices along "tensor" have equal shares of the work, whichever experts the tokens choose.
        """
        matrices = self.experts()
        mix = partial(mixed, self.config)
        specs = {"up": _LAST, "gate": _LAST, "down": _MIDDLE}
        return over_shards(
            mix, (hidden_BTD, (ROWS, None, None)), (self.router(), _WHOLE),
            *((matrices[name], spec) for name, spec in specs.items()), summed="tensor",
        )  # fmt: skip


def chosen(config: DecoderConfig, logits_RE: Array) -> tuple[Array, Array]:
    """(shares, experts), [R, k] each: the most probable, of equals the first, and what each of them counts."""
    shares_RK, expert_RK = jax.lax.top_k(jax.nn.softmax(logits_RE.astype(jnp.float32)), config.experts_per_token)
    if config.normalise_experts:
        shares_RK /= jnp.sum(shares_RK, axis=-1, keepdims=True)
    return shares_RK, expert_RK


def mixed(config: DecoderConfig, hidden_BTD: Array, router_DE: Array, up: Array, gate: Array, down: Array) -> Array:
    """[B, T, D]: the chosen experts' outputs, each by its share."""
    c, activation = config, ACTIVATIONS[config.activation]
    rows_RD = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
    shares_RK, expert_RK = chosen(c, jnp.matmul(rows_RD, router_DE, preferred_element_type=jnp.float32))

    def of_expert(times: Any, rows: Array) -> Array:
        return times(activation(times(rows, gate)) * times(rows, up), down)

    pairs = jnp.repeat(rows_RD, c.experts_per_token, axis=0)
    made = map_groups(of_expert, pairs, expert_RK.reshape(-1), groups=c.experts, form=c.expert_products or form_of())
    made_RKD = made.reshape(*expert_RK.shape, -1)
    mixed_RD = jnp.einsum("rk,rkd->rd", shares_RK, made_RKD, preferred_element_type=jnp.float32)
    return mixed_RD.astype(hidden_BTD.dtype).reshape(hidden_BTD.shape)

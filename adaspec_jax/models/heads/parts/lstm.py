"""Layers of long short-term memory, over whole texts and on from where one stands."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def init_lstm(key: Array, wide: int, size: int, layers: int) -> dict[str, Any]:
    """Layers of `size` cells, the first of which reads `wide` features; drawn as PyTorch draws them.

    One bias stands for PyTorch's two. Gates lie in its order: input, forget, cell, output.
    """

    def uniform(key: Array, rows: int) -> Array:
        return jax.random.uniform(key, (rows, 4 * size), jnp.float32, -(size**-0.5), size**-0.5)

    def one(key: Array, wide: int) -> dict[str, Any]:
        keys = jax.random.split(key, 2)
        kernel, memory = uniform(keys[0], wide), uniform(keys[1], size)
        return {"input": {"kernel": kernel, "bias": jnp.zeros((4 * size,))}, "memory": {"kernel": memory}}

    return {f"layer_{i}": one(each, size if i else wide) for i, each in enumerate(jax.random.split(key, layers))}


def state_size(size: int, layers: int) -> int:
    """Numbers that a state has: of each layer what it gives, and what it keeps."""
    return 2 * size * layers


def given(states: Array, size: int, layers: int) -> Array:
    """[..., size]: what the last layer gives, of states [..., X]."""
    return states[..., 2 * size * (layers - 1) :][..., :size]


def run(params: dict[str, Any], inputs_BTW: Array, state_BX: Array, fresh_BT: Array | None = None) -> Array:
    """The states [B, T, X] after each of the inputs, from the state before them.

    Where `fresh_BT` is true nothing is remembered of what came before.
    """
    size = params["layer_0"]["memory"]["kernel"].shape[0]
    begun = state_BX.reshape(len(state_BX), len(params), 2, size).astype(inputs_BTW.dtype)
    fresh_TB = None if fresh_BT is None else fresh_BT.swapaxes(0, 1)
    hidden_BTD, states = inputs_BTW, []
    for i in range(len(params)):
        weights = params[f"layer_{i}"]
        gates_BTG = hidden_BTD @ weights["input"]["kernel"] + weights["input"]["bias"].reshape(1, 1, -1)

        def step(carry, given, memory_DG=weights["memory"]["kernel"]):
            gates_BG, fresh_B = given
            if fresh_B is not None:
                carry = tuple(jnp.where(fresh_B[:, None], 0, x) for x in carry)
            enters, forgets, cell, leaves = jnp.split(gates_BG + carry[0] @ memory_DG, 4, axis=-1)
            kept = jax.nn.sigmoid(forgets) * carry[1] + jax.nn.sigmoid(enters) * jnp.tanh(cell)
            told = jax.nn.sigmoid(leaves) * jnp.tanh(kept)
            return (told, kept), (told, kept)

        carry = begun[:, i, 0], begun[:, i, 1]
        _, made = jax.lax.scan(step, carry, (gates_BTG.swapaxes(0, 1), fresh_TB))
        hidden_BTD, kept_BTD = (x.swapaxes(0, 1) for x in made)
        states += [hidden_BTD, kept_BTD]
    return jnp.concatenate(states, axis=-1)

"""What is changed or left as it is, decided as the program runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

Value = TypeVar("Value")


def changed_if(condition: Array, change: Callable[[Value], Value], value: Value) -> Value:
    """`change(value)` where the condition holds, else the value, whose arrays stay where they lie.

    A loop of one round or none: at a `lax.cond` or `lax.switch` through which a cache passes XLA copies all of it,
    whichever branch is taken (CPU, jax 0.10.2).
    """
    begun = (condition, value)
    return jax.lax.while_loop(lambda at: at[0], lambda at: (jnp.zeros_like(at[0]), change(at[1])), begun)[1]

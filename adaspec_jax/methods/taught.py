"""Methods without a second model whose guesses come from what the target's own passes said."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from adaspec_jax.decoding.drafters.text.fill import Jacobi
from adaspec_jax.decoding.drafters.text.lookahead import Lookahead
from adaspec_jax.decoding.drafters.text.recycling import TokenRecycling
from adaspec_jax.decoding.types import Model
from adaspec_jax.methods.method import Given, Method


def vocabulary(model: Model) -> int:
    """How many logits the model gives."""
    return jax.eval_shape(lambda model: model(jnp.zeros((1, 1), jnp.int32))[0], model).shape[-1]


def _jacobi(given: Given, *, length: int = 8, fill: int | None = None, slides: bool = True) -> Jacobi:
    if fill is None:
        fill = getattr(given.tokenizer, "pad_token_id", None) or 0
    return Jacobi(length, fill, slides)


# Neither length is the paper's, whose blocks are as long as the sentence (or 3 to 5 positions): both are ours.
JACOBI = Method(
    name="jacobi",
    drafter=_jacobi,
    paper="arXiv 2305.10427",
    knobs={"length": 8, "fill": None, "slides": True},
)
GAUSS_SEIDEL = Method(
    name="jacobi_gauss_seidel",
    drafter=_jacobi,
    paper="arXiv 2305.10427",
    knobs={"length": 5, "fill": None, "slides": False},
)
TOKEN_RECYCLING = Method(
    name="token_recycling",
    drafter=lambda given: TokenRecycling(vocabulary(given.target)),
    paper="arXiv 2408.08696",
)
LOOKAHEAD = Method(
    name="lookahead",
    drafter=lambda given, **sizes: Lookahead(vocabulary(given.target), **sizes),
    paper="arXiv 2402.02057",
    knobs={"ngram": 5, "window": 7, "guesses": 7, "from_prompt": False},  # their README's, for models of 7B
)
TAUGHT = (JACOBI, GAUSS_SEIDEL, LOOKAHEAD, TOKEN_RECYCLING)

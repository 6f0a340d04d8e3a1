"""Another number of vocabulary rows, and the row that stands for tokens that are to be guessed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax import Array

from adaspec_jax.drafter_file import BLOCK, BLOCK_MASK, MASK
from adaspec_jax.errors import UserError

RULED_OUT_BIAS = -1e4  # of a padding row's logit where the head has a bias; finite in float16


def with_rows(model: Any, vocab_size: int) -> Any:
    """`CausalLM.with_vocabulary_size`."""
    c, count = model.config, model.config.num_tokens
    if vocab_size < count:
        raise UserError(f"a vocabulary of {vocab_size} rows has no room for the tokenizer's {count} tokens")
    if vocab_size <= c.mask_token:
        raise UserError(f"a vocabulary of {vocab_size} rows has no room for the mask token {c.mask_token}")
    rows, params, said = model.params["embed"]["embedding"], dict(model.params), {"vocab_size": vocab_size}
    padded, masks, tied = _padded(rows[:count], vocab_size), c.mask_token >= count, c.tie_embeddings
    if tied and masks:  # what is read there is no mean of the tokens' rows, and what is guessed there must be
        params["head"] = {"kernel": padded.T}
        said["tie_word_embeddings"] = tied = False
    elif not tied:
        head = params["head"] = dict(model.params["head"])
        head["kernel"] = _padded(head["kernel"][:, :count].T, vocab_size).T
        if c.head_bias:
            head["bias"] = jnp.pad(head["bias"][:count], (0, vocab_size - count), constant_values=RULED_OUT_BIAS)
    if masks:
        padded = padded.at[c.mask_token].set(rows[c.mask_token])
    params["embed"] = model.params["embed"] | {"embedding": padded}
    source = json.dumps(c.hf_config() | said, sort_keys=True)
    return replace(model, params=params, config=replace(c, vocab_size=vocab_size, tie_embeddings=tied, source=source))


def with_mask_token(model: Any, token: int, block: int = 0) -> Any:
    """The same model, whose config.json names the token that stands for those to be guessed in one pass (PARD).

    `block`: how many guesses it makes of masks that see each other (SpecDec); 0: any number, of masks that do not.
    """
    said = {BLOCK_MASK: token, BLOCK: block} if block else {MASK: token}
    source = json.dumps(model.config.hf_config() | said, sort_keys=True)
    return replace(model, config=replace(model.config, mask_token=token, mask_block=block, source=source))


def _padded(rows_VD: Array, count: int) -> Array:
    """`count` rows: these, and their mean for the rest."""
    mean_1D = jnp.mean(rows_VD, axis=0, keepdims=True, dtype=jnp.float32).astype(rows_VD.dtype)
    return jnp.concatenate([rows_VD, jnp.broadcast_to(mean_1D, (count - len(rows_VD), rows_VD.shape[1]))])

"""A tiny target, reference and draft with batches of ragged rows, shared by the training tests."""

import jax
import numpy as np

from adaspec_jax import models
from adaspec_jax.config import GPTNeoX
from adaspec_jax.training import Batch, Frozen

VOCAB = 61


def model(seed, hidden=32, layers=1):
    sizes = {"num_attention_heads": 4, "intermediate_size": 2 * hidden, "initializer_range": 0.2}
    architecture = GPTNeoX(vocab_size=VOCAB, hidden_size=hidden, num_hidden_layers=layers, **sizes)
    return models.build(architecture.hf_config(), jax.random.key(seed))


def frozen():
    return Frozen(target=model(0, hidden=64), reference=model(1))


def batch(seed, rows=8, length=16):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, VOCAB, (rows, length)).astype(np.int32)
    start, end = rng.integers(1, 6, (rows, 1)), rng.integers(8, length + 1, (rows, 1))
    at = np.arange(length)[None]
    return Batch(tokens, (at >= start) & (at < end))

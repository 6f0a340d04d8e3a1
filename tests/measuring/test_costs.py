"""Measured costs: a dearer call takes longer, and lengths between two measured ones cost something between."""

import jax
import pytest

from adaspec_jax import models
from adaspec_jax.config import GPTNeoX
from adaspec_jax.measuring.costs import between, seconds_per_call, verification_seconds


def test_seconds_follow_the_work():
    sizes = {"vocab_size": 64, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
    deep, shallow = (
        models.build(GPTNeoX(num_hidden_layers=layers, **sizes).hf_config(), jax.random.key(0)) for layers in (12, 1)
    )
    shape = {"batch": 2, "slots": 64}
    assert seconds_per_call(deep, width=1, **shape) > 3 * seconds_per_call(shallow, width=1, **shape)
    measured = verification_seconds(deep, batch=2, slots=64, longest=5)
    assert list(measured) == [0, 1, 3, 5] and min(measured.values()) > 0


def test_lengths_between_are_interpolated():
    measured = {0: 1.0, 1: 1.5, 3: 2.5, 5: 2.0}
    assert [between(measured, length) for length in (0, 2, 4, 5)] == [1.0, 2.0, 2.25, 2.0]
    with pytest.raises(ValueError):
        between(measured, 6)

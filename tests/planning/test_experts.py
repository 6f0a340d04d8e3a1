"""What a mixture of experts takes, on paper: as many parameters as its tokens choose, and no product twice."""

import jax
import jax.numpy as jnp
import pytest

from adaspec_jax.config import Qwen3Moe
from adaspec_jax.models import CausalLM, config_from_hf
from adaspec_jax.models.causal_lm import parameter_shapes
from adaspec_jax.models.grouped_products import ragged_products
from adaspec_jax.planning.roofline import size_of, size_read
from adaspec_jax.planning.step_costs import flops


def test_a_call_reads_the_experts_that_its_tokens_choose():
    config = config_from_hf(Qwen3Moe().hf_config())
    model = CausalLM(parameter_shapes(config), config)
    active = size_of(model) - 48 * (128 - 8) * 3 * 2048 * 768
    assert size_read(model, 1) == pytest.approx(active) == pytest.approx(3.35e9, rel=0.01)
    assert active < size_read(model, 6) < 6 * active and size_read(model, 10_000) == pytest.approx(size_of(model))


def test_a_ragged_product_counts_each_row_once():
    rows, matrices, sizes = jnp.ones((24, 6)), jnp.ones((5, 6, 7)), jnp.array([4, 0, 10, 9, 1])
    counted = flops(jax.make_jaxpr(ragged_products)(rows, matrices, sizes), rounds=1)
    assert counted == 2 * 24 * 6 * 7
    assert jnp.allclose(ragged_products(rows, matrices, sizes), 6)

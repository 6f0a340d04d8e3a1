"""Rows by their group's matrix: both forms beside a loop over rows, whatever the groups' sizes; routers' ties."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.devices import sharding
from adaspec_jax.models import CausalLM, config_from_hf
from adaspec_jax.models.experts import MixtureMLP, chosen, mixed
from adaspec_jax.models.grouped_products import FORMS, form_of, map_groups
from tests.models.conftest import TINY_OF

SIZES = {
    "one row": [3],
    "all in one group": [2] * 40,
    "some empty": [0, 4, 4, 4, 0, 0, 4, 0] * 5,
    "even": list(range(5)) * 7,
    "many to the last": [4] * 300 + [1],
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("form", ["blocks", "ragged"])
def test_every_row_meets_its_own_matrix_and_so_do_gradients(name, form):
    draw, group_M = np.random.default_rng(0), np.array(SIZES[name])
    rows = draw.normal(size=(len(group_M), 6)).astype(np.float32)
    first, second = (draw.normal(size=shape).astype(np.float32) for shape in ((5, 6, 7), (5, 7, 3)))

    def by_group(rows, first, second):
        apply = lambda times, rows: times(jnp.tanh(times(rows, first)), second)  # noqa: E731
        return map_groups(apply, rows, jnp.asarray(group_M), groups=5, form=form)

    def by_row(rows, first, second):
        inside = jnp.tanh(jnp.einsum("mi,mio->mo", rows, first[group_M]))
        return jnp.einsum("mi,mio->mo", inside, second[group_M])

    np.testing.assert_allclose(jax.jit(by_group)(rows, first, second), by_row(rows, first, second), atol=1e-4)
    of = lambda function: jax.jit(jax.grad(lambda *xs: jnp.sum(jnp.sin(function(*xs))), (0, 1, 2)))  # noqa: E731
    for mine, other in zip(of(by_group)(rows, first, second), of(by_row)(rows, first, second), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-4)


def test_each_backend_has_its_form():
    assert (form_of("tpu"), form_of("cpu"), form_of("gpu")) == ("ragged", "blocks", "blocks")
    assert set(FORMS.values()) <= {"blocks", "ragged"}


def tiny(**keys):
    return config_from_hf(TINY_OF["qwen3_moe"] | keys)


def test_of_equal_experts_the_first_are_chosen_and_shares_sum_to_one():
    shares, experts = chosen(tiny(num_experts=4, num_experts_per_tok=2), jnp.array([[1.0, 2, 2, 2], [0, 0, 0, 0]]))
    assert experts.tolist() == [[1, 2], [0, 1]]
    np.testing.assert_allclose(shares, 0.5)
    shares, _ = chosen(tiny(num_experts=4, num_experts_per_tok=2, norm_topk_prob=False), jnp.zeros((1, 4)))
    np.testing.assert_allclose(shares, 0.25)


def test_a_router_that_cannot_decide_gives_every_call_the_same(tiny_of):
    model = tiny_of("qwen3_moe")
    flat = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.zeros_like(x) if any(k.key == "router" for k in path) else x, model.params
    )
    model, call = CausalLM(flat, model.config), jax.jit(CausalLM.__call__)
    tokens_BT = np.random.default_rng(0).integers(0, 61, (2, 12))
    expected, _ = call(model, tokens_BT)
    first, cache = call(model, tokens_BT[:, :7], model.init_cache(2, 16))
    rest, _ = call(model, tokens_BT[:, 7:], cache)
    np.testing.assert_allclose(np.concatenate([first, rest], axis=1), expected, atol=5e-5)


@pytest.mark.parametrize("form", ["blocks", "ragged"])
@pytest.mark.parametrize("shape", [(2, 2, 2), (8, 1, 1), (1, 1, 4)])
def test_on_a_mesh_the_same_values_and_gradients_come_out(form, shape):
    config = dataclasses.replace(tiny(), expert_products=form)
    draw = np.random.default_rng(0)
    hidden_BTD = draw.normal(size=(8, 5, 32)).astype(np.float32)
    shapes = {"router/kernel": (32, 8), "experts/up": (8, 32, 24), "experts/gate": (8, 32, 24)}
    shapes["experts/down"] = (8, 24, 32)
    params = {name: 0.3 * draw.normal(size=size).astype(np.float32) for name, size in shapes.items()}

    def loss(params, hidden_BTD):
        tree = {"router": {"kernel": params["router/kernel"]}}
        tree["experts"] = {name: params[f"experts/{name}"] for name in ("up", "gate", "down")}
        made = MixtureMLP(config).apply({"params": tree}, hidden_BTD)
        return jnp.sum(jnp.sin(made)), made

    step = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    expected = jax.device_get(step(params, hidden_BTD))
    alone = jax.jit(mixed, static_argnums=0)(config, hidden_BTD, *params.values())
    np.testing.assert_allclose(expected[0][1], alone, atol=1e-4)
    mesh = sharding.make_mesh(*shape)
    placed = sharding.shard(params, mesh)
    assert any(not leaf.sharding.is_fully_replicated for leaf in placed.values()) == (shape != (8, 1, 1))
    with sharding.over(mesh):
        found = jax.device_get(step(placed, sharding.shard_rows(hidden_BTD, mesh)))
    for mine, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)

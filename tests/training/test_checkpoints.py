"""Checkpoints hold what was there when they were asked for, on any layout of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.devices import sharding
from adaspec_jax.errors import UserError
from adaspec_jax.training import Checkpoints, adamw, init_state
from tests.training import setting


def test_a_donated_state_does_not_change_the_checkpoint_being_written(tmp_path):
    change = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    state = {"a": jnp.arange(3_000_000, dtype=jnp.float32), "b": jnp.ones((1000, 1000))}
    expected = jax.tree.map(np.array, state)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(7, state, {"next_index": 3})
    state = jax.block_until_ready(change(state))
    checkpoints.close()
    step, restored, position = Checkpoints(tmp_path).restore(state)
    assert (step, position) == (7, {"next_index": 3})
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


def test_a_checkpoint_of_one_device_resumes_on_eight(tmp_path):
    state = init_state(setting.model(2), adamw(1e-2), jax.random.key(3))
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(state) is None
    checkpoints.save(1, state, {"next_index": 1})
    checkpoints.save(2, state, {"next_index": 2})
    checkpoints.save(3, state, {"next_index": 3})
    checkpoints.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]  # the last two
    spread = sharding.shard(state, sharding.make_mesh(2, 2, 2))
    _, restored, _ = Checkpoints(tmp_path).restore(spread)
    for ours, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(spread), strict=True):
        assert ours.sharding == wanted.sharding
        np.testing.assert_array_equal(
            jax.random.key_data(ours) if ours.dtype == state.key.dtype else ours,
            jax.random.key_data(wanted) if wanted.dtype == state.key.dtype else wanted,
        )


def test_a_checkpoint_of_another_model_or_optimiser_is_refused_in_one_line(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, init_state(setting.model(2), adamw(1e-2), jax.random.key(3)), {"next_index": 1})
    checkpoints.close()
    wider = init_state(setting.model(2, hidden=64), adamw(1e-2), jax.random.key(3))
    factored = init_state(setting.model(2), adamw(1e-2, moments="factored"), jax.random.key(3))
    stacked = init_state(setting.model(2).stacked(), adamw(1e-2), jax.random.key(3))
    for other in (wider, factored, stacked):
        with pytest.raises(UserError, match="the checkpoint there is not one of this model and optimiser"):
            Checkpoints(tmp_path).restore(other)

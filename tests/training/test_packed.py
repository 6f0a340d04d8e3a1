"""Examples that share rows give the loss, the metrics and the gradients that they give in rows of their own."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import data, models
from adaspec_jax.data.batches import pad
from adaspec_jax.devices import sharding
from adaspec_jax.models.causal_lm import parameter_shapes
from adaspec_jax.training import Batch, Chunking, Frozen, adamw, adapting, init_lora, init_state, make_step, objectives
from adaspec_jax.training.divergences import forward_kl, reverse_kl
from adaspec_jax.training.selection import bottom
from tests.models.conftest import TINY_OF
from tests.running import slow
from tests.training import setting

LONGEST, LENGTH = 24, 48  # of examples, and of rows that they share


def examples(count=20, seed=0):
    draw = np.random.default_rng(seed)
    rows = []
    for length in draw.integers(3, LONGEST + 1, count):
        labels = draw.random(length) < 0.6
        labels[0], labels[-1] = False, True
        tokens = draw.integers(0, setting.VOCAB, length).astype(np.int32)
        rows.append(data.Encoded(tokens, int(np.argmax(labels)), labels))
    return rows


@pytest.fixture(scope="module")
def apart():
    return Batch(**pad(examples(), LONGEST, 0))


@pytest.fixture(scope="module")
def together():
    rows = data.packed(examples(), LENGTH, seed=0)
    assert sorted(int(row.segments[-1]) for row in rows) == [2, 3, 3, 3, 3, 6]
    return Batch(**pad(rows, LENGTH, 0))


@pytest.fixture(scope="module")
def frozen():
    return setting.frozen()


def value_of(objective, model, frozen, batch):
    """(loss, metrics, gradients) of a jitted objective."""

    @jax.jit
    def value(params, frozen, batch):
        loss = lambda params: objective(replace(model, params=params), frozen, batch)  # noqa: E731
        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, metrics), gradients = value(model.params, frozen, batch)
    return loss, metrics, gradients


def check_equal(ours, theirs):
    (loss, metrics, gradients), (other_loss, other_metrics, others) = ours, theirs
    np.testing.assert_allclose(loss, other_loss, rtol=1e-5)
    for name in other_metrics:
        np.testing.assert_allclose(metrics[name], other_metrics[name], rtol=1e-5, err_msg=name)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(others))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * scale), gradients, others)


OBJECTIVES = {
    "fine_tune": objectives.fine_tune,
    "distill": objectives.distill,
    "selective": objectives.selective_distill,
    "selective official": partial(objectives.selective_distill, normalize="official"),
    "selective sequence": partial(objectives.selective_distill, scope="sequence"),
    "selective bottom sequence": partial(objectives.selective_distill, scope="sequence", rule=bottom),
    "selective reverse": partial(objectives.selective_distill, reverse_kl),
}


@pytest.mark.parametrize(
    "name",
    [
        *("fine_tune", "selective official", "selective sequence"),
        *map(slow, ("distill", "selective", "selective bottom sequence", "selective reverse")),
    ],
)
def test_a_pack_is_worth_its_examples(name, apart, together, frozen):
    model, objective = setting.model(2, layers=2), OBJECTIVES[name]()
    ours, theirs = (value_of(objective, model, frozen, batch) for batch in (together, apart))
    check_equal(ours, theirs)
    assert ours[1]["tokens"] == together.loss_mask_BT.sum() == apart.loss_mask_BT.sum()
    if name.startswith("selective"):
        assert 0.35 < ours[1]["share_kept"] < 0.6  # a choice was made


@pytest.mark.parametrize("stacked", [False, slow(True)])
@pytest.mark.parametrize("family", ["gpt2", *map(slow, sorted(TINY_OF.keys() - {"gpt2"}))])
def test_gradients_of_every_family_are_those_of_rows_of_their_own(family, stacked, apart, together):
    config, draw = models.config_from_hf(TINY_OF[family]), np.random.default_rng(0)
    leaf = lambda shape: jnp.asarray(0.3 * draw.normal(size=shape.shape), shape.dtype)  # noqa: E731
    model = models.CausalLM(jax.tree.map(leaf, parameter_shapes(config)), config)
    model = model.stacked() if stacked else model
    check_equal(*(value_of(objectives.fine_tune(), model, None, batch) for batch in (together, apart)))


@pytest.mark.parametrize("how", ["parts", slow("rematerialised"), "adapters", slow("scanned")])
def test_ways_to_save_memory_leave_packs_as_they_are(how, apart, together, frozen):
    model, objective = setting.model(2, layers=2), objectives.selective_distill
    plain = value_of(objective(), model, frozen, apart)
    if how == "parts":
        check_equal(value_of(objective(micro_batches=3), model, frozen, together), plain)
    elif how == "adapters":
        lora = init_lora(model, 2, jax.random.key(0))
        given = replace(frozen, base=model)
        check_equal(*(value_of(adapting(objective()), lora, given, batch) for batch in (together, apart)))
    else:
        model = model.stacked().with_rematerialisation(how == "rematerialised")
        loss, metrics, gradients = value_of(objective(micro_batches=2), model, frozen, together)
        check_equal((loss, metrics, models.CausalLM(gradients, model.config).unstacked().params), plain)


def test_what_a_store_holds_of_a_pack_is_what_the_step_computes(together, frozen):
    model, objective = setting.model(2), objectives.selective_distill()
    computed = value_of(objective, model, frozen, together)
    hidden_BTD = frozen.target.features(together.tokens_BT, segments_BT=together.segments_BT)[0]
    divergence_BT = objectives.divergence_at_labels(forward_kl, frozen.reference, frozen.target, together)
    stored = replace(together, target_hidden_BTD=hidden_BTD, reference_divergence_BT=divergence_BT)
    check_equal(value_of(objective, model, Frozen(frozen.target.unembedding()), stored), computed)
    ids_BTK, log_probs_BTK = objectives.top_k_at_labels(frozen.target, together, setting.VOCAB)
    likeliest = replace(
        together,
        target_ids_BTK=ids_BTK,
        target_log_probs_BTK=log_probs_BTK,
        reference_divergence_BT=divergence_BT,
    )
    loss, _, _ = value_of(objective, model, Frozen(), likeliest)
    np.testing.assert_allclose(loss, computed[0], rtol=1e-3)


def test_packs_on_eight_devices_give_the_losses_of_one(frozen):
    rows = data.packed(examples(60), LENGTH, seed=0)
    batches = list(data.train_batches(rows, batch_size=8, epochs=1, seed=0, buckets=(LENGTH,), pad_id=0))

    def losses(mesh, groups):
        put = lambda x: sharding.shard(x, mesh)  # noqa: E731
        optimizer = adamw(1e-2)
        objective = objectives.selective_distill(scope="sequence", chunking=Chunking(tokens=4, groups=groups))
        state, step = put(init_state(setting.model(2), optimizer, jax.random.key(0))), make_step(objective, optimizer)
        found = []
        with sharding.over(mesh):
            for batch in batches:
                state, metrics = step(state, put(frozen), sharding.shard_rows(Batch(**batch), mesh))
                found.append(float(metrics["loss"]))
        return found

    one, many = losses(sharding.make_mesh(1), 1), losses(sharding.make_mesh(4, 2), 8)
    np.testing.assert_allclose(many, one, rtol=1e-5)
    assert len(one) == len(batches) >= 2

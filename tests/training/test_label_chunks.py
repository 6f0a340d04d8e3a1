"""Chunked losses: equal to those of whole logits, in value, gradient and metrics, in memory that V does not govern."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaspec_jax import models
from adaspec_jax.config import GPTNeoX
from adaspec_jax.training import Batch, Frozen, objectives
from adaspec_jax.training.divergences import DIVERGENCES, forward_kl, gap
from adaspec_jax.training.label_chunks import Chunking, total_at, values_at
from adaspec_jax.training.selection import select_top_fraction
from tests.running import slow
from tests.training import setting

SMALL = Chunking(tokens=16)
CHUNKINGS = [Chunking(logits=setting.VOCAB * 7), Chunking(logits=1), Chunking(tokens=16, groups=4)]


def whole_logits(model, batch):
    return model(batch.tokens_BT)[0][:, :-1]


def mean(values_BT, mask_BT):
    return jnp.sum(values_BT * mask_BT) / mask_BT.sum()


def naive_fine_tune(model, frozen, batch):
    losses_BT = optax.losses.softmax_cross_entropy_with_integer_labels(
        whole_logits(model, batch), batch.tokens_BT[:, 1:]
    )
    return mean(losses_BT, batch.loss_mask_BT[:, 1:])


def naive_distill(divergence, model, frozen, batch):
    losses_BT = divergence(whole_logits(model, batch), whole_logits(frozen.target, batch))
    return mean(losses_BT, batch.loss_mask_BT[:, 1:])


def naive_selective(divergence, model, frozen, batch):
    logits, reference, target = (whole_logits(m, batch) for m in (model, frozen.reference, frozen.target))
    gap_BT = gap(divergence, jax.lax.stop_gradient(logits), reference, target)
    kept_BT = select_top_fraction(gap_BT, batch.loss_mask_BT[:, 1:], 0.4)
    return mean(divergence(logits, target), kept_BT)


PAIRS = {
    "fine_tune": (naive_fine_tune, objectives.fine_tune),
    "distill": (partial(naive_distill, forward_kl), objectives.distill),
}
for name, function in DIVERGENCES.items():
    PAIRS[f"selective {name}"] = (partial(naive_selective, function), partial(objectives.selective_distill, function))


QUICK = [("fine_tune", SMALL), ("distill", SMALL), ("selective total_variation", SMALL)]
QUICK += [("selective forward_kl", chunking) for chunking in CHUNKINGS]
REST = [slow(name, SMALL) for name in PAIRS if (name, SMALL) not in QUICK]


@pytest.mark.parametrize("name, chunking", [*QUICK, *REST])
def test_value_and_gradient_equal_those_of_whole_logits(name, chunking):
    naive, make = PAIRS[name]
    model, frozen, batch = setting.model(2), setting.frozen(), setting.batch(0)
    expected, d_expected = jax.jit(jax.value_and_grad(naive))(model, frozen, batch)
    objective = make(chunking=chunking)
    (loss, metrics), d_loss = jax.jit(jax.value_and_grad(objective, has_aux=True))(model, frozen, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert metrics["tokens"] == batch.loss_mask_BT[:, 1:].sum()
    for ours, theirs in zip(jax.tree.leaves(d_loss), jax.tree.leaves(d_expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("knobs", [{"tie_word_embeddings": True}, {}], ids=["tied", "untied"])
def test_a_tied_matrix_gets_both_of_its_gradients(knobs):
    architecture = GPTNeoX(vocab_size=61, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    model = models.build(architecture.hf_config() | knobs, jax.random.key(0))
    frozen, batch = setting.frozen(), setting.batch(1)
    objective = objectives.distill(chunking=Chunking(tokens=9))
    ours, _ = jax.jit(jax.grad(objective, has_aux=True))(model, frozen, batch)
    theirs = jax.jit(jax.grad(partial(naive_distill, forward_kl)))(model, frozen, batch)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), ours, theirs)


def test_metrics_are_those_of_whole_logits():
    model, frozen, batch = setting.model(2), setting.frozen(), setting.batch(3)
    logits, target = whole_logits(model, batch), whole_logits(frozen.target, batch)
    mask_BT = batch.loss_mask_BT[:, 1:]
    _, metrics = objectives.selective_distill(chunking=Chunking(tokens=16))(model, frozen, batch)
    agreement = mean(logits.argmax(-1) == target.argmax(-1), mask_BT)
    np.testing.assert_allclose(metrics["agreement"], agreement, rtol=1e-6)
    kl = metrics["share_kept"] * metrics["kl_kept"] + (1 - metrics["share_kept"]) * metrics["kl_dropped"]
    np.testing.assert_allclose(kl, mean(forward_kl(logits, target), mask_BT), rtol=1e-5)
    accuracy = objectives.fine_tune()(model, Frozen(), batch)[1]["accuracy"]
    np.testing.assert_allclose(accuracy, mean(logits.argmax(-1) == batch.tokens_BT[:, 1:], mask_BT), rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 4])
def test_only_labels_are_visited_and_a_batch_without_any_costs_nothing(groups):
    rng = np.random.default_rng(0)
    labels_BT, x_BTD = rng.random((8, 16)) < 0.3, rng.normal(size=(8, 16, 2)).astype(np.float32)
    chunking = Chunking(tokens=8, groups=groups)
    poisoned_BTD = np.where(labels_BT[..., None], x_BTD, np.nan)
    visited = values_at(labels_BT, lambda x: {"sum": x.sum(-1)}, poisoned_BTD, vocab_size=8, chunking=chunking)
    np.testing.assert_allclose(visited["sum"], np.where(labels_BT, x_BTD.sum(-1), 0), rtol=1e-6)

    def total(scale, x_BTD, labels_BT):
        square = lambda scale, x_GCD, label_GC, power: (scale * x_GCD.sum(-1) ** power, {"seen": label_GC})  # noqa: E731
        return total_at(labels_BT, square, scale, x_BTD, labels_BT, 2, vocab_size=8, chunking=chunking)

    scale = jnp.float32(3)
    (value, seen), (d_scale, d_x) = jax.value_and_grad(total, (0, 1), has_aux=True)(scale, x_BTD, labels_BT)
    squares = np.where(labels_BT, x_BTD.sum(-1) ** 2, 0)
    np.testing.assert_allclose([value, d_scale], [3 * squares.sum(), squares.sum()], rtol=1e-5)
    np.testing.assert_allclose(d_x[..., 0], np.where(labels_BT, 6 * x_BTD.sum(-1), 0), rtol=1e-5)
    np.testing.assert_array_equal(seen["seen"], labels_BT)
    value, gradients = jax.value_and_grad(lambda *a: total(*a)[0], (0, 1))(scale, x_BTD, np.zeros_like(labels_BT))
    assert value == 0 and not any(np.any(g) for g in gradients)


def test_rows_that_do_not_divide_into_the_groups_are_refused():
    with pytest.raises(ValueError, match="8 rows does not divide into 3"):
        objectives.distill(chunking=Chunking(groups=3))(setting.model(2), setting.frozen(), setting.batch(0))


def test_bfloat16_models_are_summed_in_float32():
    frozen, batch = setting.frozen(), setting.batch(0)
    model, target = setting.model(2).astype(jnp.bfloat16), frozen.target.astype(jnp.bfloat16)
    frozen = replace(frozen, target=target)
    expected, d_expected = jax.jit(jax.value_and_grad(partial(naive_distill, forward_kl)))(model, frozen, batch)
    objective = objectives.distill(chunking=Chunking(tokens=8))
    (loss, _), d_loss = jax.jit(jax.value_and_grad(objective, has_aux=True))(model, frozen, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    ours, theirs = (
        np.concatenate([np.ravel(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(tree)])
        for tree in (d_loss, d_expected)
    )
    assert np.linalg.norm(ours - theirs) < 0.01 * np.linalg.norm(theirs)


def temporary_bytes(vocab_size: int, objective, length: int = 128) -> int:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = GPTNeoX(vocab_size=vocab_size, **sizes).hf_config()
    model = jax.eval_shape(lambda key: models.build(config, key), jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((8, length), jnp.int32)
    batch = Batch(tokens, jax.ShapeDtypeStruct((8, length), jnp.bool_))
    frozen = Frozen(target=model, reference=model)
    gradient = jax.jit(jax.grad(lambda m, f, b: objective(m, f, b)[0]))
    return gradient.lower(model, frozen, batch).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_chunk_and_not_with_tokens_times_vocabulary():
    """8 x 128 tokens: whole logits would take 206 MB a model at V = 50304, and 622 MB at 151936."""
    objective = objectives.selective_distill(chunking=Chunking(logits=2**20))
    # The gradient of the output matrix, which has V columns, is held twice (its sum, and one chunk's share).
    excess = {v: temporary_bytes(v, objective) - 2 * 4 * 32 * v for v in (50304, 151936)}
    assert excess[151936] < 1.2 * excess[50304] < 80e6
    wide = temporary_bytes(50304, objectives.selective_distill(chunking=Chunking(logits=2**23)))
    assert wide > temporary_bytes(50304, objective) + 2**23 * 4

"""A stop head on a draft model: its labels, its loss, and where it stands in a round."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from adaspec_jax import models
from adaspec_jax.errors import UserError
from adaspec_jax.training import Frozen
from adaspec_jax.training.label_chunks import DEFAULT
from adaspec_jax.training.objectives import Now, Stopping, fit_stop_head
from adaspec_jax.training.objectives.labels import features_in_parts
from adaspec_jax.training.objectives.stop_head import stop_labels
from tests.training.test_masked import VOCABULARY, a_model, batch, minimised  # noqa: F401

KEPT = 0.25


@pytest.fixture(scope="module")
def frozen():
    return Frozen(
        target=a_model(0), reference=a_model(1, num_hidden_layers=1), now=Now(jnp.int32(0), jax.random.key(9))
    )


@pytest.fixture(scope="module")
def head():
    made = models.StopHead.new(jax.random.key(2), 16, depth=2)
    return dataclasses.replace(made, params=jax.tree.map(lambda x: x + 0.1, made.params))


def labelled(frozen, batch, key, kept=KEPT):  # noqa: F811
    return [np.asarray(x) for x in drawn_at(frozen.reference, frozen.target, batch, key, kept)]


@jax.jit
def drawn_at(draft, target, batch, key, kept):  # noqa: F811
    how = {"sizes": {"vocab_size": VOCABULARY, "chunking": DEFAULT}, "features": features_in_parts(1, DEFAULT)}
    return stop_labels(draft, target, batch, key, kept, **how)


def along(model, tokens_BT):
    return np.asarray(jax.nn.softmax(model(tokens_BT)[0]), np.float64)


def test_labels_are_how_likely_the_drafts_own_samples_stay_along_the_text(frozen, batch):  # noqa: F811
    q, p, text = (
        along(frozen.reference, batch.tokens_BT),
        along(frozen.target, batch.tokens_BT),
        np.asarray(batch.tokens_BT),
    )
    drawn, kept, labels = np.zeros((2, VOCABULARY)), [], np.asarray(batch.loss_mask_BT)
    for seed in range(300):
        tokens, stays, told = labelled(frozen, batch, jax.random.key(seed))
        assert (told <= labels).all() and (tokens == text)[~told].all()
        row, place = np.nonzero(told)
        sampled = tokens[row, place]
        expected = np.minimum(1, p[row, place - 1, sampled] / q[row, place - 1, sampled])
        np.testing.assert_allclose(stays[row, place], expected, rtol=1e-4)
        kept.append(1 - told.sum() / labels.sum())
        for n, (row, place) in enumerate(((0, 3), (1, 11))):
            drawn[n, tokens[row, place]] += told[row, place]
    assert abs(np.mean(kept) - KEPT) < 0.02
    for n, (row, place) in enumerate(((0, 3), (1, 11))):  # and they follow the draft's law
        share = drawn[n] / drawn[n].sum()
        assert np.abs(share - q[row, place - 1]).sum() / 2 < 0.15


def test_loss_and_gradient_norm_are_those_of_a_reading_in_pytorch(frozen, head, batch):  # noqa: F811
    loss, metrics, gradient = minimised(fit_stop_head(stopping=Stopping(kept=KEPT)), head, frozen, batch)
    tokens, stays, told = labelled(frozen, batch, jax.random.fold_in(frozen.now.key, 2))
    hidden = torch.tensor(np.asarray(frozen.reference.features(jnp.asarray(tokens))[0]))
    leaves = {name: torch.tensor(np.asarray(x).copy(), requires_grad=True) for name, x in (
        ("w", head.params["block"]["kernel"]), ("b", head.params["block"]["bias"]),
        ("o", head.params["out"]["kernel"]), ("c", head.params["out"]["bias"]))}  # fmt: skip
    for _ in range(2):
        hidden = hidden + torch.nn.functional.silu(hidden @ leaves["w"] + leaves["b"])
    logits = (hidden @ leaves["o"] + leaves["c"])[torch.tensor(told)]
    stays = torch.tensor(stays[told])
    both = [torch.nn.functional.cross_entropy(logits, torch.full(stays.shape, n), reduction="none") for n in (0, 1)]
    goes = 1 - stays
    expected = (6 * both[0] * goes + both[1] * stays).sum() / (6 * goes.sum() + stays.sum())
    expected.backward()
    norm = sum(float(leaf.grad.square().sum()) for leaf in leaves.values()) ** 0.5
    np.testing.assert_allclose([loss, optax_norm(gradient)], [float(expected.detach()), norm], rtol=2e-4)
    assert metrics["tokens"] == told.sum()


def optax_norm(tree):
    return sum(float(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(tree)) ** 0.5


def test_only_the_head_is_fitted_and_it_learns_what_stays(frozen, head, batch):  # noqa: F811
    objective = fit_stop_head(stopping=Stopping(kept=0.0, weight=1.0))

    @jax.jit
    def step(params, key, target, reference):
        now = Frozen(target=target, reference=reference, now=Now(jnp.int32(0), key))
        loss = lambda params: objective(dataclasses.replace(head, params=params), now, batch)[0]  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda x, g: x - 0.05 * g, params, gradient), value

    params, losses = head.params, []
    for number in range(200):
        params, value = step(params, jax.random.key(number), frozen.target, frozen.reference)
        losses.append(float(value))
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.02


def test_a_stop_head_is_read_back_to_the_bit_and_another_drafts_is_refused(head, tmp_path):
    models.save_stop_head(head, tmp_path, draft="a" * 64)
    back = models.load_stop_head(tmp_path, 16)
    assert back.depth == head.depth and models.load_stop_head(tmp_path / "none", 16) is None
    jax.tree.map(np.testing.assert_array_equal, back.params, head.params)
    with pytest.raises(UserError, match="block.weight is .16, 16., and for this draft it must be .32, 32."):
        models.load_stop_head(tmp_path, 32)
    (tmp_path / "stop_head.json").write_text('{"kind": "other"}')
    with pytest.raises(UserError, match="describes no stop head"):
        models.load_stop_head(tmp_path, 16)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [({"kept": 1.0}, "kept is 1.0"), ({"weight": 0.0}, "weight is 0.0"), ({"depth": -1}, "depth is -1")],
)
def test_impossible_numbers_are_refused(knobs, says):
    with pytest.raises(ValueError, match=says):
        Stopping(**knobs)

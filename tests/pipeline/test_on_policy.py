"""Answers that the model samples itself: after the batch's prompts, by its own law, and in the share asked for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.pipeline.on_policy import on_policy
from adaspec_jax.training import Batch, adamw, init_state, make_step, objectives
from tests.training import setting

EOS = 3


@pytest.fixture(scope="module")
def model():
    return setting.model(5, layers=2)


@pytest.mark.parametrize("stacked", [False, True])
def test_greedy_answers_are_those_of_plain_decoding(model, stacked):
    batch = setting.batch(1, rows=6, length=24)
    rewrite = on_policy(max_new_tokens=9, temperature=0.0, eos_id=EOS)
    given = model.stacked().with_rematerialisation(True) if stacked else model
    ours = jax.jit(rewrite)(given, batch, jax.random.key(0))
    prompts = np.argmax(batch.loss_mask_BT, axis=1)
    theirs = generate(
        model,
        NoDraft(),
        Context(batch.tokens_BT, prompts),
        jax.random.key(0),
        max_new_tokens=9,
        sampling=Sampling(0.0),
        eos_id=EOS,
    )
    for b, start in enumerate(prompts):
        end = min(int(theirs.lengths_B[b]), 24)
        np.testing.assert_array_equal(ours.tokens_BT[b, :end], theirs.tokens_BS[b, :end])
        np.testing.assert_array_equal(np.nonzero(ours.loss_mask_BT[b])[0], np.arange(start, end))


def test_sampled_answers_follow_the_models_law(model):
    """The first answer token of many equal prompts against the model's own distribution."""
    stats = pytest.importorskip("scipy.stats")
    rows = 4096
    tokens = np.tile(np.arange(8, dtype=np.int32)[None], (rows, 1))
    mask = np.tile((np.arange(8) >= 5)[None], (rows, 1))
    rewrite = on_policy(max_new_tokens=2, temperature=1.5, eos_id=-1)
    ours = jax.jit(rewrite)(model, Batch(tokens, mask), jax.random.key(0))
    law = np.asarray(jax.nn.softmax(model(tokens[:1])[0][0, 4] / 1.5), np.float64) * rows
    seen = np.bincount(np.asarray(ours.tokens_BT)[:, 5], minlength=len(law))
    common = law >= 5
    observed, expected = np.append(seen[common], seen[~common].sum()), np.append(law[common], law[~common].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    assert stats.chisquare(observed, expected * rows / expected.sum()).pvalue > 1e-4


def test_a_mixture_takes_its_share_of_the_steps(model):
    batch = setting.batch(2)
    rewrite = jax.jit(on_policy(max_new_tokens=4, temperature=1.0, eos_id=-1, share=0.25))
    changed = [
        not np.array_equal(rewrite(model, batch, jax.random.key(n)).tokens_BT, batch.tokens_BT) for n in range(120)
    ]
    assert 0.12 < np.mean(changed) < 0.40


def test_training_on_its_own_answers_lowers_the_divergence_there():
    optimizer, frozen = adamw(1e-2), dataclasses.replace(setting.frozen(), reference=None)
    rewrite = on_policy(max_new_tokens=8, temperature=1.0, eos_id=-1)
    step = make_step(objectives.distill(), optimizer, rewrite=rewrite)
    state = init_state(setting.model(2), optimizer, jax.random.key(0))
    losses = []
    for number in range(40):
        state, metrics = step(state, frozen, setting.batch(number % 4))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert jnp.isfinite(jnp.asarray(losses)).all()

"""Blocks of masks that see each other (SpecDec): who sees whom, what is revealed, and what a step minimises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.training import Frozen
from adaspec_jax.training.objectives import MASKS, Now, distill_masked
from adaspec_jax.training.objectives.mask_slots import slots_of
from adaspec_jax.training.objectives.revealing import glanced
from tests.training.test_masked import MASK, ROWS, a_model, batch, draft, minimised  # noqa: F401 (fixtures)

WHOLE = dataclasses.replace(MASKS["specdec"], guesses=4, keep=1.0, reveal=0.0, reveal_last=0.0)


def block_log_laws(model, tokens, begin, held):
    """[K, V]: what a model says at a text's last token and at what stands for those after it, all of which see all."""
    own, end = begin + 1, begin + 1 + len(held)
    hidden = read_as_block(model, [*map(int, tokens[:own]), *held], own)
    return np.asarray(jax.nn.log_softmax(model.unembed(hidden)), np.float64)[begin:end]


def read_as_block(model, tokens, own, room=24):
    """[T, D] of tokens of which those from `own` on see all; at one length, so that there is one shape to compile."""
    seen = np.tril(np.ones((room, room), bool))
    seen[own : len(tokens), own : len(tokens)] = True
    read = np.pad(tokens, (0, room - len(tokens)))
    return model.features(jnp.asarray([read]), mask_BTS=jnp.asarray(seen[None]))[0][0]


def chains(batch, guesses):  # noqa: F811
    """(row, begin, how many of its guesses are of labels) of every chain."""
    labels = np.asarray(batch.loss_mask_BT)
    for row in range(len(labels)):
        for begin in range(labels.shape[1] - 1):
            of = [
                begin + d + 1 < labels.shape[1] and labels[row, begin + 1 : begin + d + 2].all() for d in range(guesses)
            ]
            if of[0]:
                yield row, begin, sum(of)


def test_every_mask_sees_its_whole_block_as_decoding_has_it(draft, batch):  # noqa: F811
    frozen, total, number = Frozen(target=a_model(0)), 0.0, 0
    for row, begin, count in chains(batch, 4):
        tokens = np.asarray(batch.tokens_BT[row])
        laws = block_log_laws(draft, tokens, begin, [MASK] * 3)
        total -= sum(laws[d, tokens[begin + d + 1]] for d in range(count))
        number += count
    loss, metrics, _ = minimised(distill_masked(masks=WHOLE), draft, frozen, batch)
    assert metrics["tokens"] == number
    np.testing.assert_allclose(loss, total / number, rtol=1e-5)


def revealed(batch, right, share, seed=3):  # noqa: F811
    slots = slots_of(batch, WHOLE, MASK, jax.random.key(0))
    right_BX = jnp.full(slots.tokens_BX.shape, right)
    return slots, glanced(slots, jnp.asarray(batch.tokens_BT), right_BX, share, jax.random.key(seed))


def test_as_many_are_revealed_as_wrong_guesses_call_for_and_none_of_them_counts(batch):  # noqa: F811
    slots, after = revealed(batch, False, 0.5)
    own = (slots.chain_X < 0).sum()
    np.testing.assert_array_equal(after.label_BX[:, :own], slots.label_BX[:, :own])
    tokens, seen = np.asarray(batch.tokens_BT), 0
    for row in range(ROWS):
        for chain in range(slots.chain_X.max() + 1):
            at = np.flatnonzero(slots.chain_X == chain)
            labels, left = (np.asarray(each.label_BX[row])[at] for each in (slots, after))
            held = np.asarray(after.tokens_BX[row])[at]
            shown = np.flatnonzero(held != MASK)
            assert len(shown) == labels.sum() // 2  # half of its wrong guesses, all of which are
            for d in shown:  # the mask at depth d + 1 stands for the label of the guess before it
                assert held[d] == tokens[row, int(after.places_BX[row, at[d]])]
                assert d == 0 or (labels[d - 1] and not left[d - 1])
            assert left.sum() == labels.sum() - (shown > 0).sum()
            seen += len(shown)
    assert seen > 10
    other = revealed(batch, False, 0.5, seed=4)[1]
    assert (np.asarray(other.tokens_BX) != np.asarray(after.tokens_BX)).any()


@pytest.mark.parametrize(("right", "share"), [(True, 1.0), (False, 0.0)])
def test_what_is_right_or_not_asked_for_stays_a_mask(batch, right, share):  # noqa: F811
    slots, after = revealed(batch, right, share)
    np.testing.assert_array_equal(after.tokens_BX, slots.tokens_BX)
    np.testing.assert_array_equal(after.label_BX, slots.label_BX)


def test_a_step_looks_first_and_is_scored_on_what_it_was_not_shown(draft, batch):  # noqa: F811
    """Read chain by chain: the first look's wrong guesses, the tokens shown, the second look's loss."""
    masks = dataclasses.replace(WHOLE, reveal=0.9, reveal_last=0.5)
    now = Now(jnp.int32(9), jax.random.key(6))
    frozen = Frozen(target=a_model(0), now=now)
    slots = slots_of(batch, masks, MASK, jax.random.fold_in(now.key, 1))
    right = np.zeros(slots.tokens_BX.shape, bool)
    for row in range(ROWS):
        tokens = np.asarray(batch.tokens_BT[row])
        for x in range(len(slots.depth_X)):
            begin, depth = int(slots.begins_BX[row, x]), int(slots.depth_X[x])
            if slots.label_BX[row, x]:
                laws = block_log_laws(draft, tokens, begin, [MASK] * 3)
                right[row, x] = laws[depth].argmax() == tokens[begin + depth + 1]
    share = 0.9 - 0.4 * 9 / 19  # of 20 batches, the tenth
    args = (slots, jnp.asarray(batch.tokens_BT), jnp.asarray(right), share, jax.random.fold_in(now.key, 2))
    after = glanced(*args)
    total = number = 0.0
    for row in range(ROWS):
        tokens = np.asarray(batch.tokens_BT[row])
        for x in np.flatnonzero(np.asarray(after.label_BX[row])):
            begin, depth, chain = int(slots.begins_BX[row, x]), int(slots.depth_X[x]), slots.chain_X[x]
            held = np.asarray(after.tokens_BX[row])[slots.chain_X == chain] if chain >= 0 else [MASK] * 3
            total -= block_log_laws(draft, tokens, begin, held)[depth, tokens[begin + depth + 1]]
            number += 1
    assert (np.asarray(after.tokens_BX) != np.asarray(slots.tokens_BX)).sum() > 5
    loss, metrics, gradient = minimised(distill_masked(masks=masks, steps=20), draft, frozen, batch)
    assert metrics["tokens"] == number
    np.testing.assert_allclose(loss, total / number, rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))

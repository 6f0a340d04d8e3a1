"""A draft that guesses at mask tokens: what it minimises, against plain readings of it and plain distillation."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.divergences import reverse_kl
from adaspec_jax.training.objectives import Masks, Now, distill, distill_masked, selective_distill
from adaspec_jax.training.objectives.mask_slots import slots_of

VOCABULARY, MASK, LENGTH, ROWS = 24, 22, 17, 3
LLAMA = {"model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24}
LLAMA |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
LLAMA |= {"initializer_range": 0.3}


def a_model(seed, **keys):
    return models.with_mask_token(models.build(LLAMA | keys, jax.random.key(seed)), MASK)


@pytest.fixture(scope="module")
def frozen():
    return Frozen(target=a_model(0), reference=a_model(1))


@pytest.fixture(scope="module")
def draft():
    return a_model(2, num_hidden_layers=1)


@pytest.fixture(scope="module")
def batch():
    tokens_BT = jax.random.randint(jax.random.key(3), (ROWS, LENGTH), 0, 20)
    labels_BT = np.zeros((ROWS, LENGTH), bool)
    for row, spans in enumerate([[(3, 17)], [(6, 12)], [(1, 4), (8, 15)]]):
        for start, end in spans:
            labels_BT[row, start:end] = True
    return Batch(tokens_BT, jnp.asarray(labels_BT))


def minimised(objective, draft, frozen, batch):
    """(loss, metrics, gradient)."""

    def loss(params):
        return objective(dataclasses.replace(draft, params=params), frozen, batch)

    (value, metrics), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(draft.params)
    return value, metrics, gradient


def same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def close(ours, theirs, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=2e-4), ours, theirs)


ONE = Masks(guesses=1, tokens=0.0, laws=1.0)


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_with_one_guess_it_is_plain_distillation_to_the_bit(draft, frozen, batch, micro_batches):
    how = {"micro_batches": micro_batches}
    ours, theirs = (
        minimised(each, draft, frozen, batch) for each in (distill_masked(masks=ONE, **how), distill(**how))
    )
    same((ours[0], ours[2]), (theirs[0], theirs[2]))


@pytest.mark.parametrize("normalize", ["paper", "official"])
@pytest.mark.parametrize("scope", ["global", "sequence"])
def test_with_one_guess_selection_is_plain_selection_to_the_bit(draft, frozen, batch, normalize, scope):
    how = {"fraction": 0.4, "normalize": normalize, "scope": scope}
    made = (distill_masked(masks=ONE, **how), selective_distill(**how))
    ours, theirs = (minimised(each, draft, frozen, batch) for each in made)
    same((ours[0], ours[2]), (theirs[0], theirs[2]))
    assert ours[1]["share_kept"] == theirs[1]["share_kept"] < 1


def log_law(model, tokens):
    """[T, V] along a text, read at one length with whatever follows it, so that there is one shape to compile."""
    read = np.pad(np.asarray(tokens), (0, 24 - len(tokens)))
    return np.asarray(jax.nn.log_softmax(model(jnp.asarray([read]))[0][0]), np.float64)[: len(tokens)]


def chains_of(batch, guesses):
    """(row, where it begins, depth) of every guess of a label, by the batch alone."""
    labels = np.asarray(batch.loss_mask_BT)
    return [
        (row, begin, depth)
        for row in range(len(labels))
        for begin in range(labels.shape[1] - 1)
        for depth in range(guesses)
        if begin + depth + 1 < labels.shape[1] and labels[row, begin + 1 : begin + depth + 2].all()
    ]


def guess(model, tokens, begin, depth):
    """Log-probabilities [V] at a chain's last mask: the text up to its beginning, and masks, as decoding has them."""
    read = [*map(int, tokens[: begin + 1]), *[MASK] * depth]
    return log_law(model, read)[-1]


WINDOWS = {"model_type": "mistral", "sliding_window": 4, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("family", "masks"),
    [({}, {"guesses": 3}), ({}, {"guesses": 4, "tokens": 1.0, "laws": 0.0, "confident": False}), (WINDOWS, {})],
)
def test_every_slot_guesses_what_decoding_would_and_counts_as_it_should(frozen, batch, family, masks):
    masks, draft = Masks(keep=1.0, **{"guesses": 3, **masks}), a_model(2, **{"num_hidden_layers": 1, **family})
    total = weights = 0.0
    for row, begin, depth in chains_of(batch, masks.guesses):
        tokens = np.asarray(batch.tokens_BT[row])
        said = log_law(frozen.target, tokens)
        q, p, own = guess(draft, tokens, begin, depth), said[begin + depth], tokens[begin + depth + 1]
        between = [said[begin + s, tokens[begin + s + 1]] for s in range(depth)]
        weight = np.exp(sum(between)) if masks.confident else 1.0
        total += weight * (masks.laws * np.sum(np.exp(p) * (p - q)) - masks.tokens * q[own])
        weights += weight
    loss, metrics, _ = minimised(distill_masked(masks=masks), draft, frozen, batch)
    assert metrics["tokens"] == len(chains_of(batch, masks.guesses))
    np.testing.assert_allclose(loss, total / weights, rtol=1e-5)


def test_rows_of_several_examples_are_those_examples_in_rows_of_their_own(draft, frozen):
    tokens, masks = np.asarray(jax.random.randint(jax.random.key(5), (16,), 0, 20)), Masks(guesses=3, keep=1.0)
    labels, ends = np.ones(16, bool), (0, 7, 16)
    labels[[0, 1, 7, 8]] = False
    rows = [np.pad(x, (0, 9 - len(x))) for x in np.split(tokens, [7])]
    marks = [np.pad(x, (0, 9 - len(x))) for x in np.split(labels, [7])]
    segments = jnp.asarray(np.repeat([1, 2], np.diff(ends))[None])
    packed = Batch(jnp.asarray(tokens[None]), jnp.asarray(labels[None]), segments_BT=segments)
    apart = Batch(jnp.asarray(np.stack(rows)), jnp.asarray(np.stack(marks)))
    ours, theirs = (minimised(distill_masked(masks=masks), draft, frozen, each) for each in (packed, apart))
    assert ours[1]["tokens"] == theirs[1]["tokens"] > 20
    close((ours[0], ours[2]), (theirs[0], theirs[2]))


def test_chains_are_dropped_by_depth_and_one_that_goes_on_has_been_there_before(batch):
    masks = Masks(guesses=5, keep=0.6, least=0.3)
    slots = slots_of(batch, masks, MASK, jax.random.key(7))
    assert slots.tokens_BX.shape[1] == masks.lengthened(LENGTH) < 3 * LENGTH
    labels = np.asarray(batch.loss_mask_BT)[:, 1:].sum(axis=1)
    for row in range(ROWS):
        before = None
        for depth, share in enumerate((1, 0.6, 0.36, 0.3, 0.3)):
            at = slots.depth_X == depth
            begins = np.asarray(slots.begins_BX[row])[at]
            chosen = set(begins[: int(np.ceil(share * labels[row] - 1e-9))].tolist()) if depth else set(begins.tolist())
            kept = set(begins[np.asarray(slots.label_BX[row])[at]].tolist())
            assert kept <= chosen and (before is None or depth == 1 or chosen <= before)
            before = chosen
    other = slots_of(batch, masks, MASK, jax.random.key(8))
    assert (np.asarray(other.begins_BX) != np.asarray(slots.begins_BX)).any()


@pytest.mark.parametrize("divergence", [None, reverse_kl])
def test_selection_is_by_the_gap_at_every_guess_of_every_depth(draft, frozen, batch, divergence):
    masks = Masks(guesses=3, keep=1.0, tokens=0.2, laws=1.0, confident=False)
    law = [] if divergence is None else [divergence]
    costs, gaps = [], []
    for row, begin, depth in chains_of(batch, masks.guesses):
        tokens = np.asarray(batch.tokens_BT[row])
        p, own = log_law(frozen.target, tokens)[begin + depth], tokens[begin + depth + 1]

        def cost(model, tokens=tokens, begin=begin, depth=depth, p=p, own=own):
            q = guess(model, tokens, begin, depth)
            first, other = (p, q) if divergence is None else (q, p)
            return np.sum(np.exp(first) * (first - other)) - 0.2 * q[own]

        costs.append(cost(draft))
        gaps.append(costs[-1] - cost(frozen.reference))
    kept = np.array(gaps) >= np.quantile(gaps, 0.7) - 1e-6
    loss, metrics, _ = minimised(distill_masked(*law, masks=masks, fraction=0.3), draft, frozen, batch)
    np.testing.assert_allclose(loss, np.array(costs)[kept].mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["share_kept"], kept.mean(), rtol=1e-6)


def test_a_step_draws_other_chains_and_a_part_of_the_rows_is_a_part_of_the_batch(draft, frozen, batch):
    at = [dataclasses.replace(frozen, now=Now(jnp.int32(0), jax.random.key(n))) for n in (1, 2)]
    made = partial(distill_masked, masks=Masks(guesses=4, keep=0.5))
    whole, other = (minimised(made(), draft, now, batch) for now in at)
    parts = minimised(made(micro_batches=3), draft, at[0], batch)
    assert whole[0] != other[0]
    close((whole[0], whole[2]), (parts[0], parts[2]))


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"guesses": 0}, "guesses is 0"),
        ({"keep": 0.0}, "keep is 0.0"),
        ({"least": 1.5}, "least is 1.5"),
        ({"tokens": 0.0, "laws": 0.0}, "one must be above 0"),
        ({"tokens": -1.0}, "tokens is -1.0"),
    ],
)
def test_impossible_numbers_are_refused(knobs, says):
    with pytest.raises(ValueError, match=says):
        Masks(**knobs)

"""Every random choice of a run has a key of its own, also beside runs whose seeds follow one another."""

import jax
import numpy as np

from adaspec_jax.pipeline import seeds

SEEDS, MANY = range(8), 64  # blocks of answers, batches of prompts


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())


def folded(key):
    """The keys of its first blocks or batches, each with what is folded into it once more."""
    found = {bits(key)}
    for n in range(MANY):
        inner = jax.random.fold_in(key, n)
        found |= {bits(inner), bits(jax.random.fold_in(inner, 1))}
    return found


def test_no_answer_is_sampled_by_the_key_of_anything_else():
    """Answers and evaluated continuations are samples of one target after prompts: equal keys would draw alike."""
    answers = {seed: folded(seeds.answers(seed)) for seed in SEEDS}
    measured = {seed: folded(jax.random.key(seeds.evaluation(seed))) for seed in SEEDS}
    trained = {seed: folded(seeds.stage(seed)) for seed in SEEDS}
    begun = {seed: {bits(seeds.initial_weights(seed, name)) for name in ("target", "draft")} for seed in SEEDS}
    assert sum(map(len, answers.values())) == len(set().union(*answers.values()))
    for others in (measured, trained, begun):
        assert not set().union(*answers.values()) & set().union(*others.values())


def test_evaluations_of_different_seeds_draw_apart():
    measured = [folded(jax.random.key(seeds.evaluation(seed))) for seed in SEEDS]
    assert sum(map(len, measured)) == len(set().union(*measured))


def test_runs_of_before_keep_their_weights_batches_and_measurements():
    """A run that was interrupted goes on with the batches it began with, and one that is measured again is the same."""
    for seed in SEEDS:
        root = jax.random.key(seed)
        assert bits(seeds.initial_weights(seed, "target")) == bits(jax.random.fold_in(root, 0))
        assert bits(seeds.initial_weights(seed, "draft")) == bits(jax.random.fold_in(root, 1))
        assert bits(seeds.stage(seed)) == bits(jax.random.fold_in(root, 2))
        assert (seeds.data_order(seed), seeds.evaluation(seed)) == (seed + 2, seed + 3)

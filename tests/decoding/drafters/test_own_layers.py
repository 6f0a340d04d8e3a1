"""The target as its own draft: guesses against plain Python that asks the thinned, the short, the sparse model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.decoding.drafters.target.early_exit import EarlyExitDrafter
from adaspec_jax.decoding.drafters.target.skipping import SkippingDrafter
from adaspec_jax.decoding.drafters.target.sparse import SparseDrafter
from adaspec_jax.decoding.drafters.target.swift import SwiftDrafter
from adaspec_jax.decoding.stopping import ConfidentEnough
from tests.decoding.recording import Asked, play, prompts, tiny_llama

NEW, LONGEST, SKIPPED = 20, 64, (2, 3, 5)


@pytest.fixture(scope="module")
def target():
    """Whose later layers add little, so that its first ones say much of what it says."""
    model = tiny_llama(initializer_range=0.25)
    params = dict(model.params)
    for layer, scale in ((1, 0.3), (2, 0.3), (3, 0.5)):
        params[f"layers_{layer}"] = jax.tree.map(lambda x, scale=scale: x * scale, params[f"layers_{layer}"])
    return dataclasses.replace(model, params=params)


def starts(prompt):
    return [prompt.tokens_BS[row, :n].tolist() for row, n in enumerate(prompt.lengths_B)]


class Mixed:
    """What a draft says that sees the target's own keys for the text, and its own for its guesses."""

    def __init__(self, target, run, sees=None):
        """`run(model, tokens, cache, *more, **where)` is its pass; `sees(text length, slot)` what it may see."""

        @jax.jit
        def last(tokens_1S, known, count, *more):
            cache = target.features(tokens_1S, target.init_cache(1, LONGEST))[1].roll_back(known[None])
            index_1T = jnp.minimum(known + jnp.arange(LONGEST)[None], LONGEST - 1)
            guesses_1T = jnp.take_along_axis(tokens_1S, index_1T, axis=1)[:, :12]
            slots, at = jnp.arange(LONGEST), known + jnp.arange(12)
            mask = slots[None] <= at[:, None]
            if sees is not None:
                mask &= (slots[None] >= known) | sees(known, slots)[None]
            logits_1TV = run(target, guesses_1T, cache, *more, mask_BTS=mask[None])
            return logits_1TV[0, count - 1]

        self._last, self._known = last, {}

    def logits(self, text, guesses, *more):
        key = (tuple(text), tuple(guesses), *more)
        if key not in self._known:
            whole = [*text, *guesses]
            padded = np.zeros((1, LONGEST), np.int32)
            padded[0, : len(whole)] = whole
            counts = np.int32(len(text) - 1), np.int32(len(guesses) + 1)
            self._known[key] = np.asarray(self._last(padded, *counts, *map(np.asarray, more)))
        return self._known[key]


def read(say, draft, prompt, end, length, *, stop=None, slip=0):
    """[(committed, guesses)] of a draft's chain; `stop` has the numbers of Draft & Verify's code."""
    text, rounds, matched, threshold = list(prompt), [], 0.0, None if stop is None else stop["start"]
    while len(text) < end:
        guesses = []
        while len(guesses) < length:
            logits = draft.logits(text, guesses).astype(np.float64)
            guesses.append((int(np.argmax(logits)) + slip) % 23)
            if stop is not None and 1 / np.exp(logits - logits.max()).sum() < threshold:
                break
        rounds.append((len(text), [tuple(guesses[: n + 1]) for n in range(len(guesses))]))
        accepted = 0
        while accepted < len(guesses) and say.choice([*text, *guesses[:accepted]]) == guesses[accepted]:
            accepted += 1
        text += [*guesses[:accepted], say.choice([*text, *guesses[:accepted]])]
        if stop is not None:
            matched = 0.5 * matched + 0.5 * accepted / len(guesses)
            if matched < 0.9:
                moved = threshold + 0.01
            else:
                moved = threshold if len(guesses) == length else threshold - 0.01
            threshold = 0.9 * threshold + 0.1 * moved
    return tuple(text[:end]), rounds


def compare(target, drafter, draft, length, **knobs):
    prompt, say = prompts(3, longest=12), Asked(target)
    made = play(target, drafter, prompt, max_new_tokens=NEW)
    expected = [read(say, draft, start, len(start) + NEW, length, **knobs) for start in starts(prompt)]
    assert [(played.text, played.rounds) for played in made] == expected
    accepted = sum(NEW - len(played.rounds) for played in made)
    assert accepted > 0
    wrong = [read(say, draft, start, len(start) + NEW, length, slip=1, **knobs)[1] for start in starts(prompt)]
    assert wrong != [played.rounds for played in made]


def thinned(model, tokens_BT, cache, **where):
    keep = tuple(n not in SKIPPED for n in range(8))
    return model.unembed(model.run(tokens_BT, cache, keep=keep, **where).hidden)


def short(model, tokens_BT, cache, **where):
    hidden = model.run(tokens_BT, cache, last=2, **where).hidden
    return model.unembed(model.run(tokens_BT, first=4, hidden_BTD=hidden).hidden)


def whole(model, tokens_BT, cache, **where):
    return model(tokens_BT, cache, **where)[0]


def test_skipped_sublayers_draft_without_a_stop(target):
    compare(target, SkippingDrafter(target, SKIPPED, 3), Mixed(target, thinned), 3)


@pytest.mark.parametrize("start", [0.3, 0.6])
def test_skipped_sublayers_draft_until_a_guess_is_weak(target, start):
    drafter = SkippingDrafter(target, SKIPPED, 4, ConfidentEnough(start, limit=4), widths=(1, 2))
    compare(target, drafter, Mixed(target, thinned), 4, stop={"start": start})


def test_a_threshold_follows_what_was_accepted(target):
    """Its state after each round, against the plain numbers: `read` above does the same sums on the way."""
    drafter = SkippingDrafter(target, SKIPPED, 4, ConfidentEnough(0.3, limit=4))
    (played,) = play(target, drafter, prompts(1), max_new_tokens=NEW)
    text, threshold, matched = played.text, 0.3, 0.0
    for (length, guesses), (after, _) in zip(played.rounds, played.rounds[1:], strict=False):
        accepted, drafted = after - length - 1, len(guesses)
        assert guesses[-1][:accepted] == text[length : length + accepted]
        matched = 0.5 * matched + 0.5 * accepted / drafted
        moved = threshold + 0.01 if matched < 0.9 else threshold - 0.01 * (drafted < 4)
        threshold = 0.9 * threshold + 0.1 * moved
    np.testing.assert_allclose(played.state.threshold_B[0], threshold, rtol=1e-5)
    assert abs(threshold - 0.3) > 1e-4


def test_the_first_layers_draft(target):
    compare(target, EarlyExitDrafter(target, 2, 3), Mixed(target, short), 3)


def test_few_keys_draft(target):
    def sees(known, slots):
        return (slots < 2) | (slots >= known - 3)

    compare(target, SparseDrafter(target, 3, budget=5, sink=2), Mixed(target, whole, sees), 3)


def test_a_budget_for_the_whole_text_is_the_target_itself(target):
    made = generate(
        target,
        SparseDrafter(target, 3, budget=64),
        prompts(4),
        jax.random.key(0),
        max_new_tokens=NEW,
        sampling=Sampling(0.0),
    )
    np.testing.assert_array_equal(made.accepted_BN, made.judged_BN)


def test_the_targets_cache_is_not_copied(target):
    """What a drafter writes in it comes back: the program needs little more memory than plain decoding's."""
    from adaspec_jax.decoding import engine, rejection_sample

    prompt = Context(np.ones((4, 100), np.int32), np.full(4, 100))

    def temporary(drafter):
        arguments, slots = engine.program_arguments(target, drafter, prompt, jax.random.key(0), 900, -1)
        static = {"slots": slots, "sampling": Sampling(0.0), "accept": rejection_sample}
        return engine._decode.lower(*arguments, **static).compile().memory_analysis().temp_size_in_bytes

    cache = sum(x.nbytes for x in jax.tree.leaves(target.init_cache(4, 1152)))
    plain = temporary(NoDraft())
    stop = ConfidentEnough(0.3, limit=4)
    for drafter in (
        SkippingDrafter(target, SKIPPED, 4, stop, widths=(1, 2)),
        EarlyExitDrafter(target, 2, 3),
        SwiftDrafter(target, SKIPPED, length=2, siblings=2, window=2),
    ):
        assert temporary(drafter) < plain + 0.5 * cache

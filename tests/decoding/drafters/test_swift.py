"""SWIFT against a reading of it in plain Python: a set, tries of others, a chain and what stands beside it."""

import jax
import numpy as np
import pytest

from adaspec_jax.decoding import NoDraft, Sampling, generate, generate_and_learn, with_memory
from adaspec_jax.decoding.drafters.target.swift import SwiftDrafter
from tests.decoding.drafters.test_own_layers import Mixed, starts, target  # noqa: F401
from tests.decoding.recording import Asked, play, prompts
from tests.running import slow

NEW, BEGIN = 24, (2, 3, 5)


def with_gates(model, tokens_BT, cache, keep, **where):
    return model.unembed(model.run(tokens_BT, cache, keep=keep, **where).hidden)


def beside(logits, siblings):
    best = 1 / np.exp(logits - logits.max()).sum()
    count = 3 if best > 0.95 else 5 if best > 0.8 else 8 if best > 0.5 else 10
    return best, np.argsort(-logits, kind="stable")[: min(count, siblings)].tolist()


def read(say, draft, drafter, prompt, end, tried, *, slip=0):
    """[(committed, guesses)] and the best score; `tried(round)` are the sets that the search draws."""
    keep, score, idle = tuple(n not in BEGIN for n in range(8)), 0.0, 0
    text, rounds, tries = list(prompt), [], 0
    while len(text) < end:
        new = text[len(prompt) :]
        if len(new) > drafter.window + 1 and score <= drafter.enough and idle <= drafter.patience:
            other, right = tried(len(rounds)), 0
            for n in range(drafter.window):
                logits = draft.logits([*prompt, new[0]], new[1 : n + 1], other)
                right += int(np.argmax(logits)) == new[n + 1 - slip]
            tries += 1
            if right / drafter.window > score:
                keep, score, idle = other, right / drafter.window, 0
            else:
                idle += 1
        chain, guesses = [], []
        while len(chain) < drafter.length:
            best, likely = beside(draft.logits(text, chain, keep).astype(np.float64), drafter.siblings)
            guesses += [(*chain, token) for token in likely]
            chain.append(likely[0])
            if best < drafter.threshold:
                break
        rounds.append((len(text), guesses))
        agreed = ()
        while (*agreed, say.choice([*text, *agreed])) in guesses:
            agreed += (say.choice([*text, *agreed]),)
        text += [*agreed, say.choice([*text, *agreed])]
    return tuple(text[:end]), rounds, score, tries


def sets_drawn(drafter):
    """By the engine's own splitting of its key, round by round."""
    keys = [jax.random.key(0)]

    def tried(n):
        while len(keys) <= n + 1:
            keys.append(jax.random.split(keys[-1], 3)[0])
        propose_key = jax.random.split(keys[n], 3)[1]
        return tuple(bool(x) for x in drafter._drawn(jax.random.fold_in(propose_key, 1)))

    return tried


@pytest.mark.parametrize(
    "knobs",
    [
        slow({"window": 50, "length": 4}),
        {"window": 3, "length": 3, "siblings": 2, "threshold": 0.3},
        {"window": 2, "length": 3, "siblings": 1, "threshold": 0.3, "patience": 1},
        slow({"window": 4, "length": 3, "enough": 0.4}),
    ],
    ids=["without a search", "searched", "soon out of patience", "soon good enough"],
)
def test_every_round_offers_what_the_algorithm_says(target, knobs):  # noqa: F811
    say, draft = Asked(target), Mixed(target, with_gates)
    drafter = SwiftDrafter(target, BEGIN, **{"siblings": 10, "enough": 2.0, "share": 0.5} | knobs)
    prompt = prompts(1, longest=12)
    (start,) = starts(prompt)
    (played,) = play(target, drafter, prompt, max_new_tokens=NEW)
    text, rounds, score, tries = read(say, draft, drafter, start, len(start) + NEW, sets_drawn(drafter))
    assert played.text == text
    assert [(n, sorted(guesses)) for n, guesses in played.rounds] == [(n, sorted(guesses)) for n, guesses in rounds]
    np.testing.assert_allclose(played.state.score_B[0], score, rtol=1e-6)
    assert played.state.tries_B[0] == tries and (tries > 0) == (drafter.window < 50)


def test_a_score_one_token_aside_is_found(target):  # noqa: F811
    drafter = SwiftDrafter(target, BEGIN, length=3, siblings=2, window=3, threshold=0.3, enough=2.0, share=0.5)
    (start,) = starts(prompts(1, longest=12))
    (played,) = play(target, drafter, prompts(1, longest=12), max_new_tokens=NEW)
    reading = (Asked(target), Mixed(target, with_gates), drafter, start, len(start) + NEW, sets_drawn(drafter))
    wrong = read(*reading, slip=1)
    assert ([n for n, _ in wrong[1]], wrong[2]) != ([n for n, _ in played.rounds], played.state.score_B[0])


def test_first_and_last_layer_always_run(target):  # noqa: F811
    drafter = SwiftDrafter(target, BEGIN, share=0.5)
    drawn = np.array([drafter._drawn(jax.random.key(seed)) for seed in range(20)])
    assert drawn[:, [0, 1, 6, 7]].all() and (drawn.sum(axis=1) == 6).all() and len(np.unique(drawn, axis=0)) > 3


def test_rows_of_a_batch_search_together(target):  # noqa: F811
    drafter = SwiftDrafter(target, BEGIN, length=3, siblings=2, window=3, enough=2.0)
    made = play(target, drafter, prompts(4), max_new_tokens=NEW)
    state = made[0].state
    assert state.tries_B[0] > 0
    for shared in state[1:]:
        assert (shared == shared[:1]).all()


def test_a_search_goes_on_with_the_next_request_where_it_is_remembered(target):  # noqa: F811
    drafter = with_memory(SwiftDrafter(target, BEGIN, length=3, siblings=2, window=3, enough=2.0, share=0.5))
    prompt, knobs, tries, scores = prompts(1, longest=12), {"max_new_tokens": NEW, "sampling": Sampling(0.0)}, [], []
    plain = generate(target, NoDraft(), prompt, jax.random.key(0), **knobs)
    for seed in range(3):
        began = drafter.memory
        state = drafter.init(prompt, 64)
        assert (state.keep_BY[0] == began.keep_Y).all() and state.tries_B[0] == began.tries
        made, drafter = generate_and_learn(target, drafter, prompt, jax.random.key(seed), **knobs)
        np.testing.assert_array_equal(made.tokens_BS, plain.tokens_BS)
        tries.append(int(drafter.memory.tries - began.tries))
        scores.append(float(drafter.memory.score))
        assert (drafter.memory.keep_Y == began.keep_Y).all() == (drafter.memory.score == began.score)
    assert min(tries) > 0 and scores == sorted(scores) and scores[0] > 0


def test_impossible_numbers_are_refused(target):  # noqa: F811
    for knobs in ({"length": 0}, {"siblings": 0}, {"window": 0}, {"share": 1.0}):
        with pytest.raises(ValueError, match="share is between 0 and 1"):
            SwiftDrafter(target, BEGIN, **knobs)

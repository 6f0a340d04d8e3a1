"""Draft on the Fly against a reading of it in plain Python: cosines, a set for each round, a chain until it is weak."""

import jax
import numpy as np
import pytest

from adaspec_jax.decoding.drafters.target.similarity import SimilarityDrafter
from adaspec_jax.decoding.stopping import ConfidentEnough
from tests.decoding.drafters.test_own_layers import Mixed, starts, target  # noqa: F401
from tests.decoding.drafters.test_swift import with_gates
from tests.decoding.recording import Asked, play, prompts

NEW, LENGTH, BETWEEN = 24, 3, (1, 2)  # layers that are neither first nor last


class Cosines:
    """How alike what enters an attention and what leaves it are, at each token of a text."""

    def __init__(self, model, longest=64):
        taps = [tap for layer in BETWEEN for tap in (layer - 1, layer + 0.5)]
        self._run = jax.jit(lambda tokens_1T: model.run(tokens_1T, taps=tuple(taps)).taps)
        self._longest = longest

    def at(self, text):
        """[token, layer]"""
        padded = np.zeros((1, self._longest), np.int32)
        padded[0, : len(text)] = text
        taps = [np.asarray(tap[0], np.float64) for tap in self._run(padded)]
        found = []
        for before, after in zip(taps[::2], taps[1::2], strict=True):
            sizes = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
            found.append(np.sum(before * after, axis=1) / sizes)
        return np.array(found).T[: len(text)]


def read(say, draft, cosines, drafter, prompt, end, *, slip=0, late=0):
    """[(committed, guesses)], and the set of each round."""
    text, rounds, sets, threshold, matched = list(prompt), [], [], drafter.stop.start, 0.0
    similar, verified = cosines.at(text)[late:].mean(axis=0), []
    while len(text) < end:
        ranked = sorted(range(len(BETWEEN)), key=lambda c: -similar[c])[: int(drafter.most * 4)]
        gone = {2 * BETWEEN[c] for c in ranked if similar[c] > drafter.similarity}
        keep, guesses = tuple(n not in gone for n in range(8)), []
        sets.append(gone)
        while len(guesses) < LENGTH:
            logits = draft.logits(text, guesses, keep).astype(np.float64)
            guesses.append((int(np.argmax(logits)) + slip) % 23)
            if 1 / np.exp(logits - logits.max()).sum() < threshold:
                break
        rounds.append((len(text), [tuple(guesses[: n + 1]) for n in range(len(guesses))]))
        accepted = 0
        while accepted < len(guesses) and say.choice([*text, *guesses[:accepted]]) == guesses[accepted]:
            accepted += 1
        before = len(text)
        text += [*guesses[:accepted], say.choice([*text, *guesses[:accepted]])]
        verified += list(cosines.at(text)[before - 1 : len(text) - 1])
        if len(verified) >= drafter.every:
            similar, verified = np.mean(verified[late:], axis=0), []
        matched = 0.5 * matched + 0.5 * accepted / len(guesses)
        if matched < 0.9:
            moved = threshold + 0.01
        else:
            moved = threshold if len(guesses) == LENGTH else threshold - 0.01
        threshold = 0.9 * threshold + 0.1 * moved
    return tuple(text[:end]), rounds, sets


@pytest.fixture(scope="module")
def asked(target):  # noqa: F811
    return Asked(target), Mixed(target, with_gates), Cosines(target)


def drafter_for(target, similarity, **knobs):  # noqa: F811
    knobs = {"every": 6, "stop": ConfidentEnough(0.3, limit=LENGTH)} | knobs
    return SimilarityDrafter(target, 1, 1, LENGTH, similarity=similarity, **knobs)


def middle(cosines, prompt):
    """A similarity that some of the prompts' attentions have and others have not."""
    return float(np.median([cosines.at(start).mean(axis=0).max() for start in starts(prompt)]))


@pytest.mark.parametrize("most", [0.6, 0.25])
def test_every_round_offers_what_the_algorithm_says(target, asked, most):  # noqa: F811
    prompt, seen, wrong = prompts(3, longest=12), set(), {"slip": 0, "late": 0}
    drafter = drafter_for(target, middle(asked[2], prompt), most=most)
    for row, start in enumerate(starts(prompt)):
        alone = type(prompt)(prompt.tokens_BS[row : row + 1], prompt.lengths_B[row : row + 1])
        (played,) = play(target, drafter, alone, max_new_tokens=NEW)
        text, rounds, sets = read(*asked, drafter, start, len(start) + NEW)
        assert (played.text, played.rounds) == (text, rounds)
        seen |= set(map(frozenset, sets))
        for name in wrong:
            wrong[name] += read(*asked, drafter, start, len(start) + NEW, **{name: 1})[1:] != (rounds, sets)
    assert len(seen) > 1 and max(map(len, seen)) == int(most * 4)
    assert wrong["slip"] == 3 and (wrong["late"] > 0 or most < 0.6)  # one token aside, the one attention is the same


def test_the_set_changes_within_a_text(target, asked):  # noqa: F811
    """What is measured after the prompt counts, and no more often than asked for."""
    prompt = prompts(1, longest=12)
    (start,) = starts(prompt)
    drafter = drafter_for(target, middle(asked[2], prompt))
    sets = read(*asked, drafter, start, len(start) + NEW)[2]
    assert len(set(map(frozenset, sets))) > 1


def test_impossible_numbers_are_refused(target):  # noqa: F811
    for knobs in ({"every": 0}, {"most": 1.5}):
        with pytest.raises(ValueError, match="most is between 0 and 1"):
            drafter_for(target, 0.9, **knobs)

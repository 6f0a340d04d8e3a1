"""Every method that copies text: the target's own text, greedily token for token, sampled by its law."""

import jax
import numpy as np
import pytest
from scipy import stats

from adaspec_jax.decoding import Context, Dialogue, NoDraft, Sampling, engine, generate, generate_from_queue
from adaspec_jax.decoding.drafters.text.datastore import Datastore
from adaspec_jax.methods import METHODS, Given
from adaspec_jax.methods.text import TEXT
from adaspec_jax.retrieval import suffix_array
from tests.decoding.bag_model import BagModel
from tests.decoding.test_engine import law_after
from tests.running import slow, some

GREEDY, KEY = Sampling(0.0), jax.random.key(0)
NAMES = [method.name for method in TEXT]
QUICK = {
    "rest": {"matches": 50},
    "suffix": {"length": 8, "depth": 16, "places": 16, "corpus_longest": 8},
}  # the rest have their defaults
# Small trees where thousands of rows are drawn at once.
FEW = {
    "prompt_lookup": {"length": 2},
    "n_grammys": {"rows": 3, "length": 2},
    "sam": {"length": 2},
    "rest": {"choices": 6, "length": 3, "matches": 9},
    "suffix": {"length": 2, "depth": 8, "places": 8, "corpus_longest": 4},
}


@pytest.fixture(scope="module")
def given():
    return Given(target=BagModel.random(0, vocab=11, scale=2.0), datastore=store(11))


def store(vocab):
    """Texts of few tokens, in which everything stands."""
    rng = np.random.default_rng(0)
    tokens_T = np.concatenate([[*rng.integers(0, vocab, 40), -1] for _ in range(20)]).astype(np.int32)
    return Datastore(jax.numpy.asarray(tokens_T), jax.numpy.asarray(suffix_array(tokens_T, depth=64)))


def ragged():
    """Eight prompts of 1 to 20 tokens, most of which say things twice."""
    rng = np.random.default_rng(3)
    lengths = np.array([20, 1, 2, 17, 9, 20, 5, 13])
    return Context(np.tile(rng.integers(0, 11, (8, 5)), (1, 4)), lengths)


def decode(given, drafter, prompt, *, accept=None, decode=generate, **knobs):
    knobs = {"max_new_tokens": 23, "sampling": GREEDY, "eos_id": -1} | ({"accept": accept} if accept else {}) | knobs
    return jax.device_get(decode(given.target, drafter, prompt, KEY, **knobs))


@pytest.mark.parametrize("name", NAMES)
def test_greedy_text_is_plain_decodings(given, name):
    method = METHODS[name].set(**QUICK.get(name, {}))
    drafter, accepted = method.make(given), 0
    whole, alone = ragged(), Context(ragged().tokens_BS[3:4], ragged().lengths_B[3:4])
    for prompt, knobs in (
        (whole, {}),
        (alone, {}),
        (whole, {"eos_id": (7, 2)}),
        (whole, {"max_new_tokens": 3}),
        (whole, {"decode": generate_from_queue, "rows": 3, "eos_id": (7, 2)}),
    ):
        plain, ours = (
            decode(given, NoDraft(), prompt, **knobs),
            decode(given, drafter, prompt, accept=method.accept, **knobs),
        )
        np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
        np.testing.assert_array_equal(ours.lengths_B, plain.lengths_B)
        assert (ours.rounds_B <= plain.rounds_B).all()
        accepted += ours.accepted_BN.sum()
    assert accepted > 0


@pytest.mark.parametrize("name", some(NAMES, "prompt_lookup", "rest", "suffix"))
def test_a_queue_and_a_dialogue_guess_what_a_batch_guesses(given, name):
    method = METHODS[name].set(**QUICK.get(name, {}))
    drafter, knobs = method.make(given), {"accept": method.accept, "eos_id": (7, 2)}
    expected = decode(given, drafter, ragged(), **knobs)
    queued = decode(given, drafter, ragged(), decode=generate_from_queue, rows=3, refill=1, **knobs)
    talk = Dialogue(given.target, drafter, max_new_tokens=23, sampling=GREEDY, **knobs)
    first = jax.device_get(talk.turn(ragged(), KEY))
    for field in ("tokens_BS", "rounds_B", "accepted_BN", "judged_BN", "drafted_B"):
        np.testing.assert_array_equal(getattr(queued, field), getattr(expected, field), err_msg=field)
        np.testing.assert_array_equal(getattr(first, field), getattr(expected, field), err_msg=field)
    rows = [[*row[:length], 3, 1] for row, length in zip(first.tokens_BS, first.lengths_B, strict=True)]
    again = np.zeros((8, 50), np.int32)
    for row_S, row in zip(again, rows, strict=True):
        row_S[: len(row)] = row
    prompt = Context(again, np.array(list(map(len, rows))))
    second, expected = jax.device_get(talk.turn(prompt, KEY)), decode(given, drafter, prompt, **knobs)
    for field in ("tokens_BS", "rounds_B", "accepted_BN", "judged_BN", "drafted_B"):
        np.testing.assert_array_equal(getattr(second, field), getattr(expected, field), err_msg=field)


@pytest.mark.parametrize("sampling", [Sampling(), slow(Sampling(0.7, top_k=3))], ids=str)
@pytest.mark.parametrize("name", some(NAMES, "n_grammys", "suffix"))
def test_sampled_text_has_the_targets_law(given, name, sampling):
    """By chi-square over the whole of a short continuation, thousands of rows in one batch."""
    rows, steps, opening = 8000, 3, [1, 2, 0, 1, 2, 3, 1, 2]
    made_of = Given(target=BagModel.random(5), datastore=store(4))
    target = made_of.target
    method = METHODS[name]
    drafter = method.set(**FEW.get(name, {})).make(made_of)
    prompt = Context(np.tile(opening, (rows, 1)), np.full(rows, len(opening)))
    ours = decode(made_of, drafter, prompt, accept=method.accept, sampling=sampling, max_new_tokens=steps)
    law = {text: mass for text, mass in law_after(target, opening, steps, sampling).items() if mass > 0}
    counts = dict.fromkeys(law, 0)
    texts, times = np.unique(ours.tokens_BS[:, len(opening) : len(opening) + steps], axis=0, return_counts=True)
    for text, number in zip(texts, times, strict=True):
        counts[tuple(text.tolist())] += number  # a KeyError: a text the law forbids
    expected, observed = np.array(list(law.values())) * rows, np.array(list(counts.values()))
    common = expected >= 5
    expected = np.append(expected[common], expected[~common].sum())
    observed = np.append(observed[common], observed[~common].sum())
    kept = expected > 0
    p_value = stats.chisquare(observed[kept], expected[kept] * rows / expected[kept].sum()).pvalue
    assert p_value > 1e-4
    assert 0 < ours.accepted_BN.sum() < ours.judged_BN.sum()


@pytest.mark.parametrize("name", some(NAMES, "rest", "suffix"))
def test_nothing_is_compiled_again_after_warm_up(given, name):
    method = METHODS[name].set(**QUICK.get(name, {}))
    decode(given, method.make(given), ragged(), accept=method.accept)
    before = engine._decode._cache_size()
    for longest, budget, eos in ((3, 9, 2), (9, 30, -1), (20, 32, 5)):
        prompt = Context(ragged().tokens_BS[:, :longest], np.minimum(ragged().lengths_B, longest))
        decode(given, method.make(given), prompt, accept=method.accept, max_new_tokens=budget, eos_id=eos)
    assert engine._decode._cache_size() == before

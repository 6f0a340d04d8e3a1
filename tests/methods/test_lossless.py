"""Every method that drafts with what the target says or is: greedy text is plain decoding's, sampled by its law."""

import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from adaspec_jax.decoding import Context, NoDraft, Sampling, engine, generate, generate_from_queue
from adaspec_jax.methods import METHODS, Given
from adaspec_jax.methods.own_layers import OWN_LAYERS
from adaspec_jax.methods.taught import TAUGHT
from tests.decoding.recording import prompts, tiny_llama
from tests.running import some

GREEDY, KEY = Sampling(temperature=0.0), jax.random.key(0)
TARGET = tiny_llama()
GIVEN = Given(target=TARGET)
NAMES = [method.name for method in (*TAUGHT, *OWN_LAYERS)]


def decode(drafter, prompt, target=TARGET, how=generate, **knobs):
    knobs = {"max_new_tokens": 24, "sampling": GREEDY, "eos_id": -1} | knobs
    return jax.device_get(how(target, drafter, prompt, KEY, **knobs))


# Where the paper's own numbers would leave nothing to see in so short a text, or take long to see it.
SMALLER = {
    "swift": {"length": 4, "siblings": 2, "window": 2, "enough": 2.0},
    "draft_on_the_fly": {"similarity": 0.7, "every": 5, "threshold": 0.3},
}
TOGETHER = {"swift", "draft_on_the_fly"}  # a row's guesses depend on the batch that it is in


def made(name, given=GIVEN):
    return METHODS[name].set(**SMALLER.get(name, {})).make(given)


ENDS, NO_END = (2, 7, 11), (-1, -1, -1)  # of one shape, so that one program serves both


@pytest.fixture(scope="module")
def plainly():
    """Plain decoding's text, made once for each setting."""
    known = {}

    def text(batch, budget, eos):
        if (batch, budget, eos) not in known:
            plain = decode(NoDraft(), prompts(batch), max_new_tokens=budget, eos_id=eos)
            known[batch, budget, eos] = plain.tokens_BS, plain.lengths_B
        return known[batch, budget, eos]

    return text


@pytest.mark.parametrize("name", NAMES)
def test_greedy_text_is_plain_decodings(name, plainly):
    drafter = made(name)
    for batch, budget, eos in ((8, 24, NO_END), (8, 24, ENDS), (8, 3, NO_END), (1, 24, NO_END)):
        ours = decode(drafter, prompts(batch), max_new_tokens=budget, eos_id=eos)
        tokens_BS, lengths_B = plainly(batch, budget, eos)
        np.testing.assert_array_equal(ours.tokens_BS, tokens_BS)
        np.testing.assert_array_equal(ours.lengths_B, lengths_B)


@pytest.mark.parametrize("name", some(NAMES, "token_recycling", "magicdec"))
def test_a_queue_gives_every_prompt_what_a_batch_gives_it(name):
    """A row that takes over another's place takes over nothing that it learnt."""
    drafter = made(name)
    batched = decode(drafter, prompts(8), eos_id=ENDS)
    queued = decode(drafter, prompts(8), how=generate_from_queue, rows=3, refill=1, eos_id=ENDS)
    counts = () if name in TOGETHER else ("rounds_B", "accepted_BN", "judged_BN", "drafted_B")
    for field in ("tokens_BS", *counts):
        np.testing.assert_array_equal(getattr(queued, field), getattr(batched, field), err_msg=field)


@pytest.mark.parametrize("name", some(NAMES, "token_recycling", "swift", "magicdec"))
def test_nothing_is_compiled_again_after_warm_up(name):
    decode(made(name), prompts(8), eos_id=ENDS)
    before = engine._decode._cache_size()
    for longest, budget in ((3, 9), (9, 30), (20, 32)):
        decode(made(name), prompts(8, longest=longest), max_new_tokens=budget, eos_id=NO_END)
    assert engine._decode._cache_size() == before


SMALL = tiny_llama(vocab_size=3, hidden_size=16, intermediate_size=16, initializer_range=0.12)
STEPS, LAST = 8, 2  # tokens to write, and the last of them whose law is looked at: some methods guess late


@pytest.fixture(scope="module")
def law():
    """{the last tokens: probability} after 1, 2 and whatever comes between."""
    texts = np.array(list(itertools.product(range(3), repeat=STEPS)))
    logits_BTV = jax.jit(lambda tokens_BT: SMALL(tokens_BT)[0])(
        np.concatenate([np.tile([1, 2], (len(texts), 1)), texts], 1)
    )
    probs_BTV = np.asarray(jax.nn.softmax(logits_BTV, axis=-1), np.float64)[:, 1:-1]
    mass_B = np.prod(np.take_along_axis(probs_BTV, texts[..., None], axis=2)[..., 0], axis=1)
    return {
        last: mass_B[(texts[:, -LAST:] == last).all(axis=1)].sum() for last in itertools.product(range(3), repeat=LAST)
    }


@pytest.mark.parametrize("name", some(NAMES, "jacobi", "layerskip"))
def test_sampled_text_has_the_targets_law(name, law):
    rows, seeds, counts, accepted = 200, range(5), dict.fromkeys(law, 0), 0
    drafter = made(name, Given(target=SMALL))
    prompt = Context(np.tile([1, 2], (rows, 1)), np.full(rows, 2))
    for seed in seeds:
        ours = generate(
            SMALL, drafter, prompt, jax.random.key(seed), max_new_tokens=STEPS, sampling=Sampling(), eos_id=-1
        )
        accepted += int(np.sum(ours.accepted_BN))
        texts, times = np.unique(np.asarray(ours.tokens_BS[:, 2:])[:, -LAST:], axis=0, return_counts=True)
        for text, number in zip(texts.tolist(), times, strict=True):
            counts[tuple(text)] += number
    expected, observed = np.array(list(law.values())) * rows * len(seeds), np.array(list(counts.values()))
    assert expected.min() > 5 and accepted > 100
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4

"""Methods of several drafts do in every round what a plain reading of them does, and keep the law that they promise."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from adaspec_jax.decoding import (
    Cascade,
    ChainDrafter,
    Context,
    Fuzzy,
    Relay,
    Review,
    Sampling,
    engine,
    generate,
    generate_from_queue,
    match_sample,
    rejection_sample,
)
from adaspec_jax.decoding.drafters.text.bigrams import MaxGram, likeliest_next
from adaspec_jax.decoding.drafters.text.datastore import Datastore
from adaspec_jax.decoding.types import GUESS
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.costs import length_of, model_of
from adaspec_jax.methods import METHODS, Given
from adaspec_jax.methods.cascades import CASCADES, rows_of
from tests.decoding.bag_model import BagModel, next_logits
from tests.decoding.drafters import cascade_readings as read
from tests.decoding.enumeration import enumerated, largest_error, plain_law
from tests.decoding.test_engine import GREEDY, KEY, ragged_prompt
from tests.running import slow, some

NAMES = [method.name for method in CASCADES]
VOCAB = 11
CORPUS = np.concatenate([[*np.random.default_rng(n).integers(0, VOCAB, 30) % 8, -1] for n in range(6)])
PYRAMID = {"draft_length": 2, "length": 5, "threshold_t": 0.1}
COUNTS = (1, 1, 4, 1, 2, 2)
SET = {
    "pyramidsd_f": PYRAMID | {"threshold_q": 0.05},
    "pyramidsd_a": PYRAMID,
    "cs_drafting": {"k_of_two": COUNTS, "k_matrix": (3, 2, 2)},
}


@pytest.fixture(scope="module")
def given():
    """Three models that disagree now and then, and texts with every token but three."""
    target = BagModel.random(14, vocab=VOCAB)
    middle, small = (
        BagModel(target.table_VV + sum(BagModel.random(100 + n, vocab=VOCAB, scale=0.5).table_VV for n in range(few)))
        for few in (1, 2)
    )
    store = Datastore(jax.numpy.asarray(CORPUS, jax.numpy.int32), jax.numpy.arange(len(CORPUS)))
    return Given(target=target, drafts={"small": small, "middle": middle}, datastore=store)


@pytest.fixture(scope="module")
def of_lists(given):
    """The three as functions of lists of tokens."""
    return [partial(next_logits, model) for model in (given.target, *list(given.drafts.values())[::-1])]


def decode(given, method, prompt, how=generate, **knobs):
    knobs = {"max_new_tokens": 25, "sampling": GREEDY, "eos_id": (-1, -1)} | knobs
    return jax.device_get(how(given.target, method.make(given), prompt, KEY, accept=method.accept, **knobs))


def rounds_that_differ(a_round, made, prompt, budget=25, ends=()):
    """Rows of which the text, or what stayed in any round, is not the reading's."""
    wrong = 0
    for row, length in enumerate(prompt.lengths_B):
        text, kept = read.written(a_round, prompt.tokens_BS[row, :length].tolist(), budget, ends)
        stayed = [guess for n in kept for guess in (*[True] * n, False)]
        ours = (made.origin_BS[row, length : made.lengths_B[row]] == GUESS).tolist()
        same = made.tokens_BS[row, : made.lengths_B[row]].tolist() == text and ours == stayed[: len(ours)]
        wrong += not same or made.rounds_B[row] != len(kept)
    return wrong


def most_frequent_next():
    """{token: the one that most often follows it}, counted pair by pair."""
    counts = {}
    for first, second in zip(CORPUS[:-1].tolist(), CORPUS[1:].tolist(), strict=True):
        if first >= 0 and second >= 0:
            counts[first, second] = counts.get((first, second), 0) + 1
    return {
        first: max((b for a, b in counts if a == first), key=lambda second, a=first: (counts[a, second], -second))
        for first, _ in counts
    }


def reading(name, of_lists, **slips):
    target, middle, small = of_lists
    if name == "cs_drafting":
        rows, table = rows_of(slips.pop("counts", COUNTS), 2), most_frequent_next()
        return lambda text: read.cs_drafting(target, [middle, small], rows, table, text, **slips)
    return lambda text: read.pyramid(target, middle, small, text, **(SET[name] | slips))


@pytest.mark.parametrize("name", NAMES)
def test_every_round_is_its_readings(given, of_lists, name):
    method, whole = METHODS[name].set(**SET[name]), ragged_prompt(4)
    cases = [(whole, 25, (-1, -1)), (whole, 25, (7, 2)), (whole, 2, (-1, -1))]
    if name == "pyramidsd_a":
        cases.append((ragged_prompt(1), 25, (-1, -1)))
    for prompt, budget, ends in cases:
        made = decode(given, method, prompt, max_new_tokens=budget, eos_id=ends)
        assert rounds_that_differ(reading(name, of_lists), made, prompt, budget, ends) == 0
    made, plain = (decode(given, each, whole) for each in (method, METHODS["plain"]))
    assert (made.tokens_BS == plain.tokens_BS).all() == method.lossless


@pytest.mark.parametrize("name", some(NAMES, "pyramidsd_f"))
def test_a_queue_writes_what_a_batch_writes(given, name):
    method, knobs = METHODS[name].set(**SET[name]), {"eos_id": (7, 2)}
    batched = decode(given, method, ragged_prompt(4), **knobs)
    queued = decode(given, method, ragged_prompt(4), generate_from_queue, rows=2, **knobs)
    for field in ("tokens_BS", "rounds_B", "accepted_BN", "judged_BN", "drafted_B"):
        np.testing.assert_array_equal(getattr(queued, field), getattr(batched, field), err_msg=field)


@pytest.mark.parametrize(
    ("name", "slip"),
    [
        ("pyramidsd_f", {"threshold_q": 0.1}),
        ("pyramidsd_f", {"threshold_t": 0.05}),
        ("pyramidsd_f", {"slip": "small"}),
        ("pyramidsd_f", {"slip": "short"}),
        ("pyramidsd_f", {"slip": "compares with the small"}),
        ("pyramidsd_f", {"threshold_q": None}),
        ("pyramidsd_a", {"threshold_q": 0.05}),
        ("cs_drafting", {"counts": (2, 1, 4, 1, 2, 2)}),
        ("cs_drafting", {"slip": "no copies"}),
    ],
    ids=str,
)
def test_another_reading_has_other_rounds(given, of_lists, name, slip):
    prompt = ragged_prompt(4)
    made = decode(given, METHODS[name].set(**SET[name]), prompt)
    assert rounds_that_differ(reading(name, of_lists, **slip), made, prompt) > 0


def test_a_review_lets_pass_what_its_reading_does(given, of_lists):
    prompt, method = ragged_prompt(4), METHODS["cs_drafting"].set(**SET["cs_drafting"], lenience="3")
    made = decode(given, method, prompt)
    assert rounds_that_differ(reading("cs_drafting", of_lists, lenience=3.0), made, prompt) == 0
    for slip in ({"lenience": 1.0}, {"lenience": 3.0, "slip": "certain"}):
        assert rounds_that_differ(reading("cs_drafting", of_lists, **slip), made, prompt) > 0
    np.testing.assert_array_equal(made.tokens_BS, decode(given, METHODS["plain"], prompt).tokens_BS)


TARGET, MIDDLE, SMALL = (BagModel.random(seed, vocab=3) for seed in (0, 1, 2))
# Until token 0 is written, the middle model's law is the target's.
ALIKE = BagModel(TARGET.table_VV.at[0].add(np.array([1.0, -1.0, 0.5])))


def of_three(middle, inner, length=2):
    return Cascade(ChainDrafter(SMALL, 1), middle, length, inner)


@pytest.mark.parametrize(
    ("middle", "inner"),
    [slow(MIDDLE, Fuzzy(0.0)), slow(MIDDLE, match_sample), (ALIKE, Fuzzy(0.0)), slow(ALIKE, match_sample)],
    ids=["pyramidsd_f", "pyramidsd_a", "pyramidsd_f, alike", "pyramidsd_a, alike"],
)
def test_at_thresholds_of_zero_the_law_is_the_targets(middle, inner):
    knobs = {"sampling": Sampling(0.8, top_k=2), "horizon": 2}
    found = enumerated(TARGET, of_three(middle, inner), Fuzzy(0.0), **knobs)
    expected = plain_law(TARGET, (), **knobs)
    assert max(abs(found.law.get(text, 0) - expected.get(text, 0)) for text in found.law | expected) < 1e-6
    assert (found.accepted > 0.5) == (middle is ALIKE)


@pytest.mark.parametrize(
    ("inner", "model"),
    [slow(match_sample, MIDDLE), slow(Fuzzy(9.0), SMALL)],
    ids=["pyramidsd_a: the middle model's", "pyramidsd_f: the smallest's"],
)
def test_where_thresholds_let_all_pass_the_law_is_a_drafts(inner, model):
    """Of one guess a round, after which the target's own token comes."""
    found = enumerated(TARGET, of_three(MIDDLE, inner, 1), Fuzzy(9.0), horizon=1)
    expected = plain_law(model, (), Sampling(), 1)
    assert max(abs(found.law[text] - expected[text]) for text in expected) < 1e-6


def test_sampled_cs_drafting_keeps_the_law_with_a_lenience_too():
    table_V = likeliest_next(np.array([0, 1, 2, 0, 1]), 3)
    copies = MaxGram(table_V, 1)
    drafter = Relay.of((Cascade(copies, MIDDLE, 1, Review(3.0)), 1), (copies, 1))
    assert largest_error(TARGET, drafter, rejection_sample, horizon=2) < 1e-6


def test_copies_are_their_readings(given):
    rng, table_V = np.random.default_rng(0), likeliest_next(CORPUS, VOCAB)
    assert {first: int(second) for first, second in enumerate(table_V) if second >= 0} == most_frequent_next()
    assert np.sum(np.asarray(table_V) < 0) == 3
    rows = [rng.integers(0, few, 3 * few).tolist() for few in (3, 5, 8, 11)]
    tokens_BS = np.zeros((4, 40), np.int32)
    for row_S, row in zip(tokens_BS, rows, strict=True):
        row_S[: len(row)] = row
    context = Context(jax.numpy.asarray(tokens_BS), jax.numpy.asarray([len(row) for row in rows]))
    for table_is, known in ((table_V, most_frequent_next()), (None, {})):
        made, _ = MaxGram(table_is, 6).propose(KEY, (), context)
        ours = [made.tokens_BN[n][made.valid_BN[n]].tolist() for n in range(4)]
        assert ours == [read.copied(row, 6, known) for row in rows]
        assert ours != [read.copied(row, 6, known, slip="latest") for row in rows]


@pytest.mark.parametrize("name", some(NAMES))
def test_sampling_through_a_method_compiles_once(given, name):
    before = None
    for seed in (0, 1, 2):
        method, prompt = METHODS[name].set(**SET[name]), ragged_prompt(4)
        knobs = {"max_new_tokens": 9 + seed, "sampling": Sampling(0.7), "eos_id": (seed, 3)}
        made = decode(given, method, prompt, **knobs)
        assert (made.lengths_B > prompt.lengths_B).all()
        assert before in (None, engine._decode._cache_size())
        before = engine._decode._cache_size()


def test_methods_are_made_of_as_many_drafts_as_there_are(given):
    psd = METHODS["pyramidsd_f"].set(threshold_q="0.3", threshold_t="0.6", divergence_t="tv", length="7").make(given)
    assert psd.accept == Fuzzy(0.3, "fsd_js") and psd.length == 7 and psd.drafter.length == 10
    assert psd.model is given.drafts["middle"] and psd.drafter.model is given.drafts["small"]
    assert METHODS["pyramidsd_f"].set(threshold_t="0.6", divergence_t="tv").accept == Fuzzy(0.6, "tv")
    one = Given(target=given.target, drafts={"small": given.drafts["small"]})
    cascade, copies = METHODS["cs_drafting"].make(one).drafters
    assert (cascade.length, cascade.model, cascade.accept) == (5, one.draft, rejection_sample)
    assert cascade.drafter == copies == MaxGram(None, 10)
    two = METHODS["cs_drafting"].make(given)
    assert two.counts == (5, 14, 10) and two.drafters[0].model is given.drafts["middle"]
    assert two.drafters[0].drafter.counts == (1, 10) and isinstance(two.drafters[1].drafter, MaxGram)
    assert METHODS["cs_drafting"].set(k_of_two="0-4-0-1-1-5").make(given).drafter.length == 5


def test_the_middle_one_is_the_next_larger_or_the_one_that_is_named(given):
    larger = BagModel.random(7, vocab=4)
    three = dataclasses.replace(given, drafts={**given.drafts, "larger": larger})
    assert METHODS["pyramidsd_a"].make(three).model is given.drafts["middle"]
    named = dataclasses.replace(three, qualifier="larger")
    for cascade in (METHODS["pyramidsd_a"].make(named), METHODS["cs_drafting"].make(named).drafters[0]):
        assert cascade.model is larger
    for name in ("small", "larger"):  # as a benchmark's NAME@DRAFT has it
        alone = dataclasses.replace(named, drafts={name: three.drafts[name]})
        assert alone.between is None and METHODS["pyramidsd_a"].lacks(alone)


def test_what_is_missing_or_cannot_be_is_said_in_one_line(given):
    one = Given(target=given.target, drafts={"small": given.drafts["small"]})
    with pytest.raises(UserError, match=r"the method pyramidsd_a needs two drafts \(--draft PATH twice\)"):
        METHODS["pyramidsd_a"].make(one)
    for name, knobs, says in (
        ("pyramidsd_f", {"length": 0}, r"pyramidsd_f\[length=0\]: length is 0; it must be at least 1"),
        ("pyramidsd_a", {"draft_length": 0}, "draft_length is 0; it must be at least 1"),
        ("pyramidsd_f", {"threshold_q": -1.0}, "the threshold of a divergence must be at least 0"),
        ("cs_drafting", {"lenience": 0.5}, "lenience is 0.5; it must be at least 1"),
        ("cs_drafting", {"k_of_two": "5-5-5"}, "2 drafts and copies take 6 counts from 0 on, not \\[5, 5, 5\\]"),
        ("cs_drafting", {"k_of_two": "0-0-0-1-1-1"}, "a row of the counts is all 0"),
    ):
        with pytest.raises(UserError, match=says):
            METHODS[name].set(**knobs).make(given)
    for name in ("pyramidsd_f", "pyramidsd_a"):
        with pytest.raises(UserError, match="is lossy, and shared noise settles"):
            METHODS[name].check_sampling(Sampling(shared_noise=True))


@pytest.mark.parametrize("lenience", [slow(1.0), slow(3.0)])
def test_with_shared_noise_cs_drafting_writes_plain_decodings_text(given, lenience):
    method, prompt = METHODS["cs_drafting"].set(**SET["cs_drafting"], lenience=lenience), ragged_prompt(4)
    knobs = {"sampling": Sampling(0.9, shared_noise=True)}
    ours, plain = decode(given, method, prompt, **knobs), decode(given, METHODS["plain"], prompt, **knobs)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.rounds_B.sum() < plain.rounds_B.sum()


def test_what_a_cascade_costs_is_not_told_by_its_length_nor_its_guesses_by_one_model(given):
    for name in ("pyramidsd_f", "pyramidsd_a"):
        drafter = METHODS[name].make(given)
        assert length_of(drafter) is None and model_of(drafter) is None
    chain = METHODS["vanilla"].make(given)
    assert length_of(chain) == 5 and model_of(chain) is given.draft

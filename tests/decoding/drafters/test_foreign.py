"""Drafts of another vocabulary: the target's law, and the guesses of a reading in plain Python without any cache."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import (
    ChainDrafter,
    Context,
    Dialogue,
    NoDraft,
    Sampling,
    block_verification,
    engine,
    generate,
    generate_from_queue,
    match_sample,
    rejection_sample,
)
from adaspec_jax.decoding.drafters.models.foreign import Foreign
from adaspec_jax.decoding.drafters.models.intersection import IntersectionDrafter, _Common
from adaspec_jax.decoding.drafters.models.respelled import RespelledDrafter
from adaspec_jax.decoding.pytree import pytree
from tests.decoding.bag_model import BagModel
from tests.decoding.enumeration import largest_error, last_test_first
from tests.decoding.foreign import Words, bag_of, llama_of, mixed, renamed
from tests.decoding.recording import Asked, play, prompts, tiny_llama
from tests.decoding.test_dialogue import assert_same, padded
from tests.decoding.test_engine import GREEDY, KEY, decode
from tests.decoding.test_programs import locked
from tests.running import slow, some

NEW = 24
DRAFTERS = {"intersection": IntersectionDrafter, "respelled": RespelledDrafter}

# The target has 4 tokens and the draft 5, of which two are common; 1 is spelled with two, and 3 with one of the others.
LAW_WORDS = Words(((3,), (1, 4), (0,), (4,)), ((2,), (1, 3), (-1,), (0,), (3, 1)), (2,))
LAW_TARGET, LAW_DRAFT = BagModel.random(5, vocab=4), BagModel.random(6, vocab=5)
FOREIGN = LAW_WORDS.foreign(LAW_DRAFT, room=2)
NUCLEUS = Sampling(1.3, top_p=0.8)
PROCESSED = Sampling(0.8, repetition_penalty=1.6, logit_bias={0: 0.7}, suppress_tokens=(3,))
NONE_LEFT = Sampling(suppress_tokens=(0, 2))  # of the common tokens
CASES = {
    "intersection": (IntersectionDrafter, 2, rejection_sample, {}),
    "intersection, three guesses": (IntersectionDrafter, 3, rejection_sample, {"horizon": 4}),
    "intersection, ends of text": (IntersectionDrafter, 2, rejection_sample, {"eos": 2}),
    "intersection, nucleus": (IntersectionDrafter, 2, rejection_sample, {"sampling": NUCLEUS}),
    "intersection, processed": (IntersectionDrafter, 2, rejection_sample, {"sampling": PROCESSED}),
    "intersection, nothing left": (IntersectionDrafter, 2, rejection_sample, {"sampling": NONE_LEFT}),
    "intersection, block": (IntersectionDrafter, 2, block_verification, {"order": last_test_first(2)}),
    "intersection, match": (IntersectionDrafter, 2, match_sample, {}),
    "respelled, match": (RespelledDrafter, 2, match_sample, {}),
    "respelled, three guesses": (RespelledDrafter, 3, match_sample, {"horizon": 4}),
    "respelled": (RespelledDrafter, 2, rejection_sample, {"eos": 0}),
    "respelled, processed": (RespelledDrafter, 2, match_sample, {"sampling": PROCESSED}),
}
QUICK = {"intersection", "intersection, processed", "respelled, match"}


@pytest.mark.parametrize("case", some(CASES, *QUICK))
def test_the_output_follows_the_targets_law_exactly(case):
    drafter, length, accept, knobs = CASES[case]
    assert largest_error(LAW_TARGET, drafter(FOREIGN, length), accept, **knobs) < 1e-6


@pytest.mark.parametrize("seed", [slow(0), slow(1), slow(2)])
def test_larger_vocabularies_are_as_exact(seed):
    target, words = BagModel.random(seed, vocab=5), mixed(5, 3, 2, seed)
    foreign = words.foreign(bag_of(target, words, seed, 1.0), room=3)
    assert largest_error(target, IntersectionDrafter(foreign, 2), rejection_sample) < 1e-6


class NotRenormalised(IntersectionDrafter):
    """States the draft's own law over common tokens, what it gives to others left out."""

    def propose(self, key, cache, context):
        proposal, after = super().propose(key, cache, dataclasses.replace(context, opinion=True))
        kept = 0.75  # of the draft's mass, everywhere
        return dataclasses.replace(proposal, probs_BNV=proposal.probs_BNV * kept, opinion_BNV=None), after


pytree("length")(NotRenormalised)


def test_a_law_that_is_not_renormalised_is_found():
    assert largest_error(LAW_TARGET, NotRenormalised(FOREIGN, 2), rejection_sample) > 1e-5


@pytest.fixture(scope="module")
def target():
    return tiny_llama(num_hidden_layers=2)


WORDS = mixed(23, 19, 4, seed=2, beginning=(3, 5))


def read_intersection(say: Asked, words: Words, text, length: int, choose=max) -> list[int]:
    """The guesses after a text: the likeliest common token, again and again, the text spelled anew every time."""
    guesses = []
    for _ in range(length):
        logits = say.logits(words.spelled([*text, *guesses]))
        guesses.append(choose(sorted(words.common), key=lambda v: logits[words.common[v]]))  # noqa: B023
    return guesses


def read_respelled(say: Asked, words: Words, text, length: int, choose=max) -> list[int]:
    """The draft's likeliest tokens, in the target's, up to one that says nothing."""
    spelled, said = words.spelled(text), []
    for _ in range(length):
        logits = say.logits([*spelled, *said])
        said.append(choose(range(len(logits)), key=lambda w: logits[w]))  # noqa: B023
    whole = [v for w in said for v in words.meanings[w]][:length]
    return whole[: whole.index(-1)] if -1 in whole else whole


READINGS = {"intersection": read_intersection, "respelled": read_respelled}


@pytest.fixture(scope="module")
def played(target):
    """{kind: (the prompts, every row's rounds, what Python can ask the draft)}."""
    draft, prompt = llama_of(target, WORDS), prompts(4)
    asked = Asked(draft)
    return {
        kind: (
            prompt,
            play(target, drafter(WORDS.foreign(draft, room=3), 4), prompt, max_new_tokens=NEW),
            asked,
        )
        for kind, drafter in DRAFTERS.items()
    }


def guesses_of(paths) -> list[int]:
    """The guesses of a chain, which a recording has as paths from the root; nothing follows one that is invalid."""
    chain = [*paths[-1]] if paths else []
    return chain[: chain.index(-1)] if -1 in chain else chain


@pytest.mark.parametrize("kind", DRAFTERS)
def test_guesses_are_those_of_a_reading_without_a_cache(target, played, kind):
    prompt, rows, say = played[kind]
    taken = 0
    for row, made in enumerate(rows):
        for at, paths in made.rounds:
            assert guesses_of(paths) == READINGS[kind](say, WORDS, made.text[:at], 4), (row, at)
        start = int(prompt.lengths_B[row])
        assert made.text[start:] == tuple(written(target, made.text[:start], NEW))
        taken += NEW - len(made.rounds)
    assert taken > 8


def written(target, text, count):
    say, text = Asked(target), list(text)
    for _ in range(count):
        text.append(say.choice(text))
    return text[-count:]


def slips():
    """Vocabularies with one slip each; the readings by them must differ."""
    outside = next(v for v, row in enumerate(WORDS.spellings) if len(row) > 1)
    turned = [row[::-1] for row in WORDS.spellings]
    return {
        "no beginning": dataclasses.replace(WORDS, beginning=()),
        "turned round": dataclasses.replace(WORDS, spellings=tuple(turned)),
        "one letter lost": dataclasses.replace(
            WORDS, spellings=tuple(row[1:] if len(row) > 1 else row for row in WORDS.spellings)
        ),
        "two ids exchanged": dataclasses.replace(
            WORDS, meanings=tuple(m if m != (outside,) else (0,) for m in exchanged(WORDS.meanings))
        ),
    }


def exchanged(meanings):
    """The first two common tokens in each other's place."""
    one, other = [w for w, row in enumerate(meanings) if len(row) == 1 and row != (-1,)][:2]
    order = list(range(len(meanings)))
    order[one], order[other] = other, one
    return [meanings[w] for w in order]


@pytest.mark.parametrize("kind", DRAFTERS)
@pytest.mark.parametrize("slip", ["no beginning", "turned round", "one letter lost", "two ids exchanged"])
def test_a_reading_with_one_slip_differs(played, kind, slip):
    _, rows, say = played[kind]
    words = slips()[slip]
    assert any(
        guesses_of(paths) != READINGS[kind](say, words, made.text[:at], 4) for made in rows for at, paths in made.rounds
    )


@pytest.mark.parametrize("kind", some(DRAFTERS, "intersection"))
def test_a_row_that_lacks_much_waits_and_one_that_outgrows_its_slots_goes_on_plainly(target, kind):
    """There is room for one draft token beside each of the target's, and a spelling of odd tokens has five."""
    spellings = tuple((w - 1, w, w, w, w) if w % 2 else (w,) for w in range(23))
    words = Words(spellings, tuple((w,) for w in range(23)))
    draft = llama_of(target, renamed(23))
    drafter = DRAFTERS[kind](words.foreign(draft), 2)
    tokens_BS = np.array([[1] * 40, [2] * 40])
    made = play(target, drafter, Context(tokens_BS, np.array([18, 30])), max_new_tokens=NEW)
    say, most = Asked(draft, longest=256), engine._slots(40, NEW, drafter) + 5
    for each in made:
        text, rounds = each.text, each.rounds
        start = len(text) - NEW
        assert text[start:] == tuple(written(target, text[:start], NEW))
        known = [(at, guesses_of(paths)) for at, paths in rounds]
        assert all(guesses in ([], READINGS[kind](say, words, text[:at], 2)) for at, guesses in known)
        fits = [len(words.spelled(text[:at])) < most for at, _ in known]
        assert not any(guesses for fit, (_, guesses) in zip(fits, known, strict=True) if not fit)
        guessed = [bool(guesses) for fit, (_, guesses) in zip(fits, known, strict=True) if fit]
        if text[0] == 1:
            assert not guessed[0] and any(guessed) and not all(fits)
        else:
            assert guessed[0]


PERMUTED = renamed(11, seed=4)


@pytest.fixture(scope="module")
def pair():
    target = BagModel.random(0, vocab=11, scale=2.0)
    noise = BagModel.random(1, vocab=11, scale=0.5)
    return target, BagModel(target.table_VV + noise.table_VV)


def under_other_names(model: BagModel, words: Words) -> BagModel:
    ids = np.argsort([row[0] for row in words.spellings])
    return BagModel(jnp.asarray(np.asarray(model.table_VV)[np.ix_(ids, ids)]))


SAMPLINGS = {
    "greedy": GREEDY,
    "nucleus": Sampling(0.9, top_p=0.9),
    "shared noise": Sampling(0.8, shared_noise=True),
    "processed": Sampling(0.7, repetition_penalty=1.5, logit_bias={3: 1.5}, suppress_tokens=(5,)),
}


@pytest.mark.parametrize("way", some(SAMPLINGS, "greedy", "processed"))
def test_a_draft_whose_tokens_are_only_renamed_guesses_what_an_ordinary_chain_guesses(pair, way):
    (target, draft), sampling = pair, SAMPLINGS[way]
    foreign = PERMUTED.foreign(under_other_names(draft, PERMUTED))
    prompt = padded([[4], [3, 1, 9, 9, 0], [7, 2]])
    knobs = {"max_new_tokens": NEW, "sampling": sampling, "eos_id": 8}
    chain = jax.device_get(generate(target, ChainDrafter(draft, 4), prompt, KEY, **knobs))
    ours = jax.device_get(generate(target, IntersectionDrafter(foreign, 4), prompt, KEY, **knobs))
    assert_same(ours, chain)
    assert 0 < ours.accepted_BN.sum() < ours.judged_BN.sum()


TALK_WORDS = mixed(11, 7, 4, seed=3, beginning=(2,))


@pytest.fixture(scope="module")
def drafters(pair):
    foreign = TALK_WORDS.foreign(bag_of(pair[0], TALK_WORDS), room=3)
    return {kind: drafter(foreign, 3) for kind, drafter in DRAFTERS.items()}


@pytest.mark.parametrize("kind", some(DRAFTERS, "intersection"))
def test_a_dialogue_goes_on_from_the_drafts_own_cache(target, kind):
    """Each turn's counts are those of reading the whole conversation; rows go on, are rewritten, and begin anew."""
    rng, drafter = np.random.default_rng(0), DRAFTERS[kind](WORDS.foreign(llama_of(target, WORDS), room=3), 3)
    knobs = {"max_new_tokens": 9, "sampling": GREEDY, "eos_id": 7}
    talk, rows, accepted = Dialogue(target, drafter, **knobs), [[4], [3, 1, 9, 9, 0], [7, 2, 8]], 0
    for turn in range(3):
        ours = jax.device_get(talk.turn(padded(rows, 64), KEY))
        assert_same(ours, jax.device_get(generate(target, drafter, padded(rows, 64), KEY, **knobs)))
        one, two, three = (row[:length].tolist() for row, length in zip(ours.tokens_BS, ours.lengths_B, strict=True))
        accepted += ours.accepted_BN.sum()
        more = lambda count: rng.integers(0, 23, count).tolist()  # noqa: E731
        rows = [one + more(2), two[:2] + more(4) + two[5:], more(6) if turn else three + more(1)]
    assert accepted > 0


def test_a_good_draft_goes_on_from_its_own_cache(pair):
    """Where all is accepted to a turn's end, what the draft never read would show in the counts."""
    target, rng, rows = pair[0], np.random.default_rng(1), [[4], [3, 1, 9, 9, 0], [7, 2, 8]]
    drafter = IntersectionDrafter(PERMUTED.foreign(under_other_names(target, PERMUTED)), 3)
    talk = Dialogue(target, drafter, max_new_tokens=8, sampling=GREEDY)
    for _ in range(3):
        made = jax.device_get(talk.turn(padded(rows, 64), KEY))
        assert made.accepted_BN.sum() == made.judged_BN.sum() == 3 * 6  # two rounds, each of them three and a bonus
        ends = zip(made.tokens_BS, made.lengths_B, strict=True)
        rows = [row[:length].tolist() + rng.integers(0, 11, 2).tolist() for row, length in ends]


@pytest.mark.parametrize("kind", some(DRAFTERS))
def test_shared_noise_writes_one_text_in_batches_alone_and_in_a_queue(pair, drafters, kind):
    prompt = padded([[4], [3, 1, 9, 9, 0], [7, 2, 8], [0, 1]])
    knobs = {"max_new_tokens": 17, "sampling": Sampling(0.9, shared_noise=True), "eos_id": 7}
    plain = decode(pair[0], NoDraft(), prompt, **knobs)
    ours = decode(pair[0], drafters[kind], prompt, **knobs)
    queued = generate_from_queue(pair[0], drafters[kind], prompt, KEY, rows=2, refill=1, **knobs)
    for made in (ours, queued):
        np.testing.assert_array_equal(made.tokens_BS, plain.tokens_BS)
    np.testing.assert_array_equal(queued.accepted_BN, ours.accepted_BN)
    assert ours.accepted_BN.sum() > 0


def test_prompts_are_read_as_the_draft_spells_them():
    words = Words(((3,), (1, 4), (), (0, 0, 2)), ((-1,),) * 5, (4, 4))
    foreign: Foreign = words.foreign(BagModel.random(0, vocab=5), room=2)
    rows = [[3, 0, 2, 1, 3], [0], [2, 2], [1, 3, 1, 0]]
    prompt = padded(rows)
    read = jax.jit(lambda tokens_BS, lengths_B: foreign.read_prompt(Context(tokens_BS, lengths_B), 16))
    cache = jax.device_get(read(prompt.tokens_BS, prompt.lengths_B))
    for row, text in enumerate(rows):
        spelled = words.spelled(text)
        assert int(cache.lengths_B[row]) == len(spelled)
        assert cache.tokens_BS[row, : len(spelled)].tolist() == spelled
        assert cache.positions_BS[row, : len(spelled)].tolist() == list(range(len(spelled)))


def test_ids_beyond_the_tables_are_no_tokens():
    """The law over the target's ids is the draft's over the common tokens, and nothing else."""
    logits_V = _Common(LAW_DRAFT, FOREIGN.draft_of_V).of_target(jnp.array([0.5, 9.0, 9.0, -1.0, 9.0]))
    law_V = np.asarray(jax.nn.softmax(logits_V))
    expected = np.exp([-1.0, 0.5]) / np.exp([-1.0, 0.5]).sum()
    np.testing.assert_allclose(law_V, [expected[0], 0, expected[1], 0], atol=1e-6)
    assert FOREIGN.shared == 2


@pytest.mark.parametrize("kind", some(DRAFTERS))
def test_a_round_moves_no_cache(target, kind):
    if not (locked("jax") and locked("flax")):
        pytest.skip("what the compiler makes of a program is looked at with the lock's versions of jax and flax")
    foreign = WORDS.foreign(llama_of(target, WORDS), room=3)
    prompt = Context(np.ones((2, 331), np.int32), np.full(2, 331))
    arguments, slots = engine.program_arguments(target, DRAFTERS[kind](foreign, 3), prompt, KEY, 40, -1)
    static = {"slots": slots, "sampling": GREEDY, "accept": rejection_sample}
    text = engine._decode.lower(*arguments, **static).compile().as_text()
    rounds = text[: text.index("\nENTRY")]
    held = foreign._slots(slots)
    assert f"f32[2,2,{held},16]" in rounds
    for length in (slots, held):
        assert not re.search(rf"f32\[2,2,{length},16\]\S* (copy|transpose)\(", rounds)

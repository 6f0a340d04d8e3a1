"""Heads decode what they were trained to: guess for guess by training's own path, and plain decoding's text."""

import dataclasses

import jax
import numpy as np
import pytest

from adaspec_jax.decoding import Context, NoDraft, Sampling, engine, generate, generate_from_queue
from adaspec_jax.decoding.drafters.levels import one_by_one
from tests.decoding.drafters.collapsing import spelt
from tests.decoding.drafters.heads import TREE, VOCAB, WAYS, Said, drafter_of, target
from tests.decoding.drafters.test_growth import levels_of
from tests.decoding.recording import play
from tests.decoding.test_engine import ragged_prompt
from tests.running import slow, some

GREEDY, KEY, NEW = Sampling(temperature=0.0), jax.random.key(0), 24
NAMES = [*WAYS]
OFTEN = ("eagle chain", "kangaroo weak", "eagle3 grown", "medusa tree", "hydra_plus tree")


def decode(drafter, prompt, how=generate, **knobs):
    knobs = {"max_new_tokens": NEW, "sampling": GREEDY, "eos_id": (-1, -1)} | knobs
    return jax.device_get(how(target(), drafter, prompt, KEY, **knobs))


def ranked(said, text, counts):
    """The nodes of a tree of ranks, level by level."""
    nodes, level = [], [()]
    for row in counts:
        level = [
            (*path, token)
            for path, count in zip(level, row, strict=True)
            for token in np.argsort(-said.logits(text, path), kind="stable")[:count].tolist()
        ]
        nodes += level
    return nodes


def in_frames(said, text, counts):
    """The texts that are left of a tree of frames, each after the likeliest token of the one before, as first spelt."""
    path, blank, frames = (), VOCAB, []
    for _ in counts:
        logits = said.logits(text, path)
        frames.append(np.argsort(-logits, kind="stable").tolist())
        path += (int(np.argmax(logits[:blank])),)
    return spelt(counts, lambda above, rank: frames[len(above)][rank], blank)


def until_weak(said, text, paths, threshold):
    """The first guesses of a chain, to the first in whose place the likeliest token is less likely than that."""
    weak = [np.exp(said.logprobs(text, path[:-1]).max()) < threshold for path in paths]
    return paths[: weak.index(True) + 1] if any(weak) else paths


@pytest.mark.parametrize("name", some(NAMES, *OFTEN, "eagle tree", "hydra chain"))
def test_every_guess_is_what_training_would_make_of_the_text_before_it(name):
    """In every round, whatever was refused before: the head's cache is that of the whole text read anew."""
    head, drafter = drafter_of(name)
    said = Said(head, blank=name == "ctc tree")
    prompt = ragged_prompt(8 if "falcon" in name else 3, vocab=VOCAB)  # which learns less
    new = NEW // 2 if "grown" in name else NEW  # a grown tree is read path by path
    played = play(target(), drafter, prompt, max_new_tokens=new)
    early = "kangaroo" in name or "pass" in name
    assert early or played[0].rounds[0] == (1, [])  # there is no hidden state before the only token of a prompt
    taken = 0
    for row in played:
        for length, guesses in row.rounds[int(row.rounds[0][0] == 1 and not early) :]:
            text = row.text[:length]
            if "grown" in name:
                expected = levels_of(lambda path, text=text: said.logprobs(text, path), budget=8, k=3, depth=3)
            elif name == "ctc tree":
                expected = in_frames(said, text, TREE)
            else:
                expected = ranked(said, text, TREE if "tree" in name else one_by_one(drafter.depth))
            if "weak" in name:
                expected = until_weak(said, text, expected, 0.3)
            assert guesses == expected, (name, length)
            taken += tuple(row.text[length : length + 2]) in guesses
    # Paths of two accepted guesses, after which there was more to read again.
    assert taken > 3 - ("weak" in name) - 2 * (name == "amphista chain")


@pytest.mark.parametrize("name", some(NAMES, *OFTEN, "eagle tree"))
def test_greedy_text_is_plain_decodings(name):
    _, drafter = drafter_of(name)
    for batch, budget, ends in ((8, NEW, (-1, -1)), (8, NEW, (7, 2)), (8, 3, (-1, -1)), (1, NEW, (7, 2))):
        prompt = ragged_prompt(batch, vocab=VOCAB)
        plain, ours = (decode(each, prompt, max_new_tokens=budget, eos_id=ends) for each in (NoDraft(), drafter))
        np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
        np.testing.assert_array_equal(ours.lengths_B, plain.lengths_B)
        assert batch == 1 or budget < NEW or ours.rounds_B.sum() < plain.rounds_B.sum()


@pytest.mark.parametrize("name", some(NAMES, "eagle chain", "medusa tree"))
def test_a_queue_gives_every_prompt_what_a_batch_gives_it(name):
    _, drafter = drafter_of(name)
    prompt = ragged_prompt(8, vocab=VOCAB)
    batched = decode(drafter, prompt, eos_id=(7, 2))
    queued = decode(drafter, prompt, how=generate_from_queue, rows=3, refill=1, eos_id=(7, 2))
    for field in ("tokens_BS", "rounds_B", "accepted_BN", "judged_BN", "drafted_B"):
        np.testing.assert_array_equal(getattr(queued, field), getattr(batched, field), err_msg=field)


@pytest.mark.parametrize("name", some(NAMES, "eagle3 grown", "hydra_plus tree"))
def test_with_shared_noise_every_drafter_samples_plain_decodings_text(name):
    _, drafter = drafter_of(name)
    prompt, how = ragged_prompt(8, vocab=VOCAB), {"sampling": Sampling(0.7, shared_noise=True), "eos_id": (7, 2)}
    plain, ours = (decode(each, prompt, **how) for each in (NoDraft(), drafter))
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.rounds_B.sum() < plain.rounds_B.sum()


@pytest.mark.parametrize("name", some(NAMES, "eagle3 grown", "hydra_plus tree"))
def test_nothing_is_compiled_again_after_warm_up(name):
    _, drafter = drafter_of(name)
    decode(drafter, ragged_prompt(8, vocab=VOCAB), eos_id=(7, 2))
    before = engine._decode._cache_size()
    for longest, budget in ((3, 9), (6, 20)):
        decode(drafter_of(name)[1], ragged_prompt(8, longest, vocab=VOCAB), max_new_tokens=budget)
    assert engine._decode._cache_size() == before


@pytest.mark.parametrize("name", [slow("eagle grown"), "eagle3 grown"])
def test_guesses_that_are_unlikely_are_dropped_and_verified_narrowly(name):
    _, drafter = drafter_of(name)
    prompt = ragged_prompt(4, vocab=VOCAB)
    fewer = dataclasses.replace(drafter, least=0.1, widths=(2, 4))
    whole, ours = decode(drafter, prompt), decode(fewer, prompt)
    np.testing.assert_array_equal(ours.tokens_BS, whole.tokens_BS)
    assert whole.drafted_B.sum() > ours.drafted_B.sum() > 0


def test_a_tree_wider_than_the_vocabulary_guesses_its_last_token_again():
    _, drafter = drafter_of("medusa tree")
    wide = dataclasses.replace(drafter, counts=((30,), (2, *(0,) * 29)))
    prompt = Context(np.array([[1, 2, 3]]), np.array([3]))
    np.testing.assert_array_equal(decode(wide, prompt).tokens_BS, decode(NoDraft(), prompt).tokens_BS)


@pytest.mark.parametrize(
    ("name", "numbers", "says"),
    [
        ("eagle chain", {"length": 0}, "length is 0; it must be at least 1"),
        ("kangaroo chain", {"length": 0}, "length is 0; it must be at least 1"),
        ("eagle tree", {"counts": ((2,), (1,))}, "a level of 2 nodes is followed by 1 numbers"),
        ("eagle tree", {"counts": ((1, 1),)}, "a tree begins with the children of its root"),
        ("eagle grown", {"branch": 0}, "branch is 0; it must be at least 1"),
        ("eagle grown", {"least": 1.0}, "least is 1.0; it must be at least 0 and below 1"),
        ("medusa chain", {"length": 0}, "length is 0; it must be at least 1"),
        ("medusa tree", {"counts": one_by_one(4)}, "4 guesses in a row are asked of heads that guess 3"),
        ("hydra tree", {"counts": one_by_one(4)}, "4 guesses in a row are asked of heads that guess 3"),
        ("hydra chain", {"length": 0}, "0 guesses in a row"),
    ],
)
def test_impossible_numbers_are_refused(name, numbers, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(drafter_of(name)[1], **numbers)

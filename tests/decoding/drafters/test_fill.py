"""Jacobi decoding against a reading of it in plain Python: one block, set at once, until nothing changes."""

import numpy as np
import pytest

from adaspec_jax.decoding.drafters.text.fill import Jacobi
from tests.decoding.recording import Asked, play, prompts, tiny_llama

FILL, NEW = 5, 24


@pytest.fixture(scope="module")
def target():
    return tiny_llama()


def read_sliding(say, prompt, end, length, *, slip=0):
    """[(committed, block before the step)], the block as long at every step."""
    text, block, rounds = list(prompt), [FILL] * length, []
    while len(text) < end:
        rounds.append((len(text), tuple(block)))
        following = [say.choice(text + block[:place]) for place in range(length + 1)]
        stable = 0
        while stable < length and block[stable] == following[stable]:
            stable += 1
        text += following[: stable + 1]
        block = (following[stable + 1 + slip :] + [FILL] * length)[:length]
    return tuple(text[:end]), rounds


def read_gauss_seidel(say, prompt, end, length):
    """The same, where a block begins at every `length` tokens after the prompt and is finished before the next."""
    text, rounds, block = list(prompt), [], []
    while len(text) < end:
        left = length - (len(text) - len(prompt)) % length
        block = block if 0 < len(block) == left else [FILL] * left
        rounds.append((len(text), tuple(block)))
        following = [say.choice(text + block[:place]) for place in range(left + 1)]
        stable = 0
        while stable < left and block[stable] == following[stable]:
            stable += 1
        text += following[: stable + 1]
        block = following[stable + 1 : left]
    return tuple(text[:end]), rounds


def offered(played):
    return [(length, guesses[-1]) for length, guesses in played.rounds]


@pytest.mark.parametrize("length", [1, 4, 9])
@pytest.mark.parametrize("read", [read_sliding, read_gauss_seidel])
def test_every_block_is_what_the_paper_says(target, read, length):
    prompt, say = prompts(4), Asked(target)
    made = play(target, Jacobi(length, FILL, read is read_sliding), prompt, max_new_tokens=NEW)
    for row, played in enumerate(made):
        start = prompt.tokens_BS[row, : prompt.lengths_B[row]].tolist()
        assert (played.text, offered(played)) == read(say, start, len(start) + NEW, length)
    if length > 1:
        assert any(len(played.rounds) < NEW for played in made)


def test_a_block_moved_by_one_place_is_found(target):
    prompt, say = prompts(4), Asked(target)
    made = play(target, Jacobi(4, FILL), prompt, max_new_tokens=NEW)
    starts = [prompt.tokens_BS[row, :n].tolist() for row, n in enumerate(prompt.lengths_B)]
    wrong = [read_sliding(say, start, len(start) + NEW, 4, slip=1)[1] for start in starts]
    assert wrong != [offered(played) for played in made]


def test_a_gauss_seidel_block_needs_no_more_steps_than_it_has_places(target):
    made = play(target, Jacobi(4, FILL, slides=False), prompts(4), max_new_tokens=NEW)
    for played in made:
        blocks = [(length - played.rounds[0][0]) // 4 for length, _ in played.rounds]
        assert np.bincount(blocks).max() <= 4


def test_an_empty_block_is_refused():
    with pytest.raises(ValueError, match="at least one position"):
        Jacobi(0)

"""LOOKAHEAD against a reading of its algorithm in plain Python: lists for the window, a dictionary for the pool."""

import numpy as np
import pytest

from adaspec_jax.decoding import Context
from adaspec_jax.decoding.drafters.text.lookahead import Lookahead
from tests.decoding.recording import Asked, play, prompts, tiny_llama

NEW = 40


@pytest.fixture(scope="module")
def target():
    return tiny_llama()


def remember(pool, key, gram, limit):
    held = pool.setdefault(key, [])
    if gram in held:
        held.remove(gram)
    elif len(held) == limit:
        del held[0]
    held.append(gram)


def read(say, prompt, end, n, width, limit, from_prompt=False, *, slip=0):
    """[(committed, the pool's n-grams offered)]; a window row is a list, the first one without the root."""
    text, pool, rounds = list(prompt), {}, []
    for place in range(len(prompt) - n + 1 if from_prompt else 0):
        remember(pool, prompt[place], tuple(prompt[place + 1 : place + n]), limit)
    rows = [[prompt[place % len(prompt)] for place in range(width + n - 3)]]
    while len(text) < end:
        full = len(rows) == n - 1
        guesses = list(pool.get(text[-1], [])) if full else []
        rounds.append((len(text), guesses))
        # What the target says after each token of the last row: it sees the first row up to its column, then its own.
        columns = len(rows[0]) + 1
        new = []
        for column in range(columns):
            context = text + rows[0][:column] + [row[column] for row in rows[1:]]
            new.append(say.choice(context))
        before = text[-1]
        best = max((agreed(say, text, guess) for guess in guesses), default=0)
        for _ in range(best + 1):
            text.append(say.choice(text))
        if full:
            for column, key in enumerate([before, *rows[0]]):
                gram = tuple(row[column] for row in rows[1:]) + (new[(column + slip) % columns],)
                remember(pool, key, gram, limit)
            rows = [rows[1][1:], *rows[2:], new]
        elif len(rows) == 1:
            rows = [rows[0][1:], new[1:]]
        else:
            rows = [row[1:] for row in rows] + [new[1:]]
    return tuple(text[:end]), rounds


def agreed(say, text, guess):
    count = 0
    while count < len(guess) and say.choice([*text, *guess[:count]]) == guess[count]:
        count += 1
    return count


def beginnings(guesses):
    """The n-grams and all their beginnings, each once and in order."""
    return sorted({guess[:end] for guess in guesses for end in range(1, len(guess) + 1)})


def offered(rounds):
    return [(length, beginnings(guesses)) for length, guesses in rounds]


SIZES = [(3, 1, 1), (3, 4, 3), (4, 5, 2), (5, 7, 7), (5, 1, 2), (3, 3, 2, True)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_round_offers_what_the_algorithm_says(target, size):
    prompt, say = prompts(3), Asked(target)
    made = play(target, Lookahead(23, *size), prompt, max_new_tokens=NEW)
    for row, played in enumerate(made):
        start = prompt.tokens_BS[row, : prompt.lengths_B[row]].tolist()
        text, rounds = read(say, start, len(start) + NEW, *size)
        assert played.text == text and offered(played.rounds) == offered(rounds)
        assert all(len(set(guesses)) == len(guesses) for _, guesses in played.rounds)
    if size[1] > 1:
        assert any(len(played.rounds) < NEW for played in made)


def test_a_column_read_one_place_aside_is_found(target):
    prompt, say = prompts(3), Asked(target)
    made = play(target, Lookahead(23, 4, 5, 2), prompt, max_new_tokens=NEW)
    starts = [prompt.tokens_BS[row, :n].tolist() for row, n in enumerate(prompt.lengths_B)]
    wrong = [read(say, start, len(start) + NEW, 4, 5, 2, slip=1)[1] for start in starts]
    assert [offered(rounds) for rounds in wrong] != [offered(played.rounds) for played in made]


def test_n_grams_with_a_common_beginning_share_its_nodes(target):
    """Else the walk would follow the first of them, and the others would be lost."""
    made = play(target, Lookahead(23, 4, 9, 9), prompts(6, seed=5), max_new_tokens=NEW)
    shared = [
        guesses
        for played in made
        for _, guesses in played.rounds
        if len({guess[0] for guess in guesses}) < sum(len(guess) == 3 for guess in guesses)
    ]
    assert shared


def test_a_prompt_of_one_token_fills_the_window(target):
    prompt = Context(np.array([[4], [9]]), np.array([1, 1]))
    assert all(len(played.text) == 1 + 12 for played in play(target, Lookahead(23), prompt, max_new_tokens=12))


@pytest.mark.parametrize("size", [(2, 7, 7), (5, 0, 7), (5, 7, 0)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="n-grams have at least 3 tokens"):
        Lookahead(23, *size)

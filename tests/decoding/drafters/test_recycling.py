"""Token recycling against a reading of it in plain Python: a dictionary of candidates and a list of paths."""

import jax
import numpy as np
import pytest

from adaspec_jax.decoding import Context, Sampling, generate_and_learn, with_memory
from adaspec_jax.decoding.drafters.text.recycling import TREE, TokenRecycling, _Learnt
from tests.decoding.recording import Asked, play, prompts, tiny_llama

NEW = 20
SMALL = ((3,), (2, 1, 0), (1, 0, 1))


def paths_of(tree):
    """Every node as the ranks on the way to it, level by level."""
    level, found = [()], []
    for counts in tree:
        level = [(*path, rank) for path, count in zip(level, counts, strict=True) for rank in range(count)]
        found += level
    return found


def read(say, prompt, end, paths, width, *, refused_teach=True, matrix=None):
    """[(committed, guesses as token paths)] of recycling over the tree of these paths; `matrix` is added to."""
    text, matrix, rounds = list(prompt), {} if matrix is None else matrix, []
    while len(text) < end:
        tokens = {(): text[-1]}
        for path in paths:
            tokens[path] = matrix.get(tokens[path[:-1]], [0] * width)[path[-1]]
        way = {path: tuple(tokens[path[:depth]] for depth in range(1, len(path) + 1)) for path in [(), *paths]}
        rounds.append((len(text), [way[path] for path in paths]))
        taught = {path: say.likeliest(text + list(way[path]), width) for path in [(), *paths]}
        stand = ()
        while True:
            text.append(taught[stand][0])
            following = [path for path in paths if path[:-1] == stand and tokens[path] == text[-1]]
            if not following:
                break
            stand = following[0]
        for path in [(), *paths]:
            if refused_teach or path == stand[: len(path)]:
                matrix[tokens[path]] = taught[path]
    return tuple(text[:end]), rounds


@pytest.fixture(scope="module")
def target():
    return tiny_llama()


@pytest.mark.parametrize("tree", [SMALL, TREE], ids=["small", "whole"])
def test_every_tree_is_what_the_paper_says(target, tree):
    prompt, say, drafter = prompts(3), Asked(target), TokenRecycling(23, tree)
    made = play(target, drafter, prompt, max_new_tokens=NEW)
    for row, played in enumerate(made):
        start = prompt.tokens_BS[row, : prompt.lengths_B[row]].tolist()
        assert (played.text, played.rounds) == read(
            say, start, len(start) + NEW, paths_of(tree), drafter.asks.likeliest
        )
    assert any(len(played.rounds) < NEW for played in made)


def test_refused_nodes_teach_too(target):
    prompt, say = prompts(1), Asked(target)
    (played,) = play(target, TokenRecycling(23, SMALL), prompt, max_new_tokens=NEW)
    start = prompt.tokens_BS[0, : prompt.lengths_B[0]].tolist()
    less = read(say, start, len(start) + NEW, paths_of(SMALL), 3, refused_teach=False)
    assert less[0] == played.text and less[1] != played.rounds


def test_the_papers_tree_has_eighty_nodes():
    assert [sum(level) for level in TREE] == [8, 21, 25, 15, 8, 3]
    paths = paths_of(TREE)
    assert len(paths) == len(set(paths)) == 80
    assert {(0, 7, 0), (1, 1, 0), (3, 0, 0, 0), (0, 0, 4, 0), (0, 0, 0, 2, 0), (0, 0, 0, 1, 0, 0)} <= set(paths)


def test_a_vocabulary_smaller_than_the_tree_is_wide():
    target = tiny_llama(vocab_size=5)
    (played,) = play(target, TokenRecycling(5), prompts(1, vocab=5), max_new_tokens=8)
    assert len(played.text) == 9 + 8


def test_a_matrix_outlives_requests_where_it_is_kept(target):
    """Requests one after the other, of which the last asks what the first did."""
    say, matrix, drafter = Asked(target), {}, with_memory(TokenRecycling(23, SMALL))
    asked, rounds = prompts(2, longest=9).tokens_BS, []
    for tokens_BS in (asked[:1], asked[1:], asked[:1]):
        prompt, knobs = Context(tokens_BS, np.array([9])), {"max_new_tokens": NEW, "sampling": Sampling(0.0)}
        made, drafter = generate_and_learn(target, drafter, prompt, jax.random.key(0), **knobs)
        read_alone = read(say, tokens_BS[0].tolist(), 9 + NEW, paths_of(SMALL), 3)
        read_on = read(say, tokens_BS[0].tolist(), 9 + NEW, paths_of(SMALL), 3, matrix=matrix)
        assert tuple(made.tokens_BS[0].tolist()) == read_on[0] == read_alone[0]
        assert int(made.rounds_B[0]) == len(read_on[1])
        rounds.append((len(read_alone[1]), len(read_on[1])))
        expected = [matrix.get(token, [0, 0, 0]) for token in range(23)]
        np.testing.assert_array_equal(drafter.memory, expected)
    assert rounds[0][0] == rounds[0][1] and rounds[2][0] > rounds[2][1]


def test_of_two_rows_the_later_one_counts():
    drafter = with_memory(TokenRecycling(4, ((2,),)))
    table_BVK = np.full((2, 4, 2), -1)
    table_BVK[0, :2], table_BVK[1, 1:3] = 1, 2
    nothing = Context(np.zeros((2, 5), int), np.full(2, 5), likeliest_BMK=np.zeros((2, 3, 2), int))
    state = _Learnt(jax.numpy.asarray(table_BVK), np.full((2, 3), 4), np.full(2, 4))
    learnt = drafter.remember(state, nothing, np.full(2, 3))
    np.testing.assert_array_equal(learnt, [[1, 1], [2, 2], [2, 2], [0, 0]])

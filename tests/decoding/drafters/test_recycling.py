"""Token recycling against a reading of it in plain Python: a dictionary of candidates and a list of paths."""

import pytest

from adaspec_jax.decoding.drafters.text.recycling import TREE, TokenRecycling
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


def read(say, prompt, end, paths, width, *, refused_teach=True):
    """[(committed, guesses as token paths)] of recycling over the tree of these paths."""
    text, matrix, rounds = list(prompt), {}, []
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

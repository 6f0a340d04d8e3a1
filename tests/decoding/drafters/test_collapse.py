"""A tree of frames that is collapsed: what is left spells what its paths spell, each text once, where it belongs."""

import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import NoDraft, Proposal
from adaspec_jax.decoding.drafters.levels import nodes_of, parents_of
from adaspec_jax.decoding.drafters.target.collapse import FrameTree, collapsed
from adaspec_jax.decoding.drafters.target.parallel_heads import MEDUSA_TREE
from adaspec_jax.decoding.tree import Tree
from tests.decoding.drafters.collapsing import collapse, spelt
from tests.decoding.drafters.heads import TREE, VOCAB, on, target, untrained
from tests.decoding.drafters.test_heads import decode
from tests.decoding.recording import play
from tests.decoding.test_engine import ragged_prompt
from tests.running import slow

CHAIN = ((1,), (1,), (1,), (1,))


def texts_of(tokens_BN, parents_BN, kept_BN):
    """Of each row, the text that every kept node stands for, in the tree that is left."""
    for tokens, parents, kept in zip(tokens_BN.tolist(), np.asarray(parents_BN).tolist(), kept_BN, strict=True):
        paths = {-1: ()}
        for node, parent in enumerate(parents):
            if kept[node]:
                assert parent < node and parent in paths  # below a node that is kept
                paths[node] = (*paths[parent], tokens[node])
        yield [path for node, path in paths.items() if node >= 0]


@pytest.mark.parametrize("counts", [TREE, MEDUSA_TREE, CHAIN])
@pytest.mark.parametrize("vocab", [2, 4, 30])
def test_what_is_left_spells_each_text_of_its_paths_once(counts, vocab):
    tokens_BN, blank = np.random.default_rng(vocab).integers(0, vocab, (40, nodes_of(counts))), vocab - 1
    parents_BN, kept_BN = collapsed(counts, jnp.asarray(tokens_BN), blank)
    left, above = list(texts_of(tokens_BN, parents_BN, np.asarray(kept_BN))), parents_of(counts)
    dropped = 0
    for row, tokens in enumerate(tokens_BN.tolist()):
        raw = {-1: ()}
        for node, parent in enumerate(above):
            raw[node] = (*raw[int(parent)], tokens[node])
        expected = list(dict.fromkeys(text for path in list(raw.values())[1:] if (text := collapse(path, blank))))
        assert left[row] == expected
        dropped += len(raw) - 1 - len(expected)
    assert dropped > 0


def test_a_repeat_after_a_blank_stays_and_one_without_goes():
    tokens_BN = jnp.asarray([[5, 9, 5, 3], [5, 5, 5, 3], [9, 9, 5, 9]])
    parents_BN, kept_BN = collapsed(CHAIN, tokens_BN, 9)
    assert list(texts_of(np.asarray(tokens_BN), parents_BN, np.asarray(kept_BN))) == [
        [(5,), (5, 5), (5, 5, 3)],
        [(5,), (5, 3)],
        [(5,)],
    ]
    # Positions are those of the text that is left, not of the frames.
    depth_BN = np.asarray(Tree.of(Proposal(tokens_BN, parents_BN, kept_BN)).depth_BN)
    assert depth_BN[0, [0, 2, 3]].tolist() == [1, 2, 3] and depth_BN[1, [0, 3]].tolist() == [1, 2]


def test_children_of_nodes_that_spell_the_same_are_one_nodes():
    """a and a a; below the one a b c, below the other a a b, and d below that."""
    counts = ((1,), (2,), (1, 1), (1, 0))
    tokens_BN = jnp.asarray([[1, 1, 2, 2, 3, 4]])
    parents_BN, kept_BN = collapsed(counts, tokens_BN, 9)
    left = next(texts_of(np.asarray(tokens_BN), parents_BN, np.asarray(kept_BN)))
    assert left == spelt(counts, lambda path, rank: [1, [1, 2][rank % 2], 2 + (path[1:] == (2,)), 4][len(path)], 9)
    assert left == [(1,), (1, 2), (1, 2, 3), (1, 2, 4)]


@pytest.mark.parametrize("counts", [CHAIN, slow(MEDUSA_TREE)])
def test_a_head_that_says_blanks_and_repeats_decodes_plain_text(counts):
    prompt, loud = ragged_prompt(4, vocab=VOCAB), on(untrained("ctc", target(), spread=0.5))
    played = play(target(), FrameTree(loud, counts), prompt, max_new_tokens=12)
    rounds = [round_ for row in played for _, round_ in row.rounds if round_]
    assert all(token < VOCAB for round_ in rounds for guess in round_ for token in guess)
    assert min(map(len, rounds)) < nodes_of(counts)  # some were dropped
    plain = decode(NoDraft(), prompt, max_new_tokens=12, eos_id=-1)
    assert [list(row.text) for row in played] == [
        plain.tokens_BS[n, : plain.lengths_B[n]].tolist() for n in range(len(played))
    ]


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="a level of 2 nodes is followed by 1 numbers"):
        FrameTree(on(untrained("ctc", target())), ((2,), (1,)))

"""Trees of known shape: the published ones node by node, and what is read of them."""

import numpy as np
import pytest

from adaspec_jax.decoding.drafters.levels import checked, nodes_of, one_by_one, parents_of, ranks_of, read_nodes
from adaspec_jax.decoding.drafters.target.features import EAGLE_TREE
from adaspec_jax.decoding.drafters.target.parallel_heads import MEDUSA_TREE

# How many children a node has, by its ranks from the root on; all others have none.
EAGLE = {"": 4, "0": 3, "1": 2, "2": 2, "3": 1, "00": 3, "01": 2, "02": 2, "10": 1, "000": 3, "0000": 2}
MEDUSA = {"": 10, "0": 10, "1": 7, "2": 3, "3": 2} | {str(n): 1 for n in range(4, 10)}
MEDUSA |= {"00": 10, "01": 3, "02": 2} | {f"0{n}": 1 for n in range(3, 8)} | {"10": 2, "20": 1, "000": 2}


def paths_of(counts):
    parents, ranks = parents_of(counts), np.concatenate(ranks_of(counts))
    paths = []
    for parent, rank in zip(parents, ranks, strict=True):
        paths.append((paths[parent] if parent >= 0 else "") + str(rank))
    return paths


@pytest.mark.parametrize(
    ("counts", "children", "levels"),
    [(EAGLE_TREE, EAGLE, [4, 8, 8, 3, 2]), (MEDUSA_TREE, MEDUSA, [10, 28, 23, 2])],
    ids=["eagle", "medusa"],
)
def test_published_trees_are_theirs(counts, children, levels):
    paths = paths_of(checked(counts))
    assert set(paths) == {path + str(rank) for path, count in children.items() for rank in range(count)}
    assert list(map(sum, counts)) == levels and nodes_of(counts) == len(paths) == len(set(paths))


def test_a_node_that_is_read_sees_the_text_those_above_it_and_itself():
    counts = ((2,), (1, 2), (0, 1, 1), (1, 0))
    position_BR, mask_BRS = map(np.asarray, read_nodes(counts, np.array([3, 5]), 12))
    # Read are both children of the root, the last two below the second, and one of the two below those.
    above = [[0], [1], [1, 2], [1, 3], [1, 2, 4]]
    assert position_BR.tolist() == [[3, 3, 4, 4, 5], [5, 5, 6, 6, 7]]
    for length, mask_RS in zip((3, 5), mask_BRS, strict=True):
        for sees, mask_S in zip(above, mask_RS, strict=True):
            assert np.flatnonzero(mask_S).tolist() == [*range(length), *(length + place for place in sees)]


def test_counts_that_are_no_trees_are_refused():
    for counts, says in (
        ((), "begins with the children of its root"),
        (((1, 1),), "begins with the children of its root"),
        (((2,), (1,)), "a level of 2 nodes is followed by 1"),
        (((1,), (0,)), "every level of a tree has nodes"),
    ):
        with pytest.raises(ValueError, match=says):
            checked(counts)
    assert checked(one_by_one(3)) == ((1,), (1,), (1,))

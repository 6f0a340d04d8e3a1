"""Packs hold every example whole and once, are full, say where each begins, and never let one predict another."""

import json
from collections import Counter

import numpy as np
import pytest

from adaspec_jax.data import Encoded, TokenStore, packed, row_batches, train_batches
from tests.running import slow

KNOBS = {"batch_size": 4, "epochs": 3, "seed": 0, "buckets": (48, 64), "pad_id": 0}


def examples_of(count, *, longest=30, seed=0):
    """Rows that begin with their number, some with labels all over."""
    draw = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        length = int(draw.integers(2, longest + 1))
        tokens = np.concatenate([[1000 + i], draw.integers(1, 100, length - 1)]).astype(np.int32)
        labels = np.arange(length) >= draw.integers(1, length)
        if i % 3 == 0:
            labels = draw.random(length) < 0.5
            labels[0], labels[-1] = False, True
        rows.append(Encoded(tokens, int(np.argmax(labels)), labels if i % 3 == 0 else None))
    return rows


def parts_of(tokens, labels, segments):
    """[(tokens, labels)] of the examples in a row."""
    return [(tokens[segments == n].tolist(), labels[segments == n].tolist()) for n in range(1, segments.max() + 1)]


def by_brute_force(lengths, length):
    """How many rows best fit by decreasing length makes of these."""
    rooms = []
    for needed in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= needed]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else length) - needed)
    return sorted(rooms)


@pytest.mark.parametrize("count, length", [(97, 64), (31, 30), slow(1, 64), slow(997, 64)])
def test_every_example_is_in_one_pack_whole_and_packs_are_those_of_best_fit(count, length):
    rows = examples_of(count)
    packs = packed(rows, length, seed=0)
    found = [part for row in packs for part in parts_of(row.tokens, row.labels_T, row.segments)]
    assert sorted(found) == sorted((row.tokens.tolist(), row.labels_T.tolist()) for row in rows)
    assert all((np.diff(row.segments) >= 0).all() and row.segments[0] == 1 for row in packs)
    rooms = sorted(length - len(row.tokens) for row in packs)
    assert rooms == by_brute_force([len(row.tokens) for row in rows], length) and rooms[0] >= 0


def test_the_seed_decides_who_shares_a_row_and_nothing_else_does():
    tokens = lambda packs: [row.tokens.tolist() for row in packs]  # noqa: E731
    rows = examples_of(97)
    assert tokens(packed(rows, 64, seed=[0, 1])) == tokens(packed(rows, 64, seed=[0, 1]))
    other = packed(rows, 64, seed=[1, 1])
    assert {tuple(row) for row in tokens(other)} != {tuple(row) for row in tokens(packed(rows, 64, seed=[0, 1]))}
    with pytest.raises(ValueError, match="a row of 30 tokens does not fit a pack of 29"):
        packed(rows, 29, seed=0)
    assert packed([], 8, seed=0) == []


def test_every_label_is_predicted_by_its_own_examples_token_before_it():
    rows, packs = examples_of(97), packed(examples_of(97), 64, seed=0)
    assert not any(row.labels_T[np.diff(row.segments, prepend=0) > 0].any() for row in packs)

    def pairs(rows):
        at = [(row.tokens, np.arange(len(row.tokens))[row.predicting]) for row in rows]
        return Counter((int(tokens[t]), int(tokens[t + 1])) for tokens, predicting in at for t in predicting)

    assert pairs(rows) == pairs(packs)
    assert all(np.array_equal(row.segments[row.predicting], row.segments[row.labels_T]) for row in packs)
    assert sum(row.num_labels for row in packs) == sum(row.num_labels for row in rows)


def test_batches_say_which_example_each_token_is_of_and_others_have_no_such_array():
    rows, packs = examples_of(97), packed(examples_of(97), 64, seed=0)
    assert all(set(batch) == {"tokens_BT", "loss_mask_BT"} for batch in train_batches(rows, **KNOBS))
    seen = Counter()
    for batch in train_batches(packs, **KNOBS | {"epochs": 4}):
        assert batch["segments_BT"].dtype == np.int32 and batch["segments_BT"].shape == batch["tokens_BT"].shape
        np.testing.assert_array_equal(batch["segments_BT"] == 0, batch["tokens_BT"] == 0)  # padding
        begins = np.diff(batch["segments_BT"], axis=1, prepend=0) > 0
        assert not batch["loss_mask_BT"][begins].any()
        seen.update(batch["tokens_BT"][begins].tolist())
    assert set(seen) == {1000 + i for i in range(97)} and max(seen.values()) <= 4


def test_packed_batches_resume_and_are_shared_among_processes_like_others():
    packs = packed(examples_of(97), 64, seed=0)
    knobs = KNOBS | {"length_window": 3}
    whole = list(train_batches(packs, **knobs))
    first = train_batches(packs, **knobs)
    for _ in range(5):
        next(first)
    state = json.dumps(first.get_state())
    resumed = train_batches(packs, **knobs)
    resumed.set_state(json.loads(state))
    assert len(state) < 100
    for ours, theirs in zip(resumed, whole[5:], strict=True):
        np.testing.assert_equal(ours, theirs)
    halves = [list(train_batches(packs, **knobs, process_index=i, process_count=2)) for i in range(2)]
    for one, *parts in zip(whole, *halves, strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)


def test_a_store_of_packs_has_each_label_where_it_is_predicted(tmp_path):
    packs = packed(examples_of(20), 64, seed=0)
    store = TokenStore(tmp_path, packs)
    for number in store.begin("next", shape=(), dtype=np.int32, origin={}):
        store.write("next", number, [packs[i].tokens[packs[i].labels_T] for i in store.blocks[number]])
    for block in store.blocks:
        for _, batch in row_batches(packs, block, 4, buckets=(64,), pad_id=0, beside=store):
            following = np.roll(batch["tokens_BT"] * batch["loss_mask_BT"], -1, axis=1)
            np.testing.assert_array_equal(batch["next"], following)

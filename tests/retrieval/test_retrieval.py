"""A store is ordered as slices of a list are, and refused where it is none; passages are found, grouped and picked."""

import collections
import itertools
import json
import math
import re

import numpy as np
import pytest

from adaspec_jax.errors import UserError
from adaspec_jax.retrieval import BM25, clusters, read_store, subsets, suffix_array, write_store


@pytest.mark.parametrize("tokens", [1, 2, 5, 1000])
@pytest.mark.parametrize("size", [1, 2, 17, 300])
def test_suffixes_stand_in_the_order_of_slices(tokens, size):
    text = np.random.default_rng(size).integers(-1, tokens, size).astype(np.int32)
    whole = sorted(range(size), key=lambda at: text[at:].tolist())
    assert suffix_array(text, depth=size).tolist() == whole
    cut = sorted(range(size), key=lambda at: text[at : at + 8].tolist())
    assert suffix_array(text, depth=8).tolist() == cut


@pytest.fixture
def folder(tmp_path):
    write_store(tmp_path / "store", [[3, 1, 2], [1, 2]], tokenizer="abc", source={"name": "mine"})
    return tmp_path / "store"


def test_a_store_is_read_as_it_was_written(folder):
    store = read_store(folder, tokenizer="abc")
    assert store.tokens_T.tolist() == [3, 1, 2, -1, 1, 2, -1] and store.tokens_T.dtype == np.int32
    assert store.order_T.tolist() == [6, 3, 4, 1, 5, 2, 0]
    assert store.about["texts"] == 2 and store.about["tokens"] == 5 and store.about["source"] == {"name": "mine"}


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: (folder / "datastore.json").unlink(), "not a datastore"),
        (lambda folder: (folder / "tokens.npy").unlink(), "torn: tokens.npy"),
        (lambda folder: (folder / "suffixes.npy").write_bytes((folder / "tokens.npy").read_bytes()), "torn: suffixes"),
        (lambda folder: (folder / "datastore.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "datastore.json").write_text(json.dumps({"tokenizer": "abc"})), "torn: tokens.npy"),
    ],
)
def test_a_store_that_is_not_whole_is_refused(folder, harm, says):
    harm(folder)
    with pytest.raises(UserError, match=f"{says}.*build it again"):
        read_store(folder, tokenizer="abc")


def test_another_tokenizers_store_is_refused(folder):
    with pytest.raises(UserError, match="another tokenizer than the target's"):
        read_store(folder, tokenizer="abd")


CATS = [
    "cats chase mice nightly",
    "cat sleeps; cats purr, cats eat mice",
    "mice fear cats",
    "cats love more cats purring",
]
TRAINS = ["trains run along rails, steel rails", "steel rails carry long trains", "trains wait, rails cool"]


def bm25_order(question, passages):
    """Lucene's BM25 by its formula; passages that share no word are left out."""
    texts = [re.findall(r"\w\w+", passage.lower()) for passage in passages]
    mean, scores = sum(map(len, texts)) / len(texts), collections.Counter()
    for word, (number, text) in itertools.product(question.lower().split(), enumerate(texts)):
        holding, times = sum(word in other for other in texts), text.count(word)
        if times:
            rarity = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            scores[number] += rarity * times / (times + 1.5 * (0.25 + 0.75 * len(text) / mean))
    return [passages[number] for number, _ in scores.most_common()]


def test_passages_come_in_the_order_of_bm25():
    pytest.importorskip("bm25s", reason="bm25s is not installed")
    passages = [*CATS, *TRAINS]  # no stop words, and no two of one score
    search = BM25(passages)
    for question in ("cats purr", "steel", "mice fear trains", "long nightly rails"):
        expected = bm25_order(question, passages)
        assert search(question, 10) == expected and len(expected) > 1
        assert search(question, 1) == expected[:1]
    assert search("zebra", 3) == [] == search("the of", 3) == search("", 3)
    with pytest.raises(UserError, match="2 passages and no word in them"):
        BM25(["...", " - "])


def test_passages_of_one_kind_are_one_group():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    mixed = [*CATS[:2], *TRAINS, *CATS[2:]]
    assert clusters(mixed, 2) == [[0, 1, 5, 6], [2, 3, 4]]
    assert sorted(itertools.chain(*clusters(mixed, 5))) == list(range(7)) and len(clusters(mixed, 5)) == 5
    assert (
        clusters(["cats", "cats!", "Cats"], 2) == [[0, 1, 2]] == clusters(["?", "!", "."], 3)
    )  # nothing tells them apart


def test_one_group_takes_no_library_and_more_name_it(monkeypatch):
    monkeypatch.setattr("adaspec_jax.retrieval.grouping.find_spec", lambda name: None)
    monkeypatch.setattr("adaspec_jax.retrieval.bm25.find_spec", lambda name: None)
    assert clusters(CATS, 1) == [[0, 1, 2, 3]]
    with pytest.raises(UserError, match="pip install scikit-learn"):
        clusters(CATS, 2)
    with pytest.raises(UserError, match="pip install bm25s"):
        BM25(CATS)
    with pytest.raises(ValueError, match="1 passages cannot be put into 2 groups"):
        clusters(CATS[:1], 2)


def test_picks_differ_and_have_one_of_each_group():
    groups = [[0, 3, 4], [1], [2, 5]]
    every = sorted(tuple(sorted(pick)) for pick in itertools.product(*groups))
    assert sorted(subsets(groups, 20)) == every
    drawn = [subsets(groups, 4, seed=seed) for seed in range(60)]
    assert all(len(set(picks)) == 4 and set(picks) <= set(every) for picks in drawn)
    assert {pick for picks in drawn for pick in picks} == set(every)
    assert subsets(groups, 4, seed=3) == drawn[3]
    assert len(subsets([list(range(100))] * 8, 5)) == 5  # of 1e16

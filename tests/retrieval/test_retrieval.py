"""A store of texts is ordered as slices of a list are, and is refused where it is not what it says."""

import json

import numpy as np
import pytest

from adaspec_jax.errors import UserError
from adaspec_jax.retrieval import read_store, suffix_array, write_store


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

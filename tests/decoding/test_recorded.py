"""A recorded target makes a drafter's rounds exactly those that it had with the target itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import Generation, NoDraft
from adaspec_jax.decoding.recorded import RecordedTarget
from adaspec_jax.methods import METHODS, Given
from tests.decoding.bag_model import BagModel
from tests.methods.test_draftless import QUICK, decode, ragged, store

NAMES = ["prompt_lookup", "llma", "anpd", "suffix", "sam", "rest", "vanilla", "specinfer", "kseq", "block_verification"]
VOCAB = 11
SETTINGS = ({"eos_id": (-1, -1)}, {"eos_id": (7, 2)}, {"eos_id": (-1, -1), "max_new_tokens": 3})
FIELDS = [field.name for field in dataclasses.fields(Generation)]


@pytest.fixture(scope="module")
def given():
    """A target, and a draft that agrees with it now and then."""
    target = BagModel.random(0, vocab=VOCAB, scale=2.0)
    draft = BagModel(target.table_VV + BagModel.random(1, vocab=VOCAB, scale=1.0).table_VV)
    return Given(target=target, drafts={"draft": draft}, datastore=store(VOCAB), draft_length=4)


def recorded(given, **knobs):
    return RecordedTarget(jnp.asarray(decode(given, NoDraft(), ragged(), **knobs).tokens_BS), VOCAB)


def replayed(given, drafter, target, **knobs):
    return decode(dataclasses.replace(given, target=target), drafter, ragged(), **knobs)


def differing(ours, theirs):
    return [name for name in FIELDS if not np.array_equal(getattr(ours, name), getattr(theirs, name))]


@pytest.mark.parametrize("name", NAMES)
def test_every_count_is_that_of_real_decoding(given, name):
    method = METHODS[name].set(**QUICK.get(name, {}))
    drafter, accepted, refused = method.make(given), 0, 0
    for knobs in SETTINGS:
        real = decode(given, drafter, ragged(), accept=method.accept, **knobs)
        ours = replayed(given, drafter, recorded(given, **knobs), accept=method.accept, **knobs)
        assert differing(ours, real) == []
        accepted += real.accepted_BN.sum()
        refused += (real.judged_BN.sum() - real.accepted_BN.sum()).sum()
    assert accepted > 0 and refused > 0


def test_a_record_that_is_one_token_off_is_seen(given):
    drafter = METHODS["anpd"].make(given)
    real = decode(given, drafter, ragged(), **SETTINGS[0])
    right = recorded(given, **SETTINGS[0])
    slipped = dataclasses.replace(right, text_BS=jnp.roll(right.text_BS, 1, axis=1))
    assert differing(replayed(given, drafter, right, **SETTINGS[0]), real) == []
    assert {"tokens_BS", "rounds_B"} <= set(differing(replayed(given, drafter, slipped, **SETTINGS[0]), real))


def test_it_has_nothing_that_a_drafter_could_read_beside_the_text():
    target = RecordedTarget(jnp.zeros((2, 8), jnp.int32), VOCAB)
    assert not any(hasattr(target, name) for name in ("config", "run", "features", "unembed"))
    logits_BTV, cache = jax.eval_shape(target, jnp.zeros((2, 3), jnp.int32))
    assert logits_BTV.shape == (2, 3, VOCAB) and [leaf.shape for leaf in jax.tree.leaves(cache)] == [(2,)]

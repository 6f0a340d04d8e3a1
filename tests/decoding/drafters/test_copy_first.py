"""Guesses copied from the text where it has them, and a draft's for all other rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import (
    ChainDrafter,
    Context,
    FiniteState,
    Fuzzy,
    NoDraft,
    TreeDrafter,
    rejection_sample,
)
from adaspec_jax.decoding.drafters.models.copy_first import CopyFirst
from adaspec_jax.decoding.drafters.text.copying import PromptLookup
from adaspec_jax.decoding.drafters.text.fill import Jacobi
from tests.decoding.bag_model import BagModel
from tests.decoding.test_engine import GREEDY, KEY, chi_square_p, decode, pair, ragged_prompt  # noqa: F401


def test_copies_come_first_and_the_draft_guesses_the_rest(pair):  # noqa: F811
    """Per row: what the text has is copied as if alone; where it has nothing the chain guesses as if alone."""
    target, draft = pair
    copies, chain = PromptLookup(2, 4), ChainDrafter(draft, 3, FiniteState(3, up=0, down=0))
    both = CopyFirst(copies, chain)
    tokens_BS = np.array([[1, 2, 3, 4, 5, 6, 1, 2], [1, 2, 3, 4, 5, 6, 7, 8], [3, 3, 3, 3, 3, 3, 3, 3]])
    prompt = Context(jnp.asarray(tokens_BS), jnp.array([8, 8, 2]), sampling=GREEDY)
    zeros_B = jnp.zeros((3,), jnp.int32)
    context = dataclasses.replace(
        prompt, tokens_BS=jnp.pad(prompt.tokens_BS, ((0, 0), (0, 20))), accepted_B=zeros_B, judged_B=zeros_B
    )

    @jax.jit
    def proposed(prompt, context):
        return [drafter.propose(KEY, drafter.init(prompt, 28), context)[0] for drafter in (both, copies, chain)]

    ours, copied, guessed = jax.device_get(proposed(prompt, context))
    for row, (source, count) in enumerate(((copied, 4), (guessed, 3), (guessed, 3))):
        assert ours.valid_BN[row].tolist() == [True] * count + [False] * (4 - count)
        assert ours.tokens_BN[row, :count].tolist() == source.tokens_BN[row, :count].tolist()


def test_copies_first_decodes_the_same_text_and_teaches_the_chain_nothing(pair):  # noqa: F811
    target, draft = pair
    drafter = CopyFirst(PromptLookup(2, 5), ChainDrafter(draft, 4, FiniteState(2, limit=4), (0, 2)))
    prompt = Context(np.tile(ragged_prompt(4).tokens_BS, (1, 2)), np.array([12, 2, 7, 12]))
    plain = decode(target, NoDraft(), prompt, eos_id=7, max_new_tokens=40)
    ours = decode(target, drafter, prompt, eos_id=7, max_new_tokens=40)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.accepted_BN[:, 4].sum() > 0  # more than the chain can guess
    with pytest.raises(ValueError, match="needs a stop"):
        CopyFirst(PromptLookup(2, 5), ChainDrafter(draft, 4))
    for copies in (Jacobi(3), TreeDrafter(draft, (2,))):
        with pytest.raises(ValueError, match="does not copy chains from the text alone"):
            CopyFirst(copies, drafter.chain)


def test_a_copied_guess_is_certain_to_rules_that_compare_laws(pair):  # noqa: F811
    """A threshold that keeps every guess of the chain's keeps none of a maker whose law is far from the target's."""
    target, draft = pair
    drafter = CopyFirst(PromptLookup(2, 5), ChainDrafter(draft, 4, FiniteState(2, limit=4)))
    prompt = Context(np.tile(ragged_prompt(4).tokens_BS, (1, 2)), np.array([12, 2, 7, 12]))
    kept = decode(target, drafter, prompt, accept=Fuzzy(1e9), max_new_tokens=12)
    judged, accepted = kept.judged_BN.sum(), kept.accepted_BN.sum()
    assert accepted == judged > 0
    few = decode(target, drafter, prompt, accept=Fuzzy(1e-9), max_new_tokens=12)
    assert few.accepted_BN.sum() == 0 < few.judged_BN.sum()


def test_sampled_text_keeps_the_targets_law():
    chain = ChainDrafter(BagModel.random(1), 3, FiniteState(2, limit=3))
    assert chi_square_p(CopyFirst(PromptLookup(2, 2), chain), rejection_sample, seeds=(0,)) > 1e-4

"""The method of drafts that guess at mask tokens: which draft it takes, and plain decoding's text."""

import jax
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import NoDraft, Sampling, generate
from adaspec_jax.errors import UserError
from adaspec_jax.methods import METHODS, Given, load_drafter, method_for
from adaspec_jax.methods.heads import chain_of
from tests.decoding.recording import prompts, tiny_llama

NAMES = ("pard", "specdec")
TARGET = tiny_llama()
PLAIN, MASKED = tiny_llama(1, num_hidden_layers=1), models.with_mask_token(tiny_llama(), 22)


def test_it_takes_the_draft_that_names_a_mask_and_writes_plain_decodings_text():
    drafter = METHODS["pard"].set(draft_length=3).make(Given(target=TARGET, drafts={"small": PLAIN, "own": MASKED}))
    assert (
        (drafter.mask, drafter.length)
        == (22, 3)
        == (chain_of(MASKED, TARGET, 3).mask, chain_of(MASKED, TARGET, 3).length)
    )
    how = {"max_new_tokens": 12, "sampling": Sampling(temperature=0.0), "eos_id": (2, 7)}
    made = [generate(TARGET, each, prompts(8), jax.random.key(0), **how) for each in (NoDraft(), drafter)]
    np.testing.assert_array_equal(made[0].tokens_BS, made[1].tokens_BS)
    assert made[1].rounds_B.sum() < made[0].rounds_B.sum()  # its first guess is the target's own


def test_specdec_keeps_guesses_among_the_targets_likeliest_and_with_one_of_them_writes_its_text():
    given = Given(target=TARGET, drafts={"own": models.with_mask_token(tiny_llama(1), 22)})
    how = {"max_new_tokens": 24, "sampling": Sampling(temperature=0.0), "eos_id": -1}
    made = {}
    for beta in ("1", "2", "5"):
        method = METHODS["specdec"].set(beta=beta, draft_length=3)
        made[beta] = generate(TARGET, method.make(given), prompts(8), jax.random.key(0), accept=method.accept, **how)
    plain = generate(TARGET, NoDraft(), prompts(8), jax.random.key(0), **how)
    np.testing.assert_array_equal(made["1"].tokens_BS, plain.tokens_BS)
    assert made["1"].rounds_B.sum() > made["2"].rounds_B.sum() > made["5"].rounds_B.sum()


def test_a_draft_of_blocks_makes_as_many_guesses_as_a_block_has_and_keeps_to_it_on_disk(tmp_path):
    blocks = models.with_mask_token(tiny_llama(1), 22, 4)
    for name in NAMES:
        drafter = METHODS[name].set(draft_length=6).make(Given(target=TARGET, drafts={"own": blocks}))
        assert (drafter.mask, drafter.length, drafter.block) == (22, 4, 4)
    assert chain_of(blocks, TARGET, 2).length == 2
    models.save(blocks, tmp_path / "blocks")
    again = models.load(tmp_path / "blocks")
    assert (again.config.mask_token, again.config.mask_block) == (22, 4)
    assert load_drafter(tmp_path / "blocks").block == 4 and method_for([str(tmp_path / "blocks")]) == "pard"


def test_a_draft_without_a_mask_is_said_to_be_none():
    with pytest.raises(
        UserError, match="needs a draft model that guesses at mask tokens .*given: small .a draft model."
    ):
        METHODS["pard"].make(Given(target=TARGET, drafts={"small": PLAIN}))
    with pytest.raises(UserError, match="draft_length is 0"):
        METHODS["pard"].set(draft_length=0).make(Given(target=TARGET, drafts={"own": MASKED}))

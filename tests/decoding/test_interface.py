"""What an outside drafter, rule or model may use: each from one module of its own, nothing edited, nothing patched."""

import importlib.util
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import (
    Cascade,
    ChainDrafter,
    Entry,
    Fuzzy,
    Lenient,
    NoDraft,
    Proposal,
    Rollback,
    Sampling,
    Tolerance,
    TopBeta,
    Typical,
    block_verification,
    generate_from_queue,
    k_sequential,
    match_sample,
    pytree,
    rejection_sample,
)
from adaspec_jax.decoding.tree import Tree
from tests.decoding.test_engine import GREEDY, KEY, decode, pair, ragged_prompt  # noqa: F401

DRAFTER = """
import jax.numpy as jnp
from adaspec_jax.decoding import Proposal, pytree

@pytree("num_nodes")
class Repeating:
    \"\"\"Guesses the token that followed the last time the last token stood in this row.\"\"\"
    num_nodes: int = 3

    def init(self, prompt, slots):
        return ()

    def propose(self, key, state, context):
        tokens_BS, end_B1 = context.tokens_BS, context.lengths_B[:, None]
        place_1S = jnp.arange(tokens_BS.shape[1])[None]
        last_B1 = jnp.take_along_axis(tokens_BS, end_B1 - 1, axis=1)
        before_BS = (tokens_BS == last_B1) & (place_1S < end_B1 - 1)
        at_B1 = jnp.max(jnp.where(before_BS, place_1S, -1), axis=1, keepdims=True)
        index_BN = jnp.clip(at_B1 + 1 + jnp.arange(self.num_nodes)[None], 0, tokens_BS.shape[1] - 1)
        return Proposal(jnp.take_along_axis(tokens_BS, index_BN, axis=1), valid_BN=(at_B1 + 0 * index_BN) >= 0), state
"""
RULE = """
import dataclasses
from adaspec_jax.decoding import Verdict, rejection_sample

@dataclasses.dataclass(frozen=True)
class Never:
    \"\"\"Refuses every guess; what follows is the target's own token.\"\"\"
    lossless = True
    opinion = False

    def __call__(self, key, proposal, logits_BMV, sampling):
        nothing = dataclasses.replace(proposal, valid_BN=proposal.valid_BN & False)
        return rejection_sample(key, nothing, logits_BMV, sampling)
"""
STOP = """
import jax.numpy as jnp
from adaspec_jax.decoding import pytree

@pytree()
class AfterARefusal:
    \"\"\"One guess after a refusal, else all.\"\"\"

    def begin(self, state, context):
        return jnp.where(context.judged_B > context.accepted_B, 1, 99), state

    def go_on(self, state, n, probs_BV, hidden_BD):
        return jnp.ones(probs_BV.shape[:1], bool), state
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """`module(source)` is that module, imported from a temporary directory."""

    def load(source, name="outside"):
        file = tmp_path / f"{name}.py"
        file.write_text(source)
        spec = importlib.util.spec_from_file_location(name, file)
        made = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, made)
        spec.loader.exec_module(made)
        return made

    return load


def test_a_drafter_from_outside(pair, module):  # noqa: F811
    target, _ = pair
    plain = decode(target, NoDraft(), ragged_prompt(), eos_id=7)
    drafter = module(DRAFTER).Repeating()
    ours = decode(target, drafter, ragged_prompt(), eos_id=7)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.accepted_BN.sum() > 0
    prompt = ragged_prompt()
    knobs = {"rows": 3, "max_new_tokens": 23, "sampling": GREEDY, "eos_id": 7}
    np.testing.assert_array_equal(generate_from_queue(target, drafter, prompt, KEY, **knobs).tokens_BS, plain.tokens_BS)


def test_a_rule_from_outside(pair, module):  # noqa: F811
    target, draft = pair
    plain = decode(target, NoDraft(), ragged_prompt())
    ours = decode(target, ChainDrafter(draft, length=3), ragged_prompt(), accept=module(RULE).Never())
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.judged_BN.sum() == 0 and (ours.rounds_B == plain.rounds_B).all()


def test_a_cascade_of_a_drafter_and_a_rule_from_outside(pair, module):  # noqa: F811
    """The rule refuses whatever the drafter says: the guesses are the middle model's own."""
    target, draft = pair
    cascade = Cascade(module(DRAFTER).Repeating(), draft, 3, module(RULE, "rule").Never())
    plain, chain, ours = (
        decode(target, drafter, ragged_prompt(), eos_id=7) for drafter in (NoDraft(), ChainDrafter(draft, 3), cascade)
    )
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    np.testing.assert_array_equal(ours.judged_BN, chain.judged_BN)


def test_a_stop_from_outside(pair, module):  # noqa: F811
    target, draft = pair
    plain = decode(target, NoDraft(), ragged_prompt())
    ours = decode(target, ChainDrafter(draft, 5, module(STOP).AfterARefusal(), (1,)), ragged_prompt())
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    whole = decode(target, ChainDrafter(draft, 5), ragged_prompt())
    assert 0 < ours.judged_BN.sum() and ours.drafted_B.sum() < whole.drafted_B.sum()


def test_rules_say_whether_they_are_lossless():
    lossless = (rejection_sample, match_sample, block_verification, k_sequential)
    lossy = (Lenient(0.5), TopBeta(), Rollback(), Typical(), Tolerance(1), Fuzzy())
    assert all(rule.lossless for rule in lossless) and not any(rule.lossless for rule in lossy)
    assert [rule for rule in (*lossless, *lossy) if rule.opinion] == [Fuzzy()]


class Agreeing:
    """Lossy: accepts where the drafter's own likeliest token is the target's, whatever was drawn."""

    lossless = False
    opinion = True

    def __call__(self, key, proposal, logits_BMV, sampling):
        verdict = rejection_sample(key, proposal, logits_BMV, sampling)
        agree_BN = jnp.argmax(proposal.opinion_BNV, -1) == jnp.argmax(logits_BMV[:, :-1], -1)
        accepted_BN = jnp.cumprod(agree_BN & proposal.valid_BN, axis=1).astype(bool)
        judged_BN = proposal.valid_BN & jnp.pad(accepted_BN, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
        return type(verdict)(accepted_BN, judged_BN, verdict.next_token_B)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_rule_may_ask_for_the_drafters_opinion(pair, temperature):  # noqa: F811
    target, draft = pair
    knobs = {"sampling": Sampling(temperature=temperature), "accept": Agreeing()}
    same = decode(target, ChainDrafter(target, length=3), ragged_prompt(), **knobs)
    assert same.accepted_BN.sum() == same.judged_BN.sum() > 0
    other = decode(target, ChainDrafter(draft, length=3), ragged_prompt(), **knobs)
    assert 0 < other.accepted_BN.sum() < other.judged_BN.sum()


@pytree()
class FirstLayer:
    """Two guesses from the residual stream after the target's first layer; the target goes on from the second."""

    target: object
    num_nodes = 2

    def init(self, prompt, slots):
        return ()

    def propose(self, key, state, context):
        token_B1 = jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)
        cache, hidden, guesses = context.target_cache, [], []
        layers = self.target.config.num_layers
        for _ in range(3):
            ran = self.target.run(token_B1, cache, last=1)
            cache, hidden = ran.cache, [*hidden, ran.hidden]
            normed = self.target.run(token_B1, first=layers, hidden_BTD=ran.hidden).hidden
            token_B1 = jnp.argmax(self.target.unembed(normed), axis=-1).astype(jnp.int32)
            guesses.append(token_B1)
        entry = Entry(1, jnp.concatenate(hidden, axis=1))
        return Proposal(jnp.concatenate(guesses[:2], axis=1), target_cache=cache, entry=entry), state


def test_the_target_goes_on_where_the_drafter_left_it():
    hf = {"model_type": "llama", "vocab_size": 11, "hidden_size": 32, "intermediate_size": 32, "initializer_range": 0.5}
    hf |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    target = models.build(hf, jax.random.key(0))
    plain = decode(target, NoDraft(), ragged_prompt())
    ours = decode(target, FirstLayer(target), ragged_prompt())
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.accepted_BN.sum() > 0


@pytest.mark.parametrize("parents", [(-1, 0, 1), (-1, -1, 0, 0, 1), (-1, -1, -1)], ids=str)
def test_a_shape_known_beforehand_is_the_shape_found_on_the_device(parents):
    tokens_BN = jnp.zeros((2, len(parents)), jnp.int32)
    known = Tree.of(Proposal(tokens_BN, np.asarray(parents)))
    found = Tree.of(Proposal(tokens_BN, jnp.broadcast_to(jnp.asarray(parents), tokens_BN.shape)))
    np.testing.assert_array_equal(np.broadcast_to(known.ancestors_BNN, found.ancestors_BNN.shape), found.ancestors_BNN)
    np.testing.assert_array_equal(np.broadcast_to(known.depth_BN, found.depth_BN.shape), found.depth_BN)
    start_B = jnp.array([3, 1])
    np.testing.assert_array_equal(known.attention_mask(start_B, 12), found.attention_mask(start_B, 12))
    if parents == (-1, 0, 1):
        np.testing.assert_array_equal(Tree.of(Proposal(tokens_BN)).ancestors_BNN, known.ancestors_BNN)

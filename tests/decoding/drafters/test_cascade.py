"""Cascades and relays: exact at any depth, plain decoding's text, and caches that are right and stay where they lie."""

import dataclasses
import re
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import (
    Asks,
    Cascade,
    ChainDrafter,
    Confident,
    Context,
    Dialogue,
    Lenient,
    NoDraft,
    Proposal,
    Relay,
    Sampling,
    TreeDrafter,
    block_verification,
    engine,
    generate_from_queue,
    match_sample,
    pytree,
    rejection_sample,
)
from adaspec_jax.decoding.drafters.target.early_exit import EarlyExitDrafter
from adaspec_jax.decoding.drafters.target.skipping import SkippingDrafter
from adaspec_jax.decoding.drafters.text.copying import PromptLookup
from adaspec_jax.decoding.drafters.text.fill import Jacobi
from adaspec_jax.decoding.rounds import Rounds
from tests.decoding.bag_model import BagModel
from tests.decoding.enumeration import largest_error, last_test_first
from tests.decoding.recording import tiny_llama
from tests.decoding.test_dialogue import assert_same, padded, texts
from tests.decoding.test_engine import GREEDY, KEY, decode, pair, ragged_prompt  # noqa: F401
from tests.running import slow, some

TARGET, MIDDLE, SMALL = (BagModel.random(seed, vocab=3) for seed in (0, 1, 2))
PENALTY = Sampling(0.8, min_p=0.1, repetition_penalty=1.6, logit_bias={0: 0.7})


@pytree("num_nodes")
class Always:
    """Guesses one token again and again, without a law."""

    token: int = 1
    num_nodes: int = 1

    asks = Asks(likeliest=0)

    def init(self, prompt, slots):
        return ()

    def propose(self, key, state, context):
        shape = len(context.lengths_B), self.num_nodes
        return Proposal(jnp.broadcast_to(jnp.asarray(self.token, jnp.int32), shape)), state


def small(length, draft=SMALL):
    return ChainDrafter(draft, length)


def cascade(length=2, drafter=None, **how):
    return Cascade(drafter or small(1), MIDDLE, length, **how)


HESITANT = ChainDrafter(SMALL, 2, Confident(0.5))
CASES = {
    "cascade": (cascade(), {}),
    "longer drafts inside": (cascade(drafter=small(2)), {"horizon": 2}),
    "ends of text": (cascade(), {"eos": 0}),
    "less room than guesses": (cascade(3), {"horizon": 2}),
    "filtered": (cascade(), {"sampling": Sampling(0.7, top_k=2), "horizon": 2}),
    "processed": (cascade(), {"sampling": PENALTY, "horizon": 2}),
    "matching inside": (cascade(accept=match_sample), {"horizon": 2}),
    "lossy inside": (cascade(accept=Lenient(0.3)), {"horizon": 2}),
    "a tree inside": (cascade(drafter=TreeDrafter(SMALL, (2,))), {"horizon": 2}),
    "nobody inside": (cascade(drafter=NoDraft()), {"horizon": 2}),
    "three deep": (Cascade(cascade(1), BagModel.random(3, vocab=3), 2), {"horizon": 2, "eos": 2}),
    "relay": (Relay.of((small(1, MIDDLE), 1), (small(1), 1)), {}),
    "relay whose first hesitates": (Relay.of((HESITANT, 2), (small(1, MIDDLE), 1)), {}),
    "relay with point masses": (Relay.of((small(1), 1), (Always(), 1)), {"eos": 1}),
    "relay cut short": (Relay.of((small(2), 1), (Always(2), 1)), {"horizon": 2}),
    "relay of cascades": (Relay.of((cascade(1), 1), (small(1), 1)), {"horizon": 2}),
    "cascade of a relay": (cascade(1, Relay.of((small(1), 1), (Always(), 1))), {"horizon": 2}),
}
QUICK = {"lossy inside", "three deep", "relay with point masses"}


@pytest.mark.parametrize("case", some(CASES, *QUICK))
def test_the_output_follows_the_targets_law_exactly(case):
    drafter, knobs = CASES[case]
    assert largest_error(TARGET, drafter, rejection_sample, **knobs) < 1e-6


@pytest.mark.parametrize("drafter", [slow(cascade()), slow(CASES["relay"][0])], ids=["cascade", "relay"])
def test_a_block_of_such_guesses_is_judged_exactly_too(drafter):
    assert largest_error(TARGET, drafter, block_verification, horizon=2, order=last_test_first(2)) < 1e-6


@pytree("length", "accept")
class Shifted(Cascade):
    """States the middle model's law one place too late."""

    def propose(self, key, state, context):
        proposal, state = super().propose(key, state, context)
        return dataclasses.replace(proposal, probs_BNV=jnp.roll(proposal.probs_BNV, 1, axis=1)), state


@dataclasses.dataclass(frozen=True)
class SaidToBeLossless(Lenient):
    lossless: ClassVar[bool] = True


@pytree("counts", "widths")
class Soft(Relay):
    """States that point masses were drawn evenly."""

    def _laws(self, parts, name, told):
        return super()._laws(parts, name, lambda mass: jnp.full(mass.shape, 1 / mass.shape[-1]))


@pytest.mark.parametrize(
    "drafter",
    [
        slow(Shifted(small(1), MIDDLE, 2)),
        cascade(accept=SaidToBeLossless(0.3)),
        slow(Soft((small(1), Always()), (1, 1))),
    ],
    ids=["one place late", "a law after a lossy rule", "no point mass"],
)
def test_a_wrong_law_is_found(drafter):
    assert largest_error(TARGET, drafter, rejection_sample, horizon=3) > 1e-3


@pytest.fixture(scope="module")
def models_of(pair):  # noqa: F811
    """(target, middle, small), each agreeing with the next in most places."""
    target, middle = pair
    return target, middle, BagModel(middle.table_VV + BagModel.random(2, vocab=11, scale=0.5).table_VV)


KINDS = {
    "cascade": lambda middle, small: Cascade(ChainDrafter(small, 2), middle, 4),
    "deep": lambda middle, small: Cascade(Cascade(ChainDrafter(small, 1), small, 3), middle, 5),
    "copies inside": lambda middle, small: Cascade(PromptLookup(2, 3), middle, 4),
    "jacobi inside": lambda middle, small: Cascade(Jacobi(3), middle, 4),
    "relay": lambda middle, small: Relay.of((ChainDrafter(middle, 2), 2), (ChainDrafter(small, 3), 2)),
    "relay that falls short": lambda middle, small: Relay.of(
        (ChainDrafter(small, 3, Confident(0.4)), 3), (PromptLookup(1, 2), 2), (ChainDrafter(small, 1), 1), widths=(1, 3)
    ),
    "both": lambda middle, small: Relay.of(
        (Cascade(ChainDrafter(small, 2), middle, 2), 2), (ChainDrafter(small, 2), 2)
    ),
}


@pytest.mark.parametrize("kind", some(KINDS, "deep", "relay that falls short", "both"))
def test_greedy_text_is_plain_decodings(models_of, kind):
    """And nothing is compiled again for other ends of text and another budget."""
    target, compiled = models_of[0], set()
    for prompt, knobs in (
        (ragged_prompt(8), {"eos_id": (7, 2)}),
        (ragged_prompt(8, longest=5), {"eos_id": (-1, -1), "max_new_tokens": 3}),
        (ragged_prompt(1), {"eos_id": (-1, -1)}),
    )[: 3 if kind == "relay" else 2]:
        plain = decode(target, NoDraft(), prompt, **knobs)
        ours = decode(target, KINDS[kind](*models_of[1:]), prompt, **knobs)
        np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
        np.testing.assert_array_equal(ours.lengths_B, plain.lengths_B)
        assert ours.rounds_B.sum() < plain.rounds_B.sum()
        compiled |= {engine._decode._cache_size()} if len(prompt.lengths_B) > 1 else set()
    assert len(compiled) == 1


@pytest.mark.parametrize("kind", some(KINDS))
def test_a_queue_guesses_what_a_batch_does(models_of, kind):
    target, drafter = models_of[0], KINDS[kind](*models_of[1:])
    knobs = {"max_new_tokens": 13, "sampling": GREEDY, "eos_id": (7, 2)}
    queued = generate_from_queue(target, drafter, ragged_prompt(8), KEY, rows=3, refill=1, **knobs)
    assert_same(jax.device_get(queued), decode(target, drafter, ragged_prompt(8), **knobs))


@pytest.mark.parametrize("kind", some(KINDS, "both"))
def test_a_dialogue_guesses_what_a_batch_does(models_of, kind):
    target, drafter, prompt = models_of[0], KINDS[kind](*models_of[1:]), ragged_prompt(8)
    knobs = {"max_new_tokens": 13, "sampling": GREEDY, "eos_id": (7, 2)}
    expected = decode(target, drafter, prompt, **knobs)
    talk, rng = Dialogue(target, drafter, **knobs), np.random.default_rng(0)
    first = jax.device_get(talk.turn(prompt, KEY))
    assert_same(first, expected)
    rows = [text + rng.integers(0, 11, 1 + 20 * (n == 3)).tolist() for n, text in enumerate(texts(first))]
    rows[1] = rows[1][:4] + rows[1][6:]
    again = padded(rows)
    assert_same(jax.device_get(talk.turn(again, KEY)), decode(target, drafter, again, **knobs))
    assert (np.asarray(talk.read_B) < again.lengths_B).all()


PROCESSED = Sampling(0.0, repetition_penalty=1.7, suppress_tokens=(3,))
SHARED = Sampling(0.9, top_k=6, shared_noise=True, repetition_penalty=1.2)


@pytest.mark.parametrize("kind", some(KINDS))
def test_with_shared_noise_the_text_is_plain_decodings(models_of, kind):
    target, drafter, prompt = models_of[0], KINDS[kind](*models_of[1:]), ragged_prompt(6)
    knobs = {"sampling": SHARED, "eos_id": (7, 2)}
    plain, ours = decode(target, NoDraft(), prompt, **knobs), decode(target, drafter, prompt, **knobs)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.rounds_B.sum() < plain.rounds_B.sum()


@pytest.mark.parametrize(
    "kind, sampling",
    [("cascade", SHARED), slow("cascade", PROCESSED), slow("relay", SHARED), ("relay", PROCESSED)],
    ids=["cascade, noise", "cascade", "relay, noise", "relay"],
)
def test_where_all_are_the_target_nothing_is_refused(models_of, kind, sampling):
    """So noise, processors and what caches hold are right at every place; a lossy rule inside settles no less."""
    target = models_of[0]
    drafter = KINDS[kind](target, target)
    if sampling.shares_noise and kind == "cascade":
        drafter = dataclasses.replace(drafter, accept=Lenient(0.5))
    made = decode(target, drafter, ragged_prompt(8), sampling=sampling, max_new_tokens=20)
    np.testing.assert_array_equal(made.rounds_B, 4)
    plain = decode(target, NoDraft(), ragged_prompt(8), sampling=sampling, max_new_tokens=20)
    np.testing.assert_array_equal(made.tokens_BS, plain.tokens_BS)


def test_a_relays_guesses_are_each_makers_own(models_of):
    """Where the second goes on, it guesses what it would alone: a relay of a model with itself is its chain."""
    target, middle, _ = models_of
    two = Relay.of((ChainDrafter(middle, 4), 2), (ChainDrafter(middle, 3), 3))
    prompt = ragged_prompt(8)
    ours, chain = (decode(target, drafter, prompt, eos_id=7) for drafter in (two, ChainDrafter(middle, 5)))
    for name in ("rounds_B", "accepted_BN", "judged_BN", "rejected_BS"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(chain, name), err_msg=name)


@pytree("length")
class Learning(ChainDrafter):
    """A chain that sums up, in its state, what it was told of guesses that stayed."""

    def init(self, prompt, slots):
        return super().init(prompt, slots), jnp.zeros_like(prompt.lengths_B)

    def propose(self, key, state, context):
        proposal, cache = super().propose(key, state[0], context)
        return proposal, (cache, state[1] + context.accepted_B)


@pytest.mark.parametrize("kind", ["cascade", "relay"])
def test_a_drafter_learns_what_became_of_its_own_guesses(models_of, kind):
    """All stay: two of two in the rounds of a cascade, and in a relay two of five."""
    target = models_of[0]
    learning = Learning(target, 2)
    drafter = Cascade(learning, target, 3)
    if kind == "relay":
        drafter = Relay.of((ChainDrafter(target, 1), 1), (learning, 2), (ChainDrafter(target, 2), 2))
    tokens_BS = jnp.asarray(ragged_prompt(3).tokens_BS, jnp.int32)
    rounds = Rounds(target, drafter, 4 * (drafter.num_nodes + 1), jnp.full((1,), -1), 48, GREEDY, rejection_sample)

    @jax.jit
    def state():
        return rounds.to_the_end(rounds.start(KEY, tokens_BS, jnp.full((3,), 6))).draft_state

    learnt = state().draft_state if kind == "cascade" else state().states[1]
    np.testing.assert_array_equal(learnt[1], 3 * 2)  # in the first of the four there was nothing to learn


HF = {"model_type": "gpt_neox", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32}
HF |= {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 512}


def test_a_round_moves_no_cache():
    """Neither the target's nor, in the rounds inside, one of the two that are kept between them."""
    target, middle, small = (models.build(HF, jax.random.key(seed)) for seed in (0, 1, 2))
    drafter = Cascade(ChainDrafter(small, 2), middle, 3)
    prompt = Context(np.ones((2, 331), np.int32), np.full(2, 331))
    arguments, slots = engine.program_arguments(target, drafter, prompt, KEY, 40, -1)
    static = {"slots": slots, "sampling": GREEDY, "accept": rejection_sample}
    text = engine._decode.lower(*arguments, **static).compile().as_text()
    rounds = text[: text.index("\nENTRY")]
    moves = re.findall(r"f32\[([\d,]+)\]\S* (?:copy|transpose)\(", rounds)
    sizes = {int(np.prod([int(length) for length in shape.split(",")])) for shape in moves}
    for wide in (slots, slots + 2):
        assert f"f32[2,2,{wide},8]" in rounds
        assert 2 * 2 * wide * 8 not in sizes


@pytest.mark.parametrize("kind", [slow("skipping"), slow("exiting")])
def test_a_middle_model_may_draft_for_itself(kind):
    target, middle = tiny_llama(), tiny_llama(seed=1)
    inside = SkippingDrafter(middle, (2, 3), 3) if kind == "skipping" else EarlyExitDrafter(middle, 1, 3)
    prompt = ragged_prompt(3, vocab=11)
    plain = decode(target, NoDraft(), prompt, max_new_tokens=12)
    chain = decode(target, ChainDrafter(middle, 4), prompt, max_new_tokens=12)
    ours = decode(target, Cascade(inside, middle, 4), prompt, max_new_tokens=12)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    np.testing.assert_array_equal(ours.judged_BN, chain.judged_BN)


@pytree("num_nodes")
class HandingBack(Always):
    """Guesses in the target's cache, as self-speculation does."""

    def propose(self, key, state, context):
        proposal, state = super().propose(key, state, context)
        return dataclasses.replace(proposal, target_cache=context.target_cache), state


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="length is 0; it must be at least 1"):
        Cascade(small(1), MIDDLE, 0)
    for part, says in (
        ((TreeDrafter(SMALL, (2, 1)), 2), "a relay is of chains, and TreeDrafter guesses a tree"),
        ((Jacobi(3), 3), "Jacobi guesses from what the target says at its guesses"),
        ((EarlyExitDrafter(None, 1, 3), 3), "EarlyExitDrafter guesses from what the target says"),
        ((small(2), 3), "ChainDrafter guesses 2 tokens, and 3 are asked of it"),
    ):
        with pytest.raises(ValueError, match=says):
            Relay.of((small(1), 1), part)
    late = Relay.of((small(1), 1), (HandingBack(), 1))
    with pytest.raises(ValueError, match="HandingBack guesses in the target's cache, .*: put it first"):
        decode(TARGET, late, ragged_prompt(2, vocab=3))

"""A round inside a round: what the interface promises to a drafter there, and what goes wrong without."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import (
    Asks,
    ChainDrafter,
    Context,
    GrowthDrafter,
    NoDraft,
    Proposal,
    TreeDrafter,
    generate,
    pytree,
    rejection_sample,
)
from adaspec_jax.decoding.drafters.models.cascade import Cascade
from adaspec_jax.decoding.drafters.models.reread import reread
from adaspec_jax.decoding.rounds import Rounds
from tests.decoding.bag_model import BagModel
from tests.decoding.test_engine import GREEDY, KEY, decode, ragged_prompt


@pytest.fixture(scope="module")
def three():
    noise = [BagModel.random(seed, vocab=4, scale=0.7).table_VV for seed in (1, 2)]
    target = BagModel.random(0, vocab=4, scale=1.5)
    return target, BagModel(target.table_VV + noise[0]), BagModel(target.table_VV + noise[0] + noise[1])


def cascade(middle, small, *, length=4, **knobs):
    return Cascade(ChainDrafter(small, length=2), middle, length, **knobs)


@pytree("length", "accept")
class TooLittleBehind(Cascade):
    """Tells its drafter what is right directly under the engine."""

    def _inside(self, context, cache):
        return dataclasses.replace(super()._inside(context, cache), behind=2)


@pytest.mark.parametrize("depth", [2, 3])
def test_a_greedy_cascade_of_any_depth_decodes_what_the_target_does(three, depth):
    target, middle, small = three
    drafter = cascade(middle, small) if depth == 2 else Cascade(cascade(middle, small), middle, length=3)
    prompt = ragged_prompt(vocab=4)
    plain, ours = decode(target, NoDraft(), prompt), decode(target, drafter, prompt)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.rounds_B.sum() < plain.rounds_B.sum()


def test_a_greedy_cascade_guesses_what_its_middle_model_alone_would(three):
    """The inner rounds are lossless, so guesses and counts are those of a chain of the middle model."""
    target, middle, small = three
    prompt = ragged_prompt(vocab=4)
    chain, ours = (decode(target, d, prompt) for d in (ChainDrafter(middle, length=4), cascade(middle, small)))
    for name in ("rounds_B", "accepted_BN", "judged_BN", "rejected_BS"):
        np.testing.assert_array_equal(getattr(chain, name), getattr(ours, name), err_msg=name)


@pytree("length")
class Recorded(ChainDrafter):
    """A chain that tells, through its state, how often its cached logits are not those of reading everything anew."""

    def init(self, prompt, slots):
        batch = prompt.tokens_BS.shape[0]
        return super().init(prompt, slots), jnp.zeros((batch,), jnp.int32)

    def propose(self, key, state, context):
        cache, wrong_B = state
        cached_BV = reread(self.model, cache, context, window=context.behind).logits_BV
        whole_BSV, _ = self.model(context.tokens_BS)
        anew_BV = jnp.take_along_axis(whole_BSV, context.lengths_B[:, None, None] - 1, axis=1)[:, 0]
        wrong_B += jnp.max(jnp.abs(cached_BV - anew_BV), axis=-1) > 1e-3
        proposal, cache = super().propose(key, cache, context)
        return proposal, (cache, wrong_B)


@pytest.mark.parametrize("kind", [Cascade, TooLittleBehind])
def test_inside_another_round_a_drafter_lacks_one_token_more(three, kind):
    """Two tokens re-read are right directly under the engine; one level down they leave a stale entry in the cache."""
    target = three[0]
    # One model thrice accepts all: the last guess, the middle model's token and the target's are then unread.
    drafter = kind(Recorded(target, length=2), target, length=3)
    prompt = ragged_prompt(vocab=4)
    tokens_BS = jnp.asarray(prompt.tokens_BS, jnp.int32)
    rounds = Rounds(target, drafter, 23, jnp.full((1,), -1), 40, GREEDY, rejection_sample)

    @jax.jit
    def wrong():
        loop = rounds.start(KEY, tokens_BS, jnp.asarray(prompt.lengths_B, jnp.int32))
        loop = jax.lax.while_loop(lambda loop: ~jnp.all(loop.done_B), rounds.one_round, loop)
        return loop.draft_state.draft_state[1].sum()

    assert (int(wrong()) == 0) == (kind is Cascade)


@pytree("hands_back")
class Writing:
    """Guesses the target's own next token, computed in the target's cache."""

    model: object
    hands_back: bool = True

    num_nodes = 1

    def init(self, prompt, slots):
        return ()

    def propose(self, key, state, context):
        last_B1 = jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)
        logits_BTV, cache = self.model(last_B1, context.target_cache)
        tokens_BN = jnp.argmax(logits_BTV, axis=-1).astype(jnp.int32)
        return Proposal(tokens_BN, target_cache=cache if self.hands_back else None), state


def test_a_cache_that_is_written_and_not_handed_back_is_held_twice():
    hf = {"model_type": "gpt_neox", "vocab_size": 32, "hidden_size": 64, "intermediate_size": 64}
    hf |= {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 2048}
    target = models.build(hf, jax.random.key(0))
    prompt = Context(jnp.ones((4, 8), jnp.int32), jnp.full((4,), 8))
    knobs = {"max_new_tokens": 500, "sampling": GREEDY, "eos_id": -1}
    temporaries, tokens = {}, {}
    for hands_back in (True, False):
        arguments = target, Writing(target, hands_back), prompt
        compiled = jax.jit(lambda t, d, p: generate(t, d, p, KEY, **knobs)).lower(*arguments).compile()
        temporaries[hands_back] = compiled.memory_analysis().temp_size_in_bytes
        tokens[hands_back] = compiled(*arguments).tokens_BS
    cache = jax.eval_shape(lambda: target.init_cache(4, 500))
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache))
    assert temporaries[False] - temporaries[True] > 0.4 * held
    np.testing.assert_array_equal(tokens[True], tokens[False])


@pytree()
class AskingHead(NoDraft):
    asks = Asks(layers=(-1,))


def test_hidden_states_that_a_drafter_asks_for_must_be_there(three):
    target, middle, _ = three
    with pytest.raises(ValueError, match=r"AskingHead asks for the states after layers \(-1,\)"):
        Cascade(AskingHead(), middle)
    rounds = Rounds(target, AskingHead(), 3, jnp.full((1,), -1), 40, GREEDY, rejection_sample)
    with pytest.raises(ValueError, match=r"asks for layers \(-1,\), and 0 are given"):
        rounds.begin(KEY, Context(jnp.zeros((1, 40), jnp.int32), jnp.ones((1,), jnp.int32)), ())


@pytest.mark.parametrize(
    "inner",
    [
        lambda small: TreeDrafter(small, branching=(2, 1)),
        lambda small: GrowthDrafter(small, budget=4, beams=2, branch=2, depth=3),
    ],
    ids=["fixed", "grown"],
)
def test_a_tree_inside_a_cascade_is_exact_too(three, inner):
    target, middle, small = three
    drafter = Cascade(inner(small), middle, length=3)
    prompt = ragged_prompt(vocab=4)
    plain, ours = decode(target, NoDraft(), prompt), decode(target, drafter, prompt)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)

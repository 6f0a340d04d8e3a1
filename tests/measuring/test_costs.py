"""Measured costs: a dearer call takes longer, lengths between two measured ones cost something between."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from adaspec_jax import models
from adaspec_jax.config import GPTNeoX
from adaspec_jax.decoding import ChainDrafter, Context, FiniteState, NoDraft, Sampling, TreeDrafter
from adaspec_jax.decoding.speedup import tokens_per_round
from adaspec_jax.measuring import costs
from adaspec_jax.measuring.costs import (
    LONGEST,
    best_length,
    between,
    drafting_seconds,
    length_of,
    lengthened,
    parts_of,
    priced,
    round_costs,
    rounds_priced,
    seconds_per_call,
    verification_seconds,
)
from adaspec_jax.methods import Given
from adaspec_jax.methods.heads import chain_of
from adaspec_jax.planning.step_costs import flops
from tests.decoding.bag_model import BagModel
from tests.decoding.drafters.heads import KNOBS, VOCAB, target, untrained

SIZES = {"vocab_size": 64, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}


def built(layers):
    return models.build(GPTNeoX(num_hidden_layers=layers, **SIZES).hf_config(), jax.random.key(0))


def check_that_they_follow_the_work():
    deep, shallow = built(8), built(1)
    shape = {"batch": 2, "slots": 64}
    assert seconds_per_call(deep, width=1, **shape) > 3 * seconds_per_call(shallow, width=1, **shape)
    long, short = (drafting_seconds(ChainDrafter(shallow, length=length), shallow, **shape) for length in (16, 1))
    assert long > 3 * short


def test_what_is_timed_follows_the_work(monkeypatch):
    """By the operations of the loops, which no other program on the machine changes."""
    monkeypatch.setattr(costs, "_median_seconds", lambda loop: flops(jax.make_jaxpr(loop)().jaxpr, rounds=1))
    check_that_they_follow_the_work()
    wide, narrow = (seconds_per_call(built(1), batch=2, slots=64, width=width) for width in (8, 1))
    assert wide > 3 * narrow


@pytest.mark.slow  # goes by the clock, so for a machine that does nothing else
def test_measured_seconds_follow_the_work():
    check_that_they_follow_the_work()


def test_the_seconds_are_the_median_of_compiled_loops_and_of_one_call(monkeypatch):
    now, took = [0.0], iter((100.0, 16.0, 80.0, 8.0))  # the first compiles

    def loop():
        now[0] += next(took)
        return jnp.zeros(())

    assert costs._median_seconds(loop, clock=lambda: now[0]) == 16.0 / costs._CALLS
    assert next(took, None) is None


def test_verifications_are_measured_up_to_the_longest():
    measured = verification_seconds(BagModel.random(0), batch=2, slots=64, longest=5)
    assert list(measured) == [0, 1, 3, 5] and min(measured.values()) > 0


def test_lengths_between_are_interpolated():
    measured = {0: 1.0, 1: 1.5, 3: 2.5, 5: 2.0}
    assert [between(measured, length) for length in (0, 2, 4, 5)] == [1.0, 2.0, 2.25, 2.0]
    with pytest.raises(ValueError):
        between(measured, 6)


def test_a_rounds_first_draft_step_is_in_the_promise():
    parts = {"target_step": 2.0, "verification": {"1": 2.2, "3": 2.6, "7": 3.4}}
    dear = parts | {"first_draft_step": {"d": 1.0}, "draft_step": {"d": 0.2}}
    promised = best_length(dear, "d", 0.8, used=3)
    assert promised["promised_speedup"] == pytest.approx(tokens_per_round(0.8, 3) / (0.5 + 2 * 0.1 + 1.3))
    assert (promised["first_draft_step_cost"], promised["draft_step_cost"]) == (0.5, 0.1)
    assert promised["verification_cost"] == 1.3
    cheap = best_length(parts | {"first_draft_step": {"d": 0.2}, "draft_step": {"d": 0.2}}, "d", 0.8, used=3)
    assert promised["promised_speedup_at_best"] < cheap["promised_speedup_at_best"]
    # What a round pays once is shared by its guesses.
    assert promised["best_draft_length"] >= cheap["best_draft_length"]


def test_the_price_of_drafting_is_that_of_the_drafters_own_rounds(monkeypatch):
    monkeypatch.setattr(costs, "_median_seconds", lambda loop: loop())
    calls = []

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Counted(BagModel):
        def features(self, tokens_BT, cache=None, **where):
            calls.append(tokens_BT.shape[1])
            return super().features(tokens_BT, cache, **where)

    model = Counted(BagModel.random(0).table_VV)
    drafting_seconds(ChainDrafter(model, length=3), model, batch=2, slots=16)
    read_prompt, *in_a_round = calls
    context = Context(jnp.ones((2, 16), jnp.int32), jnp.full((2,), 8), accepted_B=jnp.zeros((2,), jnp.int32))
    calls.clear()
    drafter = ChainDrafter(model, length=3)
    jax.eval_shape(drafter.propose, jax.random.key(0), model.init_cache(2, 16), context)
    assert read_prompt == 1 and set(in_a_round) == set(calls)  # what a round reads again is read there too


@pytest.mark.parametrize("kind", ["eagle", "eagle3", "medusa", "hydra_plus"])
def test_the_price_of_a_heads_chain_is_that_of_its_own_rounds(kind, monkeypatch):
    """By operations: what it reads of the target's hidden states is in the first step, and each guess costs as much."""
    monkeypatch.setattr(costs, "_median_seconds", lambda loop: flops(jax.make_jaxpr(loop)().jaxpr, rounds=1))
    chain = chain_of(untrained(kind, target()), target(), 2)
    found = round_costs(target(), {"head": chain}, (2, 8), max_new_tokens=24, longest=5)
    assert found.get("longest") == (None if kind.startswith("eagle") else {"head": 3})

    def rounds(length):
        drafter = chain_of(untrained(kind, target()), target(), length)
        hidden = tuple(jnp.ones((2, length + 1, 32)) for _ in drafter.head.layers)
        zeros = {"accepted_B": jnp.zeros((2,), jnp.int32), "path_BN": jnp.zeros((2, length), jnp.int32)}
        context = Context(jnp.ones((2, 32), jnp.int32), jnp.full((2,), 16), hidden=hidden, **zeros)
        first = tuple(hidden_BMD[:, :1] for hidden_BMD in hidden)
        state = drafter.init(Context(jnp.ones((2, 1), jnp.int32), jnp.ones((2,), jnp.int32), hidden=first), 32)
        return flops(jax.make_jaxpr(drafter.propose)(jax.random.key(0), state, context).jaxpr, rounds=1)

    most = 5 if kind.startswith("eagle") else 3
    first, further = (found[part]["head"] / costs._CALLS for part in ("first_draft_step", "draft_step"))
    assert first == pytest.approx(rounds(1), rel=0.2)  # the loop has an `init` before it
    assert further == pytest.approx((rounds(most) - rounds(1)) / (most - 1))


def test_the_price_of_an_adapters_chain_has_the_targets_first_layers_in_it(monkeypatch):
    """A guess costs its layers, its adapter and the output matrix, and a round the layers once more."""
    monkeypatch.setattr(costs, "_median_seconds", lambda loop: flops(jax.make_jaxpr(loop)().jaxpr, rounds=1))
    head = untrained("kangaroo", target())
    found = round_costs(target(), {"head": chain_of(head, target(), 2)}, (2, 8), max_new_tokens=24, longest=5)
    first, further = (found[part]["head"] / costs._CALLS for part in ("first_draft_step", "draft_step"))
    cache = target().init_cache(2, 32).roll_back(jnp.full((2,), 15))
    early = flops(
        jax.make_jaxpr(lambda x: target().run(x, cache, last=1).hidden)(jnp.ones((2, 1), int)).jaxpr, rounds=1
    )
    matrix = 2 * 2 * head.config.hidden_size * VOCAB
    assert further > early + matrix and further < 3 * (early + matrix)
    assert first > further + early


def test_a_length_that_a_head_cannot_make_is_never_the_best():
    free = {"target_step": 1.0, "verification": {"1": 1.0, "16": 1.0}}
    free |= {"first_draft_step": {"d": 0.01}, "draft_step": {"d": 0.01}}
    assert best_length(free, "d", 0.9)["best_draft_length"] == 16
    assert best_length(free | {"longest": {"d": 4}}, "d", 0.9)["best_draft_length"] == 4


@pytest.mark.parametrize("kind", [*KNOBS, "pard", "specdec"])
def test_whatever_drafts_may_be_asked_for_the_most_guesses_that_are_priced(kind):
    """As a report asks when all is trained: a draft that makes fewer at once makes those."""
    draft = untrained(kind, target()) if kind in KNOBS else models.with_mask_token(target(), 5, 4 * (kind == "specdec"))
    chain = lengthened(chain_of(draft, target(), 2), LONGEST)
    assert priced(chain)
    most = draft.config.mask_block if kind == "specdec" else getattr(draft.config, "guesses", 0)
    assert length_of(chain) == (min(LONGEST, most) if most else LONGEST)


def test_only_chains_of_a_model_or_a_head_are_priced():
    model = BagModel.random(0)
    drafters = {"chain": ChainDrafter(model, length=2), "tree": TreeDrafter(model), "plain": NoDraft()}
    found = round_costs(model, drafters, (2, 8), max_new_tokens=24, sampling=Sampling(temperature=1.0), longest=LONGEST)
    assert set(found["first_draft_step"]) == set(found["draft_step"]) == {"chain"}
    assert found["first_draft_step"]["chain"] > 0 and found["draft_step"]["chain"] >= 0
    assert set(found["verification"]) == {"1", "3", "7", "15", "16"}
    assert jnp.isfinite(found["target_step"])


def test_drafts_of_one_shape_cost_the_same(monkeypatch):
    """What a clock says of two runs of one program is no difference between two drafts."""
    ticks = iter(range(1, 1000))
    monkeypatch.setattr(costs, "_median_seconds", lambda loop: float(next(ticks)))
    model = BagModel.random(0)
    drafters = {f"seed {seed}": ChainDrafter(BagModel.random(seed), length=3) for seed in (1, 2)}
    drafters["wider"] = ChainDrafter(BagModel(jnp.zeros((9, 9))), length=3)
    found = round_costs(model, drafters, (2, 8), max_new_tokens=24, longest=5)
    for part in ("first_draft_step", "draft_step"):
        assert found[part]["seed 1"] == found[part]["seed 2"]
    assert found["first_draft_step"]["seed 1"] != found["first_draft_step"]["wider"]


def test_methods_are_told_what_rounds_cost_at_the_shapes_that_are_decoded(monkeypatch):
    asked = []

    def measured(target, drafters, shape_BT, **how):
        asked.append((shape_BT, how["max_new_tokens"], how["longest"]))
        return {
            "target_step": 2.0,
            "verification": {"1": 2.5},
            "first_draft_step": {"draft": 1.0},
            "draft_step": {"draft": 0.5},
        }

    monkeypatch.setattr(costs, "round_costs", measured)
    model = BagModel.random(0)
    chain, shapes = ChainDrafter(model, 7), ((1, 12), (8, 12))
    found = rounds_priced(Given(target=model), chain, 7, shapes_BT=shapes, max_new_tokens=20)
    assert list(found) == [1, 8] and asked == [((1, 12), 20, 7), ((8, 12), 20, 7)]
    assert found[8] == parts_of(measured(None, None, None, max_new_tokens=0, longest=0), "draft")
    assert (found[8].first, found[8].further, dict(found[8].verification)) == (1.0, 0.5, {0: 2.0, 1: 2.5})


def test_a_chain_that_a_stop_ends_has_no_length_to_choose():
    model = BagModel.random(0)
    assert length_of(ChainDrafter(model, 3)) == 3 and length_of(NoDraft()) is None
    assert length_of(ChainDrafter(model, 3, FiniteState())) is None

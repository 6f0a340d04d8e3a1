"""By enumeration: whatever a head guesses, what is committed follows the target's law exactly."""

import dataclasses
from unittest import mock

import jax.numpy as jnp
import pytest

from adaspec_jax.decoding import Sampling, pytree, rejection_sample
from adaspec_jax.decoding.drafters.target.adapter import AdapterDrafter
from adaspec_jax.decoding.drafters.target.blocks import BlockDrafter
from adaspec_jax.decoding.drafters.target.collapse import FrameTree
from adaspec_jax.decoding.drafters.target.coupled import CoupledChain, CoupledGrowth
from adaspec_jax.decoding.drafters.target.features import FeatureDrafter, FeatureGrowth, FeatureTree
from adaspec_jax.decoding.drafters.target.look_ahead import LookAheadDrafter
from adaspec_jax.decoding.drafters.target.parallel_heads import ParallelChain, ParallelTree
from adaspec_jax.decoding.drafters.target.sequential_heads import SequentialChain, SequentialTree
from adaspec_jax.decoding.drafters.target.slots import SlotChain, SlotTree
from adaspec_jax.decoding.stopping import UntilWeak
from tests.decoding import enumeration
from tests.decoding.drafters.heads import KNOBS, on, untrained
from tests.decoding.recording import Asked, tiny_llama
from tests.running import slow

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "initializer_range": 0.3}
TARGET = tiny_llama(vocab_size=3, **SMALL)
SHAPE = ((2,), (1, 0))
CASES = {
    "amphista": ("amphista", lambda on: SlotTree(on, SHAPE), {}),
    "amphista, a chain": ("amphista", lambda on: SlotChain(on, 2), {"rounds": 2, "horizon": 3}),
    "ctc": ("ctc", lambda on: FrameTree(on, ((2,), (2, 1), (2, 1, 0))), {"horizon": 4}),
    "ctc, ends of text": ("ctc", lambda on: FrameTree(on, SHAPE), {"eos": 2, "sampling": Sampling(1.3, top_p=0.8)}),
    "eagle": ("eagle", lambda on: FeatureDrafter(on, 2), {}),
    "eagle, two rounds": ("eagle", lambda on: FeatureDrafter(on, 1), {"rounds": 2, "horizon": 4}),
    "eagle, ends of text": ("eagle", lambda on: FeatureDrafter(on, 2), {"eos": 0}),
    "eagle's tree": ("eagle", lambda on: FeatureTree(on, SHAPE), {}),
    "eagle2": ("eagle", lambda on: FeatureGrowth(on, 4, 2, 2), {}),
    "eagle3": ("eagle3", lambda on: FeatureDrafter(on, 2), {"sampling": Sampling(1.3, top_p=0.8)}),
    "eagle3, grown": ("eagle3", lambda on: FeatureGrowth(on, 4, 2, 2, 0.2), {"eos": 2}),
    "mtp": ("mtp", lambda on: FeatureDrafter(on, 2), {}),
    "mtp, grown": ("mtp", lambda on: FeatureGrowth(on, 4, 2, 2), {"eos": 2}),
    "dflash": ("dflash", lambda on: BlockDrafter(on, 2), {"eos": 0}),
    "dflash, two rounds": ("dflash", lambda on: BlockDrafter(on, 2), {"rounds": 2, "horizon": 3}),
    "p_eagle": ("p_eagle", lambda on: BlockDrafter(on, 2), {"sampling": Sampling(1.3, top_p=0.8)}),
    "falcon, two rounds": ("falcon", lambda on: CoupledChain(on, 2), {"rounds": 2, "horizon": 3}),
    "falcon": ("falcon", lambda on: CoupledChain(on, 3), {"sampling": Sampling(1.3, top_p=0.8)}),
    "falcon, grown": ("falcon", lambda on: CoupledGrowth(on, 5, 2, 3), {"eos": 2}),
    "pass": ("pass", lambda on: LookAheadDrafter(on, 2), {"eos": 0}),
    "pass, two rounds": ("pass", lambda on: LookAheadDrafter(on, 1), {"rounds": 2, "horizon": 4}),
    "kangaroo, a chain": ("kangaroo", lambda on: AdapterDrafter(on, 2), {"rounds": 2, "horizon": 3}),
    "kangaroo": ("kangaroo", lambda on: AdapterDrafter(on, 2, UntilWeak(0.45, limit=2)), {}),
    "medusa, a chain": ("medusa", lambda on: ParallelChain(on, 2), {}),
    "medusa": ("medusa", lambda on: ParallelTree(on, SHAPE), {}),
    "hydra, a chain": ("hydra", lambda on: SequentialChain(on, 2), {"horizon": 2}),
    "hydra": ("hydra", lambda on: SequentialTree(on, SHAPE), {}),
    "hydra_plus, a chain": ("hydra_plus", lambda on: SequentialChain(on, 2), {}),
    "hydra_plus": ("hydra_plus", lambda on: SequentialTree(on, SHAPE), {}),
}
SLOW = {"amphista, a chain", "amphista", "ctc", "p_eagle"}
SLOW |= {
    "eagle, ends of text",
    "kangaroo, a chain",
    "eagle3, grown",
    "mtp, grown",
    "hydra, a chain",
    "hydra",
    "dflash, two rounds",
}
SLOW |= {"falcon", "falcon, two rounds", "falcon, grown", "pass, two rounds"}


def a_head(name, model):
    head = untrained(name, model, spread=0.3, **({"vocabulary": 2} if name in ("eagle3", "p_eagle") else {}))
    assert set(KNOBS) >= {name}
    return on(head, model)


def error(drafter, model=TARGET, **how):
    asked = Asked(model, longest=8)
    with mock.patch.object(enumeration, "next_logits", lambda target, tokens: asked.logits(tokens)):
        return enumeration.largest_error(model, drafter, rejection_sample, **how)


@pytest.mark.parametrize("case", [slow(case) if case in SLOW else case for case in CASES])
def test_the_output_follows_the_targets_law_exactly(case):
    name, made, how = CASES[case]
    assert error(made(a_head(name, TARGET)), **how) < 1e-5


@pytest.mark.parametrize("vocab", [5])
def test_a_larger_vocabulary_is_as_exact(vocab):
    model = tiny_llama(vocab_size=vocab, **SMALL)
    assert error(FeatureTree(a_head("eagle", model), ((3,),)), model, horizon=2) < 1e-5


@pytree("length")
class OfAnother(ParallelChain):
    """States the laws of the heads before its own."""

    def propose(self, key, state, context):
        proposal, state = super().propose(key, state, context)
        return dataclasses.replace(proposal, probs_BNV=jnp.roll(proposal.probs_BNV, 1, axis=1)), state


@pytree("counts")
class OfASibling(FeatureTree):
    """States of each sibling the law of another."""

    def propose(self, key, state, context):
        proposal, state = super().propose(key, state, context)
        return dataclasses.replace(proposal, probs_BNV=jnp.roll(proposal.probs_BNV, 1, axis=1)), state


def test_another_law_than_that_of_the_draw_is_found():
    assert error(OfAnother(a_head("medusa", TARGET), 2)) > 1e-4
    assert error(OfASibling(a_head("eagle", TARGET), ((2,),)), horizon=2) > 1e-4

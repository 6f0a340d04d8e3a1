"""`measure` takes any drafter: its counts are the decoding's own, and a model's figures are those of models alone."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Proposal, Sampling, TreeDrafter, generate
from adaspec_jax.measuring import Contender, measure, report_fields
from tests.decoding.bag_model import BagModel

KNOBS = {"max_new_tokens": 12, "eos_id": -1}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Zeros:
    """Guesses the token 0 twice, and has no model."""

    num_nodes = 2

    def init(self, prompt, slots):
        return ()

    def propose(self, key, state, context):
        return Proposal(jnp.zeros((context.lengths_B.shape[0], 2), jnp.int32)), state


def batches(rows=5, size=2):
    rng = np.random.default_rng(0)
    found = []
    for first in range(0, rows, size):
        lengths_B = rng.integers(1, 7, size).astype(np.int32)
        tokens_BT = rng.integers(0, 4, (size, 6)).astype(np.int32)
        found.append({"tokens_BT": tokens_BT, "lengths_B": lengths_B, "valid": min(size, rows - first)})
    return found


@pytest.fixture(scope="module")
def pair():
    return BagModel.random(0), BagModel.random(1)


def contenders(draft):
    return {
        "chain": Contender(ChainDrafter(draft, length=3)),
        "tree": Contender(TreeDrafter(draft, branching=(2, 1))),
        "zeros": Contender(Zeros()),
        "none": Contender(NoDraft()),
    }


def test_counts_are_the_decodings_own_for_every_kind_of_drafter(pair):
    target, draft = pair
    measured, plain = measure(target, contenders(draft), batches(), sampling=Sampling(0.0), **KNOBS)
    for name, contender in contenders(draft).items():
        rows = {"accepted": [], "rounds": [], "committed": []}
        for batch in batches():
            prompt, valid = Context(batch["tokens_BT"], batch["lengths_B"]), batch["valid"]
            out = generate(target, contender.drafter, prompt, jax.random.key(0), sampling=Sampling(0.0), **KNOBS)
            rows["accepted"] += list(out.accepted_BN.sum(1)[:valid])
            rows["rounds"] += list(out.rounds_B[:valid])
            rows["committed"] += list(out.lengths_B[:valid] - batch["lengths_B"][:valid])
        for field, expected in rows.items():
            np.testing.assert_array_equal(getattr(measured[name].counts, field), expected)
        assert measured[name].identical == 5
    assert plain["tokens"] == 5 * 12


def test_figures_of_a_model_are_those_of_drafters_that_have_one(pair):
    target, draft = pair
    measured, plain = measure(target, contenders(draft), batches(), sampling=Sampling(0.0), **KNOBS)
    report = report_fields(measured, plain, resamples=50, pairs=[("chain", "zeros")])
    drafts, speed = report["drafts"], report["speed"]
    assert drafts["chain"]["expected_alpha"] == drafts["tree"]["expected_alpha"] is not None
    for name in ("zeros", "none"):
        assert drafts[name]["expected_alpha"] is None and drafts[name]["teacher_forced_agreement"] is None
    assert drafts["none"]["alpha"] is None and drafts["zeros"]["alpha"] is not None
    assert "best_draft_length" in speed["chain"]
    assert not [name for name in ("tree", "zeros", "none") if "best_draft_length" in speed[name]]
    assert speed["draft_length"] == 3
    assert speed["plain_tokens_per_second"] == plain["tokens"] / plain["seconds"]
    for name, result in measured.items():
        rate = result.counts.committed.sum() / result.seconds
        assert speed[name]["tokens_per_second"] == rate
        assert speed[name]["speedup"] == rate / speed["plain_tokens_per_second"]


def test_answers_drawn_at_random_are_not_compared_with_plain_ones(pair):
    target, draft = pair
    found = []
    for sampling in (Sampling(0.0), Sampling(0.0, repetition_penalty=1.5), Sampling(1.0)):
        chain = {"chain": Contender(ChainDrafter(draft, length=2))}
        measured, plain = measure(target, chain, batches(), sampling=sampling, **KNOBS)
        found.append(report_fields(measured, plain, resamples=50)["speed"]["chain"]["identical_to_plain"])
    assert found == [5, 5, None]


def test_a_length_is_chosen_for_drafters_that_have_one(pair, monkeypatch):
    target, _ = pair
    priced = {"target_step": 1.0, "verification": {"1": 1.0, "16": 1.0}}
    free = priced | {"first_draft_step": {"own": 0.01}, "draft_step": {"own": 0.01}}
    module = importlib.import_module("adaspec_jax.measuring.measure")  # the function has its name
    monkeypatch.setattr(module, "round_costs", lambda *args, **knobs: free)
    own = {"own": Contender(ChainDrafter(target, length=2)), "zeros": Contender(Zeros())}
    measured, _ = measure(target, own, batches(), sampling=Sampling(0.0), choose_length=True, **KNOBS)
    assert measured["own"].draft_length == 16 and measured["zeros"].draft_length is None

"""Depths and refusals are read from the text of a decoding alike for chains and trees; vLLM's words are vLLM's."""

import jax
import numpy as np
import pytest

from adaspec_jax.decoding import ChainDrafter, Context, Sampling, TreeDrafter, generate
from adaspec_jax.measuring.figures import Tally, accepted_at, figures, in_vllms_words, part_of
from adaspec_jax.measuring.turns import Batch
from tests.decoding.bag_model import BagModel

ROWS = 24
TARGET = BagModel.random(0)
DRAFT = BagModel(TARGET.table_VV + 0.5 * BagModel.random(1).table_VV)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    lengths_B = rng.integers(1, 7, ROWS).astype(np.int32)
    prompt = Context(rng.integers(0, 4, (ROWS, 6)).astype(np.int32), lengths_B)
    return Batch(prompt, jax.random.key(0), lengths_B, ROWS)


def tally_of(drafter, batch, sampling):
    knobs = {"max_new_tokens": 17, "sampling": sampling, "eos_id": 3}
    made = jax.device_get(generate(TARGET, drafter, batch.prompt, batch.key, **knobs))
    return made, Tally.of([part_of(made, batch, np.ones(ROWS, bool), 2.0, 0.5)])


# The first guess below a node is judged wherever the walk stands there: these are the first ones, by depth.
FIRST_BELOW = {
    "chain": (ChainDrafter(DRAFT, length=3), [[0], [1], [2]]),
    "tree": (TreeDrafter(DRAFT, branching=(2, 2, 1)), [[0], [2, 4], [6, 7, 8, 9]]),
}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("shape", FIRST_BELOW)
def test_acceptance_by_depth_is_of_the_rounds_that_judged_it(shape, temperature, batch):
    drafter, first_below = FIRST_BELOW[shape]
    made, tally = tally_of(drafter, batch, Sampling(temperature))
    judged = [int(made.judged_BN[:, nodes].sum()) for nodes in first_below]
    reached = [int(tally.histogram[depth + 1 :].sum()) for depth in range(len(first_below))]
    assert accepted_at(tally) == [part / whole for part, whole in zip(reached, judged, strict=True) if whole]
    assert tally.histogram.sum() == made.rounds_B.sum() and 0 < tally.refused.sum() < tally.rounds.sum()


def test_vllms_words_have_vllms_definitions(batch):
    made, tally = tally_of(FIRST_BELOW["chain"][0], batch, Sampling(0.0))
    rounds, accepted = int(made.rounds_B.sum()), int(made.accepted_BN.sum())
    assert in_vllms_words(tally) == {
        "mean_acceptance_length": 1 + accepted / rounds,
        "draft_acceptance_rate": accepted / int(made.drafted_B.sum()),
        "per_position_acceptance_rates": [count / rounds for count in made.accepted_BN.sum(0).tolist()],
    }


def test_speed_leaves_prefill_out_and_pairs_the_batches(batch):
    _, tally = tally_of(FIRST_BELOW["chain"][0], batch, Sampling(0.0))

    def timed(seconds, prefill, tokens):
        return Tally(
            **{name: getattr(tally, name) for name in ("accepted", "judged", "drafted", "committed", "rounds")},
            **{name: getattr(tally, name) for name in ("identical", "histogram", "refused")},
            seconds=np.asarray(seconds),
            prefill_seconds=np.asarray(prefill),
            tokens=np.asarray(tokens),
            rows=np.asarray([12, 12]),
        )

    ours, plain = timed([2.0, 4.0], [1.0, 1.0], [10, 30]), timed([3.0, 7.0], [1.0, 1.0], [10, 30])
    found = figures(ours, plain, settled=True)
    assert (found["tokens_per_second"], found["speedup"], found["speedup_ci95"]) == (10.0, 2.0, [2.0, 2.0])
    assert figures(timed([1.0, 1.0], [2.0, 0.0], [5, 5]), plain, settled=False)["identical_to_plain"] is None

"""Methods of one independent draft, whatever their rule, decode the target's own text greedily and compile once."""

import jax
import numpy as np
import pytest

from adaspec_jax.decoding import Sampling, engine, generate, generate_from_queue
from adaspec_jax.decoding.speedup import RoundCosts
from adaspec_jax.methods import A_DRAFT, COSTS, METHODS, Given
from adaspec_jax.methods.lengths import LENGTHS
from tests.decoding.test_engine import GREEDY, KEY, pair, ragged_prompt  # noqa: F401
from tests.running import slow

OF_A_DRAFT = [
    name for name, method in METHODS.items() if method.needs in ((A_DRAFT,), (A_DRAFT, COSTS)) and method.lossless
]
# Their controllers are tried in `tests/decoding/test_lengths.py` too.
IN_SHORT = [slow(name) if METHODS[name] in LENGTHS and name != "copy_first" else name for name in OF_A_DRAFT]


@pytest.fixture
def given(pair):  # noqa: F811
    costs = {1: RoundCosts(0.2, 0.1, {0: 1.0, 16: 1.4}), 8: RoundCosts(0.3, 0.2, {0: 1.0, 16: 2.4})}
    return Given(target=pair[0], drafts={"d": pair[1]}, draft_length=4, costs=lambda given, drafter, longest: costs)


@pytest.mark.parametrize("name", IN_SHORT)
def test_greedy_text_is_plain_decodings_in_batches_and_in_queues(given, name):
    method = METHODS[name]
    drafter = method.make(given)
    for prompt, knobs in (
        (ragged_prompt(8), {"max_new_tokens": 23, "eos_id": (7, 2)}),
        (ragged_prompt(1), {"max_new_tokens": 23, "eos_id": -1}),
        (ragged_prompt(8), {"max_new_tokens": 3, "eos_id": 5}),  # less room than guesses
    ):
        knobs = knobs | {"sampling": GREEDY}
        plain = generate(given.target, METHODS["plain"].make(given), prompt, KEY, **knobs)
        ours = generate(given.target, drafter, prompt, KEY, accept=method.accept, **knobs)
        queued = generate_from_queue(given.target, drafter, prompt, KEY, rows=3, accept=method.accept, **knobs)
        for made in (ours, queued):
            np.testing.assert_array_equal(made.tokens_BS, plain.tokens_BS)
            np.testing.assert_array_equal(made.lengths_B, plain.lengths_B)
        assert ours.accepted_BN.sum() > 0


@pytest.mark.parametrize("name", IN_SHORT)
def test_sampling_through_a_method_compiles_once(given, name):
    before = None
    for seed in (0, 1, 2):
        method, prompt = METHODS[name], ragged_prompt(4)
        knobs = {"max_new_tokens": 9 + seed, "sampling": Sampling(0.7), "accept": method.accept, "eos_id": seed}
        made = generate(given.target, method.make(given), prompt, jax.random.key(seed), **knobs)
        assert (made.lengths_B > prompt.lengths_B).all()
        assert before in (None, engine._decode._cache_size())
        before = engine._decode._cache_size()

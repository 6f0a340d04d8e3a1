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

# Trees that are quick to grow; the numbers that the papers have are in `test_methods.py`.
SMALLER = {
    "specexec": {"budget": 8, "beams": 3, "branch": 4, "depth": 4},
    "edgellm": {"budget": 6, "depth": 4, "threshold": 0.1},
}


@pytest.fixture
def given(pair):  # noqa: F811
    costs = {1: RoundCosts(0.2, 0.1, {0: 1.0, 16: 1.4}), 8: RoundCosts(0.3, 0.2, {0: 1.0, 16: 2.4})}
    return Given(target=pair[0], drafts={"d": pair[1]}, draft_length=4, costs=lambda given, drafter, longest: costs)


@pytest.mark.parametrize("name", IN_SHORT)
def test_greedy_text_is_plain_decodings_in_batches_and_in_queues(given, name):
    method = METHODS[name].set(**SMALLER.get(name, {}))
    drafter = method.make(given)
    for batch, budget, eos in ((8, 23, (7, 2)), (8, 3, (5, 5)), (1, 23, (-1, -1))):  # 3: less room than guesses
        prompt, knobs = ragged_prompt(batch), {"max_new_tokens": budget, "eos_id": eos, "sampling": GREEDY}
        plain = generate(given.target, METHODS["plain"].make(given), prompt, KEY, **knobs)
        knobs |= {"accept": method.accept}
        ours = generate(given.target, drafter, prompt, KEY, **knobs)
        several = [generate_from_queue(given.target, drafter, prompt, KEY, rows=3, **knobs)] if batch > 1 else []
        for made in (ours, *several):
            np.testing.assert_array_equal(made.tokens_BS, plain.tokens_BS)
            np.testing.assert_array_equal(made.lengths_B, plain.lengths_B)
        assert ours.accepted_BN.sum() > 0


@pytest.mark.parametrize("name", IN_SHORT)
def test_sampling_through_a_method_compiles_once(given, name):
    before = None
    for seed in (0, 1, 2):
        method, prompt = METHODS[name].set(**SMALLER.get(name, {})), ragged_prompt(4)
        knobs = {"max_new_tokens": 9 + seed, "sampling": Sampling(0.7), "accept": method.accept, "eos_id": seed}
        made = generate(given.target, method.make(given), prompt, jax.random.key(seed), **knobs)
        assert (made.lengths_B > prompt.lengths_B).all()
        assert before in (None, engine._decode._cache_size())
        before = engine._decode._cache_size()

"""A benchmark's warm figures: each batch with what those before it taught, and every repetition from nothing."""

import jax
import numpy as np
import pytest

from adaspec_jax import data
from adaspec_jax.data.prompts import Prompt
from adaspec_jax.decoding import Context, Sampling, generate, generate_and_learn, with_memory
from adaspec_jax.decoding.drafters.text.recycling import TokenRecycling
from adaspec_jax.measuring import tallies
from adaspec_jax.measuring.bench import bench
from adaspec_jax.measuring.figures import Tally
from adaspec_jax.measuring.placing import mesh_of
from adaspec_jax.measuring.programs import Remembering
from adaspec_jax.methods import METHODS, Given, Method
from adaspec_jax.reporting import methods_table
from tests.decoding.recording import tiny_llama

GIVEN, SIZE = Given(target=tiny_llama()), 2
TREE = ((6,), (4, 2, 1, 0, 0, 0), (2, 1, 0, 0, 0, 0, 0))
RECYCLING = Method(name="recycling", drafter=lambda given: TokenRecycling(23, TREE))
ROWS = np.random.default_rng(0).integers(0, 23, (4, 9))
ASKED = [*ROWS, *ROWS[:2]]  # the last batch asks what the first did


@pytest.fixture(autouse=True)
def short_prompts(monkeypatch):
    monkeypatch.setattr("adaspec_jax.measuring.evaluation.BUCKETS", (16,))


@pytest.fixture
def repeated(monkeypatch):
    """[(rounds of the first time, rounds of a repetition)], where all is timed twice."""
    seen, timed_again = [], Tally.timed_again

    def look(self, other):
        seen.append((self.rounds.tolist(), other.rounds.tolist()))
        return timed_again(self, other)

    monkeypatch.setattr(Tally, "timed_again", look)
    monkeypatch.setattr(tallies, "speedup_interval", lambda tally, plain: [1.0, 1.0 + 0.3 / tally.repetitions])
    return seen


def measured(*methods):
    prompts = [Prompt(n, "", tokens=tuple(map(int, row))) for n, row in enumerate(ASKED)]
    knobs = {"batch_sizes": [SIZE], "max_new_tokens": 16, "sampling": Sampling(0.0), "until": 0.2}
    return bench(GIVEN, methods, prompts, ends=data.Ends((), 0), mesh=mesh_of(None, SIZE), **knobs)


def test_cold_and_warm_are_those_of_the_decodings_and_repetitions_begin_with_nothing(repeated):
    report = measured(RECYCLING, METHODS["prompt_lookup"])
    learnt, other = (report["methods"][name] for name in ("recycling", "prompt_lookup"))
    drafter, rounds = RECYCLING.make(GIVEN), {"cold": [], "warm": []}
    knobs, memory = {"max_new_tokens": 16, "sampling": Sampling(0.0)}, with_memory(drafter)
    for first in range(0, len(ASKED), SIZE):
        prompt = Context(np.stack(ASKED[first : first + SIZE]), np.full(SIZE, 9))
        cold = generate(GIVEN.target, drafter, prompt, jax.random.key(0), **knobs)
        warm, memory = generate_and_learn(GIVEN.target, memory, prompt, jax.random.key(0), **knobs)
        for name, made in {"cold": cold, "warm": warm}.items():
            rounds[name] += made.rounds_B.tolist()
    assert [row["rounds"] for row in learnt["requests"]] == rounds["cold"]
    assert learnt["rounds"] == sum(rounds["cold"]) > learnt["warm"]["rounds"] == sum(rounds["warm"])
    assert learnt["warm"]["identical_to_plain"] == learnt["identical_to_plain"] == len(ASKED)
    assert learnt["warm"]["compile_seconds"] > 0 and learnt["batch_sizes"][str(SIZE)]["warm"] == learnt["warm"]
    assert other["warm"] is None and report["plain"]["warm"] is None
    assert len(repeated) == 4 and all(first == again for first, again in repeated)
    settings = {"temperature": 0.0, "batch_size": "2", "draft_length": 5, "max_new_tokens": 16}
    table = methods_table(report | {"settings": settings})
    assert "\nrecycling, warm " in table and "prompt_lookup, warm" not in table and "\nWarm: each batch" in table


def test_a_repetition_that_remembers_the_first_is_found(repeated, monkeypatch):
    """The planted fault: it begins with its own earlier answers."""
    monkeypatch.setattr(Remembering, "forget", lambda self: None)
    measured(RECYCLING)
    assert [first == again for first, again in repeated] == [True, True, False]

"""A benchmark of many methods and shapes lets compiled programs go before Linux refuses to map another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import data
from adaspec_jax.data.prompts import Prompt
from adaspec_jax.decoding import Context, Sampling
from adaspec_jax.devices import mapped
from adaspec_jax.measuring.bench import bench
from adaspec_jax.measuring.placing import mesh_of
from adaspec_jax.measuring.programs import Program
from adaspec_jax.methods import METHODS, Given
from tests.decoding.recording import tiny_llama

GIVEN = Given(target=tiny_llama())
PROMPTS = [Prompt(n, "", tokens=tuple(row.tolist())) for n, row in enumerate(np.arange(36).reshape(4, 9) % 23)]


def counts() -> list[dict]:
    how = {"max_new_tokens": 8, "sampling": Sampling(0.0), "ends": data.Ends((), 0), "mesh": mesh_of(None, 2)}
    report = bench(GIVEN, [METHODS["prompt_lookup"]], PROMPTS, batch_sizes=[2], **how)
    return [{**row, "seconds": None} for row in report["methods"]["prompt_lookup"]["requests"]]


def test_what_was_let_go_is_compiled_again_and_counts_stay(monkeypatch):
    monkeypatch.setattr("adaspec_jax.measuring.evaluation.BUCKETS", (16,))
    held = counts()
    compiled, compile_of = [], Program.__call__

    def call(self, prompt, key):
        compiled.append(prompt.tokens_BS.shape not in self._compiled)
        return compile_of(self, prompt, key)

    monkeypatch.setattr(Program, "__call__", call)
    monkeypatch.setattr(mapped, "nearly_full", lambda: True)
    assert counts() == held
    assert sum(compiled) == 8  # two programs of two methods, for each of two batches of one shape
    assert len(compiled) == 16  # each first call after that is made twice, and the second is timed


def maps() -> int:
    return mapped._MAPS.read_bytes().count(b"\n")


@pytest.mark.skipif(not mapped._LIMIT.exists(), reason="Linux alone counts what is mapped")
def test_programs_are_unmapped_once_they_are_unloaded():
    def function(prompt, key):
        return jnp.sort(prompt.tokens_BS) @ jnp.ones((prompt.tokens_BS.shape[1], 3))

    program, before = Program(function), maps()
    for width in range(1, 60):
        program(Context(jnp.ones((2, width)), jnp.ones((2,))), jax.random.key(0))
    most = maps()
    program.unload()
    mapped.forget_programs()
    assert most - maps() > 0.5 * (most - before) > 30
    limit = int(mapped._LIMIT.read_text())
    assert mapped.nearly_full(0.9 * maps() / limit) and not mapped.nearly_full(1.2 * maps() / limit)

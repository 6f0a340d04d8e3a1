"""The number of operations of the plain, chain and tree programs, as lowered: what new fields may not add to."""

import importlib.metadata
import json
import re

import jax
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import (
    Analytical,
    ChainDrafter,
    Context,
    NoDraft,
    Sampling,
    TreeDrafter,
    engine,
    rejection_sample,
)
from tests.running import CHECKOUT

COUNTS = CHECKOUT / "tests" / "decoding" / "operations.json"
HF = {"model_type": "gpt_neox", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32}
HF |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 512}


def operations(kind: str, temperature: float) -> int:
    target, draft = (models.build(HF, jax.random.key(seed)) for seed in (0, 1))
    drafter = {"plain": NoDraft(), "chain": ChainDrafter(draft, 3), "tree": TreeDrafter(draft, (2, 1))}[kind]
    prompt = Context(np.ones((2, 8), np.int32), np.array([8, 4]))
    arguments, slots = engine.program_arguments(target, drafter, prompt, jax.random.key(0), 16, -1)
    static = {"slots": slots, "sampling": Sampling(temperature), "accept": rejection_sample}
    return count(engine._decode.lower(*arguments, **static))


def count(lowered) -> int:
    return len(re.findall(r"= \"?(?:stablehlo\.\w+|call|func\.call)\b", lowered.as_text()))


def locked(name: str) -> bool:
    pins = re.findall(rf"^{name}==(\S+)", (CHECKOUT / "requirements.lock").read_text(), re.MULTILINE)
    return importlib.metadata.version(name) in pins


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["plain", "chain", "tree"])
def test_a_program_has_as_many_operations_as_committed(kind, temperature):
    """Fewer or more on purpose: `python -m tests.decoding.test_programs` writes the new counts."""
    if not (locked("jax") and locked("flax")):
        pytest.skip("operations are counted with the lock's versions of jax and flax")
    assert operations(kind, temperature) == json.loads(COUNTS.read_text())[f"{kind} at {temperature:g}"]


@pytest.mark.parametrize("kind", ["plain", "chain", "tree", "resting"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_round_moves_no_cache(kind, batch):
    """Neither transposed for a product nor copied for a write: what is longer than the new entries stays in place."""
    if not (locked("jax") and locked("flax")):
        pytest.skip("what the compiler makes of a program is looked at with the lock's versions of jax and flax")
    target, draft = (models.build(HF, jax.random.key(seed)) for seed in (0, 1))
    resting = ChainDrafter(draft, 3, Analytical({1: np.ones(4)}), (0, 1))
    chains = {"plain": NoDraft(), "chain": ChainDrafter(draft, 3), "resting": resting}
    drafter = (chains | {"tree": TreeDrafter(draft, (2, 1))})[kind]
    prompt = Context(np.ones((batch, 331), np.int32), np.full(batch, 331))
    arguments, slots = engine.program_arguments(target, drafter, prompt, jax.random.key(0), 40, -1)
    static = {"slots": slots, "sampling": Sampling(0.0), "accept": rejection_sample}
    text = engine._decode.lower(*arguments, **static).compile().as_text()
    rounds = text[: text.index("\nENTRY")]  # beside the entry, where the prompt is read: bodies of loops
    moves = re.findall(r"f32\[([\d,]+)\]\S* (?:copy|transpose)\(", rounds)
    sizes = {int(np.prod([int(length) for length in shape.split(",")])) for shape in moves}
    assert f"f32[{batch},2,{slots},8]" in rounds
    assert batch * slots * 2 * 8 not in sizes


if __name__ == "__main__":
    counted = {f"{kind} at {t:g}": operations(kind, t) for kind in ("plain", "chain", "tree") for t in (0.0, 1.0)}
    COUNTS.write_text(json.dumps(counted, indent=2) + "\n")

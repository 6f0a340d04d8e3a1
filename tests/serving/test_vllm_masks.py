"""A draft that guesses at mask tokens and vLLM serves so: the text is the target's, the counts are ours.

ADASPEC_ENGINES names the folder with vLLM's environment (see test_real_engines); slow, and skipped without one.
"""

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaspec_jax import models
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.objectives import Masks, Now, distill_masked
from benchmarks.peer_environments import PEERS
from tests.running import CHECKOUT
from tests.serving.test_real_engines import alone
from tests.serving.test_vllm import GUESSES, LLAMA, NEW, PROMPT, ROWS, texts

TOKENS, MASK = 60, 61  # of 64 rows; the mask's is none of a token's


def trained(target, tokens_BT, steps=300):
    """A draft of one layer, of tied matrices, fitted to the target's own texts."""
    built = models.build(LLAMA | {"num_hidden_layers": 1, "tie_word_embeddings": True}, jax.random.key(1))
    draft = models.with_mask_token(built.with_vocabulary(TOKENS), MASK)
    objective, optimizer = distill_masked(masks=Masks(guesses=GUESSES, keep=0.9)), optax.adam(5e-3)
    batch = Batch(tokens_BT, jnp.ones(tokens_BT.shape, bool))

    @jax.jit
    def step(params, state, target, key):
        frozen = Frozen(target, None, now=Now(jnp.int32(0), key))
        loss = lambda params: objective(dataclasses.replace(draft, params=params), frozen, batch)[0]  # noqa: E731
        update, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, update), state

    params, state = draft.params, optimizer.init(draft.params)
    for number in range(steps):
        params, state = step(params, state, target, jax.random.key(number))
    return dataclasses.replace(draft, params=params)


def counted(draft, texts_BT):
    """(rounds, accepted guesses by place), as vLLM counts: prefill says the first token, the last round is whole."""
    made = jax.jit(lambda draft, tokens_1T: draft(tokens_1T)[0][0].argmax(-1))
    rounds, accepted = 0, np.zeros(GUESSES, int)
    for row in np.asarray(texts_BT):
        length = PROMPT + 1
        while length < PROMPT + NEW:
            tokens = np.concatenate([row[:length], np.full(len(row) + GUESSES - length, MASK)])
            guesses = np.asarray(made(draft, jnp.asarray(tokens[None])))[length - 1 : length - 1 + GUESSES]
            right = np.cumprod(guesses == row[length : length + GUESSES])
            rounds, accepted = rounds + 1, accepted + right
            length += int(right.sum()) + 1
    return rounds, accepted.tolist()


@pytest.mark.slow
def test_vllm_guesses_at_masks_what_we_guess(tmp_path):
    peer, environments = PEERS["vllm"], Path(os.environ.get("ADASPEC_ENGINES", "no such folder"))
    if why := peer.absent(environments):
        pytest.skip(f"ADASPEC_ENGINES has no vllm: {why}")
    target = models.build(LLAMA, jax.random.key(0)).with_vocabulary(TOKENS).with_vocabulary_size(64)
    prompts = np.random.default_rng(0).integers(1, TOKENS, (ROWS, PROMPT))
    said_BT = texts(target, prompts, NEW + GUESSES)
    models.save(target, tmp_path / "target")
    draft = trained(target, said_BT)
    models.save(draft.with_vocabulary_size(64), tmp_path / "draft")  # as an export has it
    spec = {"method": "draft_model", "model": str(tmp_path / "draft"), "num_speculative_tokens": GUESSES}
    jobs = [{"name": "plain", "spec": None}, {"name": "pard", "spec": spec | {"parallel_drafting": True}}]
    shared = {"target": str(tmp_path / "target"), "prompts": prompts.tolist(), "new": NEW}
    (tmp_path / "jobs.json").write_text(json.dumps([job | shared for job in jobs]))
    worker = CHECKOUT / "tests" / "serving" / "vllm_worker.py"
    command = [peer.python(environments), worker, tmp_path / "jobs.json", tmp_path / "out.json"]
    done = subprocess.run(command, env=alone(peer, environments), capture_output=True, text=True, timeout=1800)
    assert (tmp_path / "out.json").is_file(), done.stderr[-3000:]
    results = json.loads((tmp_path / "out.json").read_text())
    for name, result in results.items():
        assert "failed" not in result, f"{name}: {result}"
        assert result["answers"] == np.asarray(said_BT[:, PROMPT : PROMPT + NEW]).tolist(), name
    (rounds, accepted), counts = counted(draft, said_BT), results["pard"]["counts"]
    print(rounds, accepted, counts)
    assert sum(accepted) > rounds / 2, "a draft that is never right shows nothing"
    assert counts["num_drafts"] == rounds
    assert counts["num_accepted_tokens_per_pos"] == accepted

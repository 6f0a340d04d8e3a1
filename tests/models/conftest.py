"""Tiny models of every family, in JAX and as transformers writes them, with no parameter at zero or one."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.models.causal_lm import parameter_shapes
from tests.running import slow

TINY = {
    "model_type": "gpt_neox",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "rotary_pct": 0.5,
    "initializer_range": 0.3,
    "eos_token_id": 2,
}
# config.json keys of the other families' tiny models
_GROUPED = {key: TINY[key] for key in TINY if key != "rotary_pct"} | {"num_hidden_layers": 2, "num_key_value_heads": 2}
_SIZED = _GROUPED | {"head_dim": 16}
TINY_OF = {
    "gpt_neox": TINY,
    "phi": _GROUPED | {"model_type": "phi", "num_key_value_heads": 4, "partial_rotary_factor": 0.5},
    "llama": _GROUPED | {"model_type": "llama"},
    "qwen2": _GROUPED | {"model_type": "qwen2"},
    "qwen3": _GROUPED | {"model_type": "qwen3", "head_dim": 16},
    "mistral": _GROUPED | {"model_type": "mistral", "sliding_window": 5},
    "ministral": _SIZED | {"model_type": "ministral", "sliding_window": 5},
    "gemma": _SIZED | {"model_type": "gemma"},
    "gemma2": _SIZED | {"model_type": "gemma2", "sliding_window": 5},
    "gemma3_text": _SIZED | {"model_type": "gemma3_text", "sliding_window": 5, "sliding_window_pattern": 2},
    "olmo2": _GROUPED | {"model_type": "olmo2"},
    "smollm3": _GROUPED | {"model_type": "smollm3", "no_rope_layer_interval": 2, "pad_token_id": 0},
    "granite": _GROUPED
    | {"model_type": "granite", "embedding_multiplier": 3.0, "attention_multiplier": 0.2, "logits_scaling": 0.5}
    | {"residual_multiplier": 0.7},
    "phi3": _GROUPED | {"model_type": "phi3", "sliding_window": 5, "pad_token_id": 0},
    "mixtral": _GROUPED | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": _GROUPED
    | {"model_type": "qwen3_moe", "head_dim": 16, "moe_intermediate_size": 24}
    | {"num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": True},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 61,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 128,
        "initializer_range": 0.2,
        "eos_token_id": 2,
    },
    "codegen": {
        "model_type": "codegen",
        "vocab_size": 61,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 8,
        "n_positions": 128,
        "rotary_dim": 4,
        "initializer_range": 0.2,
        "eos_token_id": 2,
    },
}

# Of these every field is another family's too: where a test goes over all families, they run with `--slow` alone.
ALIKE = ("gemma", "gemma2", "granite", "ministral", "mistral", "mixtral")
QUICK = [slow(name) if name in ALIKE else name for name in sorted(TINY_OF)]


def shaken(params, seed=0):
    """Parameters with noise on every leaf: a bias left at zero would hide a transposition."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noise = [0.2 * jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, [leaf + extra for leaf, extra in zip(leaves, noise, strict=True)])


@pytest.fixture
def tiny_model():
    """`tiny_model(**config.json keys)` is a random CausalLM."""

    def build(seed=0, **keys):
        model = models.build(TINY | keys, jax.random.key(seed))
        return models.CausalLM(shaken(model.params, seed), model.config)

    return build


@pytest.fixture
def tiny_of():
    """`tiny_of(model_type, **config.json keys)` is a CausalLM of that family, drawn by NumPy: nothing is compiled."""

    def build(model_type, **keys):
        hf = TINY_OF.get(model_type, TINY) | {"model_type": model_type} | keys
        config, draw = models.config_from_hf(hf), np.random.default_rng(0)
        leaf = lambda shape: jnp.asarray(0.3 * draw.normal(size=shape.shape), shape.dtype)  # noqa: E731
        return models.CausalLM(jax.tree.map(leaf, parameter_shapes(config)), config)

    return build


@pytest.fixture
def torch_checkpoint(tmp_path):
    """`torch_checkpoint(**config.json keys)` is (transformers model, the directory it was saved to)."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def make(directory=None, dtype=None, max_shard_size="5GB", **keys):
        torch.manual_seed(0)
        keys = TINY_OF[keys.get("model_type", "gpt_neox")] | keys
        config = transformers.AutoConfig.for_model(
            keys.pop("model_type"), **copy.deepcopy(keys)
        )  # it edits nested keys
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        directory = directory or tmp_path / "theirs"
        model = model.to(dtype or torch.float32)
        model.save_pretrained(directory, max_shard_size=max_shard_size)
        return model, directory

    return make


@pytest.fixture
def edit_config():
    """`edit_config(directory, key=value, ...)` changes config.json; a value of None removes the key."""

    def edit(directory, **changes):
        path = directory / "config.json"
        config = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return edit

"""Layouts of heads on disk: rows of weight tables, the Llama config.json of a head's layer, and both read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from adaspec_jax.errors import UserError
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.families import llama
from adaspec_jax.models.files.weights import Weight, linear, norm
from adaspec_jax.models.heads.parts.sizes import Sizes
from adaspec_jax.models.heads.parts.stored import Stored

EMBEDDING, MATRIX = "embed_tokens.weight", "lm_head.weight"


def layer_rows(theirs: str, ours: str, *, also: str | None = None) -> list[Weight]:
    """Rows of the one decoder layer, without the norms before its attention; `also`: another name of `theirs`."""
    rows = []
    for part in "qkv":
        rows += linear(f"{theirs}.self_attn.{part}_proj", f"{ours}/attention/{part}", bias=False)
    rows += linear(f"{theirs}.self_attn.o_proj", f"{ours}/attention/out", bias=False)
    for part in ("gate", "up", "down"):
        rows += linear(f"{theirs}.mlp.{part}_proj", f"{ours}/mlp/{part}", bias=False)
    rows += norm(f"{theirs}.post_attention_layernorm", f"{ours}/mlp_norm", bias=False)
    return [renamed(row, theirs, also) for row in rows] if also else rows


def renamed(row: Weight, name: str, also: str) -> Weight:
    """The row, which may be called `also` in place of `name` when it is read."""
    return row._replace(also=(*row.also, row.name.replace(name, also, 1)))


def llama_config(sizes: Sizes) -> dict[str, Any]:
    """A config.json of the one layer as servers take it for a Llama of one layer."""
    scaling = {}
    if sizes.rope_scaling is not None:
        said = dataclasses.asdict(sizes.rope_scaling)
        said["original_max_position_embeddings"] = said.pop("original_positions")
        scaling = {"rope_scaling": {"rope_type": "llama3"} | said}
    return scaling | {
        "model_type": "llama",
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "num_hidden_layers": 1,
        "num_attention_heads": sizes.num_heads,
        "num_key_value_heads": sizes.num_kv_heads,
        "head_dim": sizes.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": sizes.norm_eps,
        "rope_theta": sizes.rope_theta,
        "max_position_embeddings": sizes.max_positions,
        "initializer_range": sizes.initializer_range,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
    }


def llama_sizes(
    config: Mapping[str, Any], target: CausalLM, *, model_type: str = "llama", layers: int | None = 1
) -> Sizes:
    """Sizes of a head on this target whose layer such a config.json describes; UserError for another layer.

    `layers`: how many it must have; None: any number.
    """
    if config.get("model_type", model_type) != model_type:
        said = f'config.json: model_type "{config["model_type"]}"'
        raise UserError(f"{said}: heads here have a layer of {model_type.capitalize()}'s")
    said = llama.config(dict(config))
    if layers is not None and said.num_layers != layers:
        raise UserError(f'config.json: "num_hidden_layers" is {said.num_layers}; heads here have one layer')
    for key, is_so in (("attention_bias", said.qkv_bias), ("mlp_bias", said.mlp_bias)):
        if is_so:
            raise UserError(f'config.json: "{key}" is true, which heads here do not compute')
    if said.activation not in ("silu", "swish"):
        raise UserError(f'config.json: "hidden_act" is "{said.activation}"; heads here compute "silu" alone')
    own = Sizes.of(target.config)
    for key in ("hidden_size", "vocab_size"):
        check_size(key, getattr(said, key), getattr(own, key))
    kept = ("vocab_size", "num_tokens", "hidden_size", "num_layers")
    layers = {name: value for name, value in dataclasses.asdict(own).items() if name not in kept}
    return dataclasses.replace(own, **{name: getattr(said, name) for name in layers})


def check_size(name: str, said: int, targets: int) -> None:
    """UserError where a head's size is not its target's."""
    if said != targets:
        raise UserError(f"a head of another target: {name} is {said}, and {targets} in the target")


def drop_copy(stored: Stored, name: str) -> None:
    """Takes out the copy of the target's embeddings or output matrix, if any; UserError where it differs from them."""
    if (tensor := stored.tensors.pop(name, None)) is None:
        return
    ours, theirs = target_rows(stored.target, name), tensor.read()
    # Rounded to both kinds of number: what differs then does not differ by a conversion.
    same_kind = [x.astype(theirs.dtype).astype(ours.dtype) for x in (ours, theirs)]
    if ours.shape != theirs.shape or not np.array_equal(*same_kind):
        raise UserError(
            f"{name} differs from the target's, which is what heads here read in its place: another target?"
        )


def target_rows(target: CausalLM, name: str) -> np.ndarray:
    """[V, D]: the target's embeddings or its output matrix, whichever has that `name` in a head's file."""
    if name == EMBEDDING:
        return np.asarray(target.params["embed"]["embedding"])
    if target.config.head_bias:
        raise UserError("the head shares the target's output matrix, and that of this target has a bias")
    return np.asarray(target.output_matrix()).T

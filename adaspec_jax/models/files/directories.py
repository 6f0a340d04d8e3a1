"""Hugging Face directories: read into a `CausalLM`, and written so that transformers loads them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from adaspec_jax.devices import processes
from adaspec_jax.drafter_file import kind_in
from adaspec_jax.errors import UserError
from adaspec_jax.files import read_json, write_json
from adaspec_jax.generation_config import FILE as GENERATION
from adaspec_jax.generation_config import Asked, asked, read_generation_config
from adaspec_jax.models.causal_lm import CausalLM, parameter_shapes
from adaspec_jax.models.decoder_config import DecoderConfig
from adaspec_jax.models.decoding_layout import is_laid_out
from adaspec_jax.models.families import config_from_hf, family
from adaspec_jax.models.families.windows import FULL, SLIDING
from adaspec_jax.models.files.fused_experts import by_expert
from adaspec_jax.models.files.safetensors import SINGLE, open_tensors, write_tensors
from adaspec_jax.models.files.tokenizer_files import write_tokenizer
from adaspec_jax.models.files.weights import params_from_tensors, tensors_from_params
from adaspec_jax.places import ADAPTER, find_local, not_given_by_the_hub, only_an_adapter
from adaspec_jax.text_part import note_on, of_text, text_part

ROTARY_KEYS = {"gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}}
PADS = {"phi3": 32000, "smollm3": 128004}  # what transformers takes for the padding of a file that is silent
EXPERT_KEYS = ("num_experts", "num_local_experts")
LOCAL_KEYS = {"gemma3_text": "rope_local_base_freq"}  # and where the base of layers with a window was
HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer*", "*.model", "*.txt", "*.jinja"]


def load(path_or_name: str | Path, *, dtype: Any = jnp.float32, revision: str | None = None) -> CausalLM:
    """A model from a local Hugging Face directory, else from the hub, with parameters in `dtype`.

    Safetensors only, single or sharded. UserError names the file at fault, or every tensor that does not fit.
    """
    directory = find_directory(path_or_name, revision=revision)
    if (kind := kind_in(directory)) is not None:
        raise UserError(f"{directory} holds a head of the kind {kind}, which guesses from its target: no model")
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory} has no config.json: it is not a Hugging Face model directory")
    hf = read_json(directory / "config.json")
    config, note = described(hf, directory), note_on(hf)
    generation = read_generation_config(directory)
    asked(config.hf_config(), generation, origin=f"{directory}/")  # said before the weights are read
    config = dataclasses.replace(config, generation=json.dumps(generation))
    rules, tensors = family(config.model_type), open_tensors(directory)
    if note is not None:
        processes.note(f"{directory}: {note}")
        tensors = of_text(tensors)
    tensors = by_expert(tensors)
    if config.num_layers * max(config.experts, 1) > len(tensors):  # said before there is a row for each of a number
        layers = f"{config.num_layers} layers" + (f" of {config.experts} experts" if config.experts else "")
        raise UserError(f"{directory}: the tensors do not fit config.json: {layers} there, {len(tensors)} tensors")
    for line in getattr(rules, "said", lambda hf: ())(config.hf_config()):
        processes.note(f"{directory}: {line}")
    params = params_from_tensors(
        rules.table(config),
        tensors,
        parameter_shapes(config),
        dtype=jnp.dtype(dtype),
        ignored=rules.IGNORED,
        origin=str(directory),
        note=processes.note,
    )
    return CausalLM(params, config)


def described(hf: dict, place: object) -> DecoderConfig:
    """The decoder that the config.json of a place describes; UserError, naming the place, where it is not read."""
    if (quantised := hf.get("quantization_config")) is not None:
        method = quantised.get("quant_method", "unnamed") if isinstance(quantised, dict) else quantised
        raise UserError(
            f'{place}: by "quantization_config" in config.json the weights are quantised (quant_method: {method}); '
            "such are not read: give the directory or the hub name of the unquantised weights"
        )
    hf = text_part(hf, place)
    try:
        return config_from_hf(hf)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def asked_by(path_or_name: str | Path) -> Asked:
    """What the files of a directory or hub name ask of decoding, weights unread; UserError where they are no JSON."""
    directory = find_directory(path_or_name)
    config, generation = read_json(directory / "config.json"), read_generation_config(directory)
    return asked(text_part(config, directory), generation, origin=f"{directory}/")


def asked_of(model: CausalLM) -> Asked:
    """What the files it was read from ask of decoding."""
    return asked(model.config.hf_config(), json.loads(model.config.generation))


def save(model: CausalLM, directory: str | Path, *, tokenizer: Any = None, generation: dict | None = None) -> None:
    """A directory transformers loads, in the parameters' dtype; each file appears whole, config.json last.

    The generation_config.json the model came with is kept; `generation` is added to it.

    Raises:
      ValueError: the model is laid out for decoding: save the one it was made of.
    """
    if is_laid_out(model.params):
        raise ValueError("the model is laid out for decoding; save the one that it was made of")
    directory, model = Path(directory), model.unstacked()
    directory.mkdir(parents=True, exist_ok=True)
    rules = family(model.config.model_type)
    hf = for_all_readers(model.config.hf_config())
    hf.setdefault("architectures", [rules.ARCHITECTURE])
    # transformers writes "dtype" since 4.56 and "torch_dtype" before; it reads both, older readers only the latter.
    for key in [key for key in ("dtype", "torch_dtype") if key in hf] or ["torch_dtype"]:
        hf[key] = str(model.dtype)
    token_ids = {key: hf[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if hf.get(key) is not None}

    write_tensors(directory / SINGLE, tensors_from_params(rules.table(model.config), model.params))
    if tokenizer is not None:
        write_tokenizer(tokenizer, directory)
    kept = json.loads(model.config.generation)
    asks = {"_from_model_config": True, **token_ids} if kept is None else kept
    if generation:
        asks = {key: value for key, value in asks.items() if key != "_from_model_config"} | generation
    write_json(directory / GENERATION, asks)
    write_json(directory / "config.json", hf)


def for_all_readers(hf: dict) -> dict:
    """A config.json whose keys transformers 4 and 5 read alike.

    The former knows none of rotation in `rope_parameters`, and a Qwen3 mixture's number of experts under one name only,
    of which the latter writes the other.
    """
    if hf.get("model_type") == "qwen3_moe":
        count = next((hf[key] for key in EXPERT_KEYS if key in hf), None)
        hf = hf | (dict.fromkeys(EXPERT_KEYS, count) if count is not None else {})
    if "pad_token_id" not in hf and hf.get("vocab_size", 0) <= PADS.get(hf.get("model_type", ""), -1):
        hf = hf | {"pad_token_id": None}  # theirs is past the vocabulary, and then nothing loads
    rope, family_of = dict(hf.get("rope_parameters") or {}), hf.get("model_type", "")
    kept = {key: value for key, value in hf.items() if key != "rope_parameters"}
    if any(isinstance(value, dict) for value in rope.values()):  # one entry per kind of layer
        local = dict(rope.get(SLIDING) or {})
        if family_of not in LOCAL_KEYS or local.get("rope_type", "default") != "default":
            return hf  # the old form has no place for it
        if "rope_theta" in local:
            kept[LOCAL_KEYS[family_of]] = local["rope_theta"]
        rope = dict(rope.get(FULL) or {})
    elif not rope:
        return hf
    old = ROTARY_KEYS.get(family_of, {})
    for name in ("rope_theta", "partial_rotary_factor"):
        if (value := rope.pop(name, None)) is not None:
            kept[old.get(name, name)] = value
    if rope.get("rope_type", "default") != "default":
        kept["rope_scaling"] = rope
    if family_of == "phi3" and "short_factor" in rope:  # transformers 4 takes these three keys and no other
        kept["rope_scaling"] = {"type": "longrope", **{key: rope[key] for key in ("short_factor", "long_factor")}}
        if "original_max_position_embeddings" in rope:
            kept.setdefault("original_max_position_embeddings", rope["original_max_position_embeddings"])
    return kept


def find_directory(path_or_name: str | Path, *, revision: str | None = None) -> Path:
    """The local directory, that name below ADASPEC_WEIGHTS, or the hub's snapshot; UserError where it has no model."""
    directory = find_local(path_or_name) or _snapshot(str(path_or_name), revision)
    if (directory / ADAPTER).is_file():
        raise only_an_adapter(directory, read_json(directory / ADAPTER))
    return directory


def _snapshot(name: str, revision: str | None) -> Path:
    import huggingface_hub  # here, because a local directory needs neither the package nor its import time

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=HUB_FILES))
    except Exception as error:
        raise not_given_by_the_hub(name, error) from error

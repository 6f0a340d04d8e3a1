"""Some of a model's own layers as a model: what a draft that is cut from its target begins as."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from adaspec_jax.errors import UserError
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.decoder import STACKED
from adaspec_jax.models.families import family

CUT = "adaspec_cut"  # in the config.json of what was cut: from which layers of what
DEPTH = ("num_hidden_layers", "n_layer")  # one of them in a config.json
KINDS, FULL_BEFORE = "layer_types", "max_window_layers"  # what config.json says by layer


def cut(model: CausalLM, layers: Sequence[int], *, origin: str = "") -> CausalLM:
    """The model of only these layers, by number from 0 in increasing order, between the same embedding and head.

    Tied heads stay tied, stacked layers stacked; config.json and generation_config.json stay but for what they say of
    layers. Where an `origin` is named, config.json says what was cut from it.

    Raises:
      ValueError: no layer, layers out of range or not in increasing order.
      UserError: config.json has another list of layers, of which it is not known what the cut leaves.
    """
    layers, c = tuple(int(layer) for layer in layers), model.config
    if not layers or list(layers) != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] < c.num_layers:
        raise ValueError(f"layers {layers} are not among 0 to {c.num_layers - 1}, in increasing order")
    if STACKED in model.params:
        stack = jax.tree.map(lambda leaf: leaf[np.array(layers)], model.params[STACKED])
        params = model.params | {STACKED: stack}
    else:
        kept = {f"layers_{i}": model.params[f"layers_{layer}"] for i, layer in enumerate(layers)}
        params = {name: value for name, value in model.params.items() if not name.startswith("layers_")} | kept
    hf = _of_layers(c.hf_config(), layers, c.num_layers)
    if origin:
        hf[CUT] = in_words(layers, origin)
    windows, rotations = (tuple(x[i] for i in layers) if x else () for x in (c.windows, c.rotations))
    left: dict[str, Any] = {"windows": windows if any(windows) else (), "rotations": rotations}
    config = replace(c, num_layers=len(layers), source=json.dumps(hf, sort_keys=True), **left)
    return replace(model, params=params, config=config)


def in_words(layers: Sequence[int], origin: str) -> str:
    """As a config.json, a plan and an export say it."""
    return f"cut from layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))} of {origin}"


def cut_from(model: CausalLM) -> str | None:
    """What the model was cut from, in words; None where it was not, or its config.json does not say."""
    said = model.config.hf_config().get(CUT)
    return said if isinstance(said, str) else None


def _of_layers(hf: dict[str, Any], layers: tuple[int, ...], count: int) -> dict[str, Any]:
    """A config.json of so many layers, with what it says of each for those that are left."""
    hf = {key: value for key, value in hf.items() if key != CUT}  # true of what this is cut from
    unknown = [key for key, value in hf.items() if "layer" in key and isinstance(value, list) and value]
    said: dict[str, Any] = getattr(family(hf["model_type"]), "by_layer", lambda *_: {})(hf, count)
    if other := sorted(set(unknown) - {KINDS, *said}):
        raise UserError(f'config.json: "{other[0]}" lists layers, and what a cut leaves of it is not known; remove it')
    if len(layers) < count:  # what follows from a layer's number has to be said of those that are left
        hf |= said
    hf |= {key: len(layers) for key in DEPTH if key in hf}
    for key in (KINDS, *said):
        if isinstance(kinds := hf.get(key), list) and len(kinds) == count:
            hf[key] = [kinds[layer] for layer in layers]
    if isinstance(first := hf.get(FULL_BEFORE, 28 if hf.get("use_sliding_window") else None), int):
        hf[FULL_BEFORE] = sum(layer < first for layer in layers)
    return hf

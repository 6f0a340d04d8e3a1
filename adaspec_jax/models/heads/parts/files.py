"""Heads as directories: drafter.json says what one holds, config.json and model.safetensors are what servers read."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.devices import processes
from adaspec_jax.drafter_file import FILE, kind_in
from adaspec_jax.errors import UserError
from adaspec_jax.files import read_json, write_json
from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.files.directories import find_directory
from adaspec_jax.models.files.safetensors import SINGLE, open_tensors, write_tensors
from adaspec_jax.models.files.weights import params_from_tensors, tensors_from_params
from adaspec_jax.models.heads import find_kind, made_for
from adaspec_jax.models.heads.parts.checked import check_types
from adaspec_jax.models.heads.parts.head import Head, Kind
from adaspec_jax.models.heads.parts.sizes import Sizes
from adaspec_jax.models.heads.parts.stored import Stored
from adaspec_jax.models.rotary import Llama3Scaling

_OF_THE_TARGET = {
    "hidden_size": "hidden size",
    "vocab_size": "vocabulary rows",
    "num_layers": "layers",
    "num_tokens": "tokens",
}
_IGNORED = re.compile(r"(.*\.)?rotary_emb\.inv_freq")


def save_head(
    head: Head, directory: str | Path, *, config: Mapping[str, Any] | None = None, fingerprint: str | None = None
) -> None:
    """A directory that `load_head` reads back to the bit; each file appears whole, drafter.json last.

    Where servers read heads of the kind, config.json and model.safetensors are in their layout; `config`: a config.json
    in place of the kind's own. `fingerprint`: SHA-256 of the weights of the target that it was trained on, by which
    another target of equal sizes is refused.
    """
    directory, kind = Path(directory), head.config
    directory.mkdir(parents=True, exist_ok=True)
    tensors = tensors_from_params(kind.table(head.params), head.params) | kind.beside(head)
    write_tensors(directory / SINGLE, {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    config = kind.hf_config() if config is None else config
    write_json(directory / "config.json", {**config, "torch_dtype": str(head.dtype)})
    target = {name: getattr(kind.sizes, name) for name in _OF_THE_TARGET}
    said = {
        "kind": kind.name,
        "knobs": {name: getattr(kind, name) for name in kind.knobs()},
        "sizes": dataclasses.asdict(kind.sizes),
        "target": target | ({} if fingerprint is None else {"fingerprint": fingerprint}),
    }
    write_json(directory / FILE, said)


def trained_on(directory: str | Path) -> str | None:
    """The SHA-256 of the weights that the target had of a head in a directory; None where it does not say."""
    file = find_directory(directory) / FILE
    target = read_json(file).get("target") if file.is_file() else None
    return target.get("fingerprint") if isinstance(target, Mapping) else None


def load_head(
    directory: str | Path, target: CausalLM, *, dtype: Any = jnp.float32, fingerprint: str | None = None
) -> Head:
    """The head in a directory (or of a hub name), made here or published elsewhere, with parameters in `dtype`.

    `target` is the model that it belongs to, `fingerprint` the SHA-256 of its weights, where that is known. UserError
    says what differs of another target's head, which file is at fault, or what is not computed here.
    """
    directory = find_directory(directory)
    if (name := kind_in(directory)) is None:
        raise UserError(f"{directory} holds no head on a target's features: it has no {FILE}")
    try:
        made = find_kind(name)
        stored = Stored(_config(directory), dict(open_tensors(directory)), target)
        if (directory / FILE).is_file():
            kind = _said(read_json(directory / FILE), name, target, fingerprint)
        else:
            kind = made.published(stored)
        tables = kind.tables_of(stored)
    except UserError as error:
        where = "" if str(directory) in str(error) else f"{directory}: "
        raise UserError(f"{where}{error}") from None
    except ValueError as error:
        raise UserError(f"{directory}: a head of the kind {name}: {error}") from None
    shapes = _shapes(kind, target)
    origin = str(directory)
    ignored: dict[str, Any] = {"ignored": _IGNORED, "note": processes.note}
    params = params_from_tensors(
        kind.table(shapes), stored.tensors, shapes, dtype=jnp.dtype(dtype), origin=origin, **ignored
    )
    return Head(params, kind, tables)


def _config(directory: Path) -> Mapping[str, Any]:
    """config.json, which a directory with a drafter.json may lack."""
    file = directory / "config.json"
    return read_json(file) if file.is_file() or not (directory / FILE).is_file() else {}


def _shapes(kind: Kind, target: CausalLM) -> Any:
    """The head's parameters as float32 shapes; nothing is allocated."""
    counts_V = np.zeros((kind.sizes.vocab_size,), np.int64)

    def init(key: Array, target):
        return kind.init(key, target, counts_V)[0]

    return jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)), target)


def _said(said: Mapping[str, Any], name: str, target: CausalLM, fingerprint: str | None) -> Kind:
    """The kind that a drafter.json describes; UserError where that is of another target, or of no use."""
    trained_on, knobs, sizes = (said.get(key) for key in ("target", "knobs", "sizes"))
    if not (isinstance(trained_on, Mapping) and isinstance(knobs, Mapping) and isinstance(sizes, Mapping)):
        raise UserError(f'{FILE} has no "target", "knobs" and "sizes" of a head; copy it again')
    _check_target(trained_on, target, fingerprint)
    scaling = sizes.get("rope_scaling")
    changes = {key: value for key, value in sizes.items() if key != "rope_scaling"}
    try:
        made = Sizes(**changes, rope_scaling=None if scaling is None else Llama3Scaling(**scaling))
        check_types(made, least=1)
        tokens = min(made.num_tokens, target.config.num_tokens)
        knobs = {key: tuple(value) if isinstance(value, list) else value for key, value in knobs.items()}
        return made_for(name, knobs, dataclasses.replace(made, num_tokens=tokens))
    except TypeError as error:
        raise UserError(f"{FILE} does not describe a head ({error}); copy it again") from None


def _check_target(trained_on: Mapping[str, Any], target: CausalLM, fingerprint: str | None) -> None:
    there, here = dict(trained_on), {name: getattr(target.config, name) for name in _OF_THE_TARGET}
    whole = here["vocab_size"]
    if whole in (here["num_tokens"], there.get("num_tokens")):  # of one of them it is not known
        here.pop("num_tokens")
    differing = [
        f"{words} {there.get(name)} there and {here[name]} here"
        for name, words in _OF_THE_TARGET.items()
        if name in here and there.get(name) != here[name]
    ]
    known = there.get("fingerprint")
    if not differing and known is not None and fingerprint is not None and known != fingerprint:
        differing = [f"weights {known[:12]} there and {fingerprint[:12]} here"]
    if differing:
        raise UserError(f"the head belongs to another target: {', '.join(differing)}; give the one it was trained on")

"""What kind of drafter a directory holds, by the word of its own files: drafter.json, config.json, tensors' names."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from adaspec_jax.files import parsed, read_json

FILE = "drafter.json"  # {"kind": NAME, ...}, beside config.json; a plain model has none, or says so
PLAIN_MODEL = "model"
MASK = "pard_token"  # in the config.json of a draft model that guesses in one pass: the token for what is to be guessed
# The same of one that guesses at masks which see each other, and how many guesses it makes of such a block (SpecDec).
BLOCK_MASK, BLOCK = "specdec_token", "specdec_block"
_IN_ONE_PASS = ("dflash", "p_eagle", "pass")  # kinds of heads whose only way to guess is a chain
LAYOUT = "adaspec_layout"  # in the config.json of an exported head: whose it is, "vllm" or "sglang"


def chain_method(kind: str) -> str:
    """The method by which a head of the kind guesses in a row, as servers decode it."""
    return kind if kind in _IN_ONE_PASS else f"{kind}_chain"


def kind_in(directory: str | Path) -> str | None:
    """The kind of drafter in a directory, whether it is known here or not; None: a plain model, or nothing."""
    directory = Path(directory)
    said, config = (
        read_json(directory / file) if (directory / file).is_file() else None for file in (FILE, "config.json")
    )
    return kind_said(said, config, () if said is not None else _names(directory))


def guesses_at_masks(directory: str | Path) -> bool:
    """Whether the plain model in a directory makes several guesses in one pass."""
    file = Path(directory) / "config.json"
    said = read_json(file) if file.is_file() else {}
    return any(said.get(name) is not None for name in (MASK, BLOCK_MASK))


def kind_said(
    said: Mapping[str, Any] | None, config: Mapping[str, Any] | None, names: Collection[str] = ()
) -> str | None:
    """The kind by a drafter.json, or for lack of one by config.json and tensors' names; None: a plain model."""
    if said is not None:
        return None if said.get("kind") == PLAIN_MODEL else str(said.get("kind"))
    return kind_of_config(config or {}, names)


def kind_of_config(config: Mapping[str, Any], names: Collection[str] = ()) -> str | None:
    """The kind of head that was made elsewhere, of its config.json and its tensors' names; None: a plain model.

    A class that is not known comes back as it calls itself where it is no plain model's by its name, or by what else
    is there.
    """
    if "speculators_model_type" in config:
        return str(config["speculators_model_type"])
    if str(config.get("model_type")).startswith("adaspec_"):
        return str(config["model_type"]).removeprefix("adaspec_")
    named = config.get("architectures")
    classes = list(map(str, named)) if isinstance(named, list) else []
    if config.get("model_type") == "medusa" or "medusa_num_heads" in config or "MedusaModel" in classes:
        return "medusa"
    if "DFlashDraftModel" in classes:
        return "dflash"
    beginnings = {"eagle3": ("Eagle3", "EAGLE3"), "eagle": ("Eagle", "EAGLE")}  # the longer ones first
    for name in classes:
        for kind, words in beginnings.items():
            if name.startswith(words) or name.endswith(words):
                parallel = kind == "eagle3" and (config.get("parallel_drafting") or "mask_hidden" in names)
                return "p_eagle" if parallel else kind
        if name.rpartition("ForCausalLM")[2] not in ("", name) or name.endswith(("DraftModel", "Speculator")):
            return name
    found: str | None = None
    if "eagle_config" in config or "draft_vocab_size" in config or "midlayer.hidden_norm.weight" in names:
        found = "eagle3"
    elif "fc.weight" in names:
        found = "eagle"
    # A head's config.json is often a plain model's; a class that is not such a model's is of another kind.
    plain = f"{config.get('model_type', 'llama')}ForCausalLM".replace("_", "").lower()
    others = [name for name in classes if name.lower() != plain]
    return others[0] if found and others else found


def may_hide_a_head(config: Mapping[str, Any]) -> bool:
    """Whether only tensors' names could tell that config.json is of a head: it has one layer, as EAGLE's have."""
    return kind_of_config(config) is None and config.get("num_hidden_layers") == 1


def _names(directory: Path) -> Collection[str]:
    """The names of a directory's tensors in safetensors files, one or several; none where they cannot be read."""
    try:
        with (directory / "model.safetensors").open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            return parsed(stream.read(min(length, 100_000_000))).keys()
    except FileNotFoundError:
        index = directory / "model.safetensors.index.json"
        named = read_json(index).get("weight_map") if index.is_file() else None
        return named if isinstance(named, dict) else ()
    except (OSError, ValueError, struct.error, AttributeError):
        return ()

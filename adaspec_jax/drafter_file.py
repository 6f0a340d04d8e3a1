"""What kind of drafter a directory holds, by the word of its own files: drafter.json, config.json, tensors' names."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from adaspec_jax.files import parsed, read_json

FILE = "drafter.json"  # {"kind": NAME, ...}, beside config.json; a plain model has none, or says so
PLAIN_MODEL = "model"


def kind_in(directory: str | Path) -> str | None:
    """The kind of drafter in a directory, whether it is known here or not; None: a plain model, or nothing."""
    directory = Path(directory)
    if (directory / FILE).is_file():
        kind = str(read_json(directory / FILE).get("kind"))
        return None if kind == PLAIN_MODEL else kind
    if not (directory / "config.json").is_file():
        return None
    return kind_of_config(read_json(directory / "config.json"), _names(directory / "model.safetensors"))


def kind_of_config(config: Mapping[str, Any], names: Collection[str] = ()) -> str | None:
    """The kind of head that was made elsewhere, of its config.json and its tensors' names; None: a plain model.

    A class that is not known comes back as it calls itself: it is no plain model.
    """
    if "speculators_model_type" in config:
        return str(config["speculators_model_type"])
    if str(config.get("model_type")).startswith("adaspec_"):
        return str(config["model_type"]).removeprefix("adaspec_")
    classes = [str(name) for name in config.get("architectures") or ()]
    if config.get("model_type") == "medusa" or "medusa_num_heads" in config or "MedusaModel" in classes:
        return "medusa"
    beginnings = {"eagle3": ("Eagle3", "EAGLE3"), "eagle": ("Eagle", "EAGLE")}  # the longer ones first
    for name in classes:
        for kind, words in beginnings.items():
            if name.startswith(words) or name.endswith(words):
                return kind
        if name.rpartition("ForCausalLM")[2] not in ("", name):
            return name
    if "eagle_config" in config or "draft_vocab_size" in config or "midlayer.hidden_norm.weight" in names:
        return "eagle3"
    return "eagle" if "fc.weight" in names else None  # EAGLE's config.json is often a plain Llama's


def _names(file: Path) -> Collection[str]:
    """The tensors' names in a safetensors file; none of one that is not there or cannot be read."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            return parsed(stream.read(min(length, 100_000_000))).keys()
    except (OSError, ValueError, struct.error, AttributeError):
        return ()

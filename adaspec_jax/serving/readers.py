"""What a directory's readers take otherwise than it is meant: transformers 4, and the classes of transformers 5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaspec_jax import data
from adaspec_jax.errors import UserError
from adaspec_jax.files import read_json
from adaspec_jax.places import find_local

_MEND = "adaspec_jax.export writes what both read alike"


def misread(name: str, config: Mapping[str, Any], tokenizer: Any) -> list[str]:
    """What a directory holds that some reader takes otherwise than it is meant, a line each.

    `config` is its config.json. Of a hub name the tokenizer's files are not looked at.
    """
    directory, found = find_local(name), []
    file = directory / "tokenizer_config.json" if directory else None
    settings = read_json(file) if file and file.is_file() else {}
    if isinstance(settings.get("extra_special_tokens"), list):
        found.append(f"tokenizer_config.json: transformers 4 dies of extra_special_tokens as a list; {_MEND}")
    if str(settings.get("tokenizer_class")) == "TokenizersBackend":
        found.append(f"tokenizer_config.json: transformers 4 knows no tokenizer_class TokenizersBackend; {_MEND}")
    if lost := _lost_rotary_keys(config):
        found.append(f"config.json: transformers 4 reads no {', '.join(lost)} in rope_parameters; {_MEND}")
    if tokenizer is not None and directory and (difference := _by_its_class(directory, tokenizer)):
        found.append(
            "AutoTokenizer of transformers, which vLLM and SGLang take too, reads text otherwise than tokenizer.json: "
            f"{difference}; give them PreTrainedTokenizerFast, or token ids"
        )
    return found


def _lost_rotary_keys(config: Mapping[str, Any]) -> list[str]:
    rope = config.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        return []
    if nested := [name for name, value in rope.items() if isinstance(value, Mapping)]:
        return nested
    old = {"rope_theta": ("rope_theta", "rotary_emb_base"), "partial_rotary_factor": ("partial_rotary_factor",)}
    old["partial_rotary_factor"] += ("rotary_pct",)
    lost = [name for name, places in old.items() if name in rope and not any(place in config for place in places)]
    kind = rope.get("rope_type", "default")
    return lost + (["scaling"] if kind != "default" and not config.get("rope_scaling") else [])


def _by_its_class(directory: Path, tokenizer: Any) -> str | None:
    """Where the class that transformers chooses differs from the directory's tokenizer.json."""
    if not (directory / "tokenizer.json").is_file():
        return None
    try:
        return data.first_difference(tokenizer, data.load_by_class(directory))
    except UserError as error:
        return str(error)

"""A tokenizer written so that transformers 4 and 5, and servers that read tokenizer.json themselves, read the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaspec_jax.files import ordinary, parsed, read_json, replacing, scratch_folder, write_json

_JSON, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_OWN = ("is_local", "local_files_only", "backend")  # of how transformers 5 loaded it


def write_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Its files, each whole; a tokenizer.json that was read is written byte for byte while nothing changed in it.

    The class becomes the one that takes tokenizer.json as it is: others build parts of it anew, in one version or the
    other.
    """
    with scratch_folder(directory / "tokenizer") as scratch:
        tokenizer.save_pretrained(scratch)
        file, settings = Path(scratch, _JSON), Path(scratch, _SETTINGS)
        origin = getattr(tokenizer, "origin", None)
        if file.is_file() and origin is not None and (content := origin.unchanged(tokenizer)):
            file.write_bytes(content)
        if settings.is_file():
            write_json(settings, _for_all_readers(read_json(settings), file))
        for file in sorted(file for file in Path(scratch).rglob("*") if file.is_file()):
            place = directory / file.relative_to(scratch)  # chat templates of other names lie in a folder of their own
            place.parent.mkdir(exist_ok=True)
            with replacing(place) as temporary:
                file.rename(temporary)


def _for_all_readers(settings: dict[str, Any], file: Path) -> dict[str, Any]:
    kept = {key: value for key, value in settings.items() if key not in _OWN}
    if isinstance(more := kept.get("extra_special_tokens"), list):  # an object in transformers 4, which dies of a list
        del kept["extra_special_tokens"]
        kept["additional_special_tokens"] = more
    if file.is_file():
        kept["tokenizer_class"] = "PreTrainedTokenizerFast"
        pre_tokenizer = parsed(ordinary(file).read_text(encoding="utf-8")).get("pre_tokenizer") or {}
        if "add_prefix_space" in pre_tokenizer:  # which transformers 4 sets to this, false if absent
            kept["add_prefix_space"] = pre_tokenizer["add_prefix_space"]
    return kept

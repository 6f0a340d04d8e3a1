"""What a target and a draft say of themselves: config.json, generation_config.json and tokenizers, weights unread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from adaspec_jax import data
from adaspec_jax.data.network import hub_reachable
from adaspec_jax.drafter_file import FILE as HEAD_FILE
from adaspec_jax.drafter_file import MASK, kind_in, kind_said, may_hide_a_head
from adaspec_jax.errors import UserError
from adaspec_jax.files import read_json
from adaspec_jax.generation_config import FILE as GENERATION
from adaspec_jax.generation_config import asked
from adaspec_jax.places import ADAPTER, file_of, find_local, only_an_adapter
from adaspec_jax.serving.readers import misread
from adaspec_jax.text_part import note_on, text_part

CONFIG = "config.json"
DRAFT_LENGTH = 5  # where the draft's generation_config.json names none


def pinned_generation(draft_length: int) -> dict[str, Any]:
    """Keys of a draft's generation_config.json with which transformers makes this many guesses in every round."""
    return {
        "num_assistant_tokens": draft_length,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0,
    }


@dataclass(frozen=True)
class Published:
    """What a directory or hub name says of its model, weights unread."""

    name: str  # that engines find it by from here: a hub name, the path as it was given, or an absolute one
    model_type: str
    vocab_size: int
    positions: int | None
    head_size: int | None  # features of an attention head
    generation: dict[str, Any]
    tokenizer: Any = field(repr=False)  # None: it comes without one
    ends: tuple[int, ...] | None = None  # of text, as its files name them
    notes: tuple[str, ...] = ()  # what its user should know
    in_one_pass: bool = False  # it makes all guesses of a round at mask tokens


class Pair(NamedTuple):
    target: Published
    draft: Published
    draft_length: int

    def called(self, target: str, draft: str) -> Pair:
        """The same two under other names."""
        return self._replace(target=replace(self.target, name=target), draft=replace(self.draft, name=draft))


def read_pair(target: str, draft: str, *, draft_length: int | None = None) -> Pair:
    """Both as they are published; UserError where a config.json, or the target's tokenizer, is missing or of no use."""
    whole, small = _read(target), _read(draft)
    small = replace(small, notes=small.notes + _unseen(draft))
    if whole.tokenizer is None:
        data.load_tokenizer(target)  # raises, saying why
    length = draft_length or small.generation.get("num_assistant_tokens") or DRAFT_LENGTH
    return Pair(whole, small, length)


def ends_in_words(model: Published) -> str:
    """Where text of this model ends, and what names it."""
    if model.ends is not None:
        return f"ends of text: {', '.join(map(str, model.ends)) or 'none'}"
    own = None if model.tokenizer is None else model.tokenizer.eos_token_id
    return "ends of text: none is named" if own is None else f"ends of text: {own}, by the tokenizer alone"


def vocabulary_in_words(pair: Pair) -> str:
    """How many tokens, and how many rows each model has for them."""
    tokens, sizes = data.rows_needed(pair.target.tokenizer), {pair.target.vocab_size, pair.draft.vocab_size}
    rows = f"{sizes.pop()} in both" if len(sizes) == 1 else f"{pair.target.vocab_size} and {pair.draft.vocab_size}"
    line = f"vocabulary: {tokens} tokens; rows: {rows}"
    if pair.draft.vocab_size <= tokens:
        return line
    return f"{line}; no engine masks the rest, which in a draft from adaspec_jax.export never win"


def _read(name: str) -> Published:
    if (said := _json(name, ADAPTER)) is not None:
        raise only_an_adapter(name, said)
    hf = config_of(name)
    text = text_part(hf, name) if note_on(hf) else hf if "vocab_size" in hf else hf.get("text_config") or {}
    if not isinstance(text.get("vocab_size"), int) or not isinstance(hf.get("model_type"), str):
        raise UserError(f'{name}: config.json has no "vocab_size" and "model_type" of a language model')
    try:
        tokenizer = data.load_tokenizer(find_local(name) or name)
    except data.NoTokenizer:
        tokenizer = None
    generation = _json(name, GENERATION)
    asks = asked(text, generation)
    own = () if tokenizer is None else data.notes_on(tokenizer)
    return Published(
        name=resolving(name),
        model_type=hf["model_type"],
        vocab_size=text["vocab_size"],
        positions=text.get("max_position_embeddings") or text.get("n_positions"),
        head_size=head_size(text),
        generation=generation or {},
        tokenizer=tokenizer,
        ends=asks.ends,
        in_one_pass=hf.get(MASK) is not None,
        notes=(*filter(None, [note_on(hf)]), *own, *asks.notes, *misread(name, text, tokenizer)),
    )


def resolving(name: str) -> str:
    """The name by which any program finds that model from here: what lies below ADASPEC_WEIGHTS, we find alone."""
    local = find_local(name)
    return str(name) if local is None or Path(name).is_dir() else str(local.absolute())


def head_size(config: Mapping[str, Any]) -> int | None:
    """Features of an attention head, as config.json gives them; None where it does not."""
    if isinstance(own := config.get("head_dim"), int):
        return own
    hidden, heads = (
        next((config[key] for key in keys if isinstance(config.get(key), int) and config[key] > 0), None)
        for keys in (("hidden_size", "n_embd"), ("num_attention_heads", "n_head"))
    )
    return hidden // heads if hidden and heads else None


def head_in(name: str) -> tuple[str, dict[str, Any]] | None:
    """(kind, config.json) of the head that a directory or hub name holds; None where it holds a plain model."""
    config, local = _json(name, CONFIG), find_local(name)
    kind = kind_in(local) if local else kind_said(_json(name, HEAD_FILE), config)
    return None if kind is None else (kind, config or {})


def _unseen(name: str) -> tuple[str, ...]:
    """What should be known of a draft that may be a head, where no tensors' names can be looked at."""
    said, local = _json(name, HEAD_FILE), find_local(name)
    seen = said is not None or local and any(local.glob("*.safetensors"))
    if seen or not may_hide_a_head(config_of(name)):
        return ()
    return (
        "its tensors were not looked at: it has one layer, and where it is a head of EAGLE's, only their names say so; "
        "then give a directory with its model.safetensors",
    )


def config_of(name: str) -> dict[str, Any]:
    """The config.json of a model; UserError where there is none."""
    if (config := _json(name, CONFIG)) is None:
        raise UserError(f"{name} has no config.json: it is not a Hugging Face model directory")
    return config


def _json(name: str, file: str) -> dict[str, Any] | None:
    """The object in that file of a directory or hub name; None where there is no such file."""
    path = file_of(name, file, reachable=hub_reachable, needed=file == CONFIG)
    return None if path is None else read_json(path)

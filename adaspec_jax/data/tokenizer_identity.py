"""Whether two tokenizers, or one and a model, fit: every part of a tokenizer.json that decides ids and text."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from adaspec_jax.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PARTS = {
    "normalizer": "normaliser",
    "pre_tokenizer": "pre-tokeniser",
    "model": "model's settings",
    "post_processor": "post-processor",
    "decoder": "decoder",
}
_PROBES = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 72",
    "def f(x):\n    return  x[0]\t# caf\u00e9 \u6f22\u5b57",
    " It's 1234.5%",
    "e\u0301 \ufb01  \u2581x\r\n\n HE'LL don't ",
)
_DECIDES_NOTHING = ("trim_offsets",)
_BYTES = {"type": "ByteLevel"}


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of all that decides ids and text: vocabulary, merges, special tokens, and the `PARTS`.

    It survives saving, loading and library versions.
    """
    content = [sorted(tokenizer.get_vocab().items()), _merges(tokenizer), _added(tokenizer), parts(tokenizer)]
    return hashlib.sha256(json.dumps(content, separators=(",", ":"), sort_keys=True).encode()).hexdigest()


def first_difference(a: PreTrainedTokenizerBase, b: PreTrainedTokenizerBase, *, beyond: bool = False) -> str | None:
    """The first place where the two differ, in words; None where equal text becomes equal ids and comes back equal.

    `beyond`: `b` may have added tokens whose ids lie above all of `a`'s, which no text that `a` reads becomes.
    """
    tokens_a, tokens_b = _by_id(a), _by_id(b)
    if beyond:
        last, added = max(tokens_a), b.added_tokens_decoder
        tokens_b = {i: token for i, token in tokens_b.items() if i <= last or i not in added}
    for i in sorted(tokens_a.keys() | tokens_b.keys()):
        if tokens_a.get(i) != tokens_b.get(i):
            return f"token {i} is {_quoted(tokens_a, i)} in one and {_quoted(tokens_b, i)} in the other"
    for rank, (one, other) in enumerate(zip(_merges(a), _merges(b), strict=False)):
        if one != other:
            return f"merge {rank} is {one} in one and {other} in the other"
    if len(_merges(a)) != len(_merges(b)):
        return f"one has {len(_merges(a))} merges and the other {len(_merges(b))}"
    parts_a, parts_b = parts(a), parts(b)
    for name, words in PARTS.items():
        if parts_a.get(name) != parts_b.get(name):
            here, there = (_short(found.get(name)) for found in (parts_a, parts_b))
            return f"the {words} is {here} in one and {there} in the other{_example(a, b)}"
    return _example(a, b).removeprefix(", so that ") or None


def check_same_tokenizer(
    a: PreTrainedTokenizerBase,
    b: PreTrainedTokenizerBase,
    names: tuple[str, str] = ("the target", "the draft"),
    *,
    otherwise: str = "",
) -> None:
    """UserError, naming the first difference, unless equal text becomes equal ids in both.

    `b`, a draft's, may have added tokens beyond all of `a`'s: only `a` reads text, and they are never guessed.
    `otherwise`: what else its reader may do, after the line's last word.
    """
    if where := first_difference(a, b, beyond=True):
        raise UserError(
            f"{names[0]} and {names[1]} have different tokenizers: {where}; a draft must share its target's tokenizer "
            "(where you know that only the files differ, put the target's tokenizer.json into the draft's directory)"
            f"{otherwise}"
        )


def rows_needed(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows of an embedding that tokens own: the largest id + 1."""
    return max(tokenizer.get_vocab().values()) + 1


def check_fits(tokenizer: PreTrainedTokenizerBase, vocab_size: int, name: str = "the model") -> None:
    """UserError where the tokenizer has an id the model has no embedding row for."""
    largest = max(tokenizer.get_vocab().values())
    if largest >= vocab_size:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise UserError(
            f"the tokenizer has ids up to {largest} ({token!r}), but {name} has a vocabulary of {vocab_size}; "
            "use the tokenizer that belongs to the model"
        )


def parts(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Of a tokenizer.json, what makes ids of text and text of ids, in a form that equal rules share; {} without one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {}
    file = json.loads(backend.to_str())
    after = [_template(step) for step in _steps(file["post_processor"]) if step != _BYTES]
    return {
        "normalizer": _steps(file["normalizer"]),
        "pre_tokenizer": _steps(file["pre_tokenizer"], settings=True),
        "model": {key: value for key, value in file["model"].items() if value and key not in ("vocab", "merges")},
        "post_processor": [step for step in after if step],
        "decoder": _steps(file["decoder"]),
    }


def _steps(part: Any, *, settings: bool = False) -> list[Any]:
    """Of nested sequences, in order; the byte level's `settings` matter to a pre-tokeniser alone."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        inner = next(value for value in part.values() if isinstance(value, list))
        return [step for one in inner for step in _steps(one, settings=settings)]
    if part["type"] == "ByteLevel" and not settings:
        return [_BYTES]
    return [{key: value for key, value in part.items() if key not in _DECIDES_NOTHING}]


def _template(step: dict[str, Any]) -> Any:
    """What a template adds to one text, by id; None where that is nothing. Other post-processors as they are."""
    if step["type"] != "TemplateProcessing":
        return step
    ids = {name: token["ids"] for name, token in step["special_tokens"].items()}
    pieces = [next(iter(piece.items())) for piece in step["single"]]
    order = [ids[piece["id"]] if kind == "SpecialToken" else "text" for kind, piece in pieces]
    return None if order == ["text"] else {"type": step["type"], "single": order}


def _example(a: PreTrainedTokenizerBase, b: PreTrainedTokenizerBase) -> str:
    for probe in _PROBES:
        one, other = (t(probe, add_special_tokens=False)["input_ids"] for t in (a, b))
        if one != other:
            return f", so that {probe!r} becomes {_short(one, 60)} in one and {_short(other, 60)} in the other"
    return ""


def _short(part: Any, limit: int = 160) -> str:
    text = json.dumps(part, ensure_ascii=False) if part else "absent"
    return text if len(text) <= limit else f"{text[:limit]}..."


def _by_id(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    return {i: token for token, i in tokenizer.get_vocab().items()}


def _quoted(tokens: dict[int, str], i: int) -> str:
    return repr(tokens[i]) if i in tokens else "absent"


def _added(tokenizer: PreTrainedTokenizerBase) -> list[list[Any]]:
    """Special tokens by id, and where spaces beside them belong to them."""
    return [
        [i, token.content, token.lstrip, token.rstrip, token.single_word]
        for i, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special
    ]


def _merges(tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    """Merge pairs in rank order; empty for a tokenizer that is not BPE."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return []
    merges = json.loads(backend.to_str())["model"].get("merges") or []
    return [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in merges]

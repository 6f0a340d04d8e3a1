"""Tokenizers: train a small one, load any, and say clearly where two of them, or one and a model, do not fit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaspec_jax.data.network import hub_reachable
from adaspec_jax.errors import UserError, first_line
from adaspec_jax.files import read_json
from adaspec_jax.places import ADAPTER, find_below, only_an_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
_BYTES = 256
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_PROBES = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 72",
    "def f(x):\n    return  x[0]\t# caf\u00e9 \u6f22\u5b57",
    " It's 1234.5%",
)


def train_bpe(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE with single digits and `<|endoftext|>` (id 0) as begin, end and padding; lossless on any text.

    The same texts give the same tokenizer. It has `vocab_size` entries, or fewer where no pair occurs twice any more;
    UserError below 257 (every byte, and the end of text).
    """
    if vocab_size < _BYTES + 1:
        raise UserError(f"a byte-level tokenizer needs a vocabulary of at least {_BYTES + 1}, not {vocab_size}")
    transformers = _transformers()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    # Single digits: numbers of any length are spelt the same way, which is what a small model can learn to add.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        model_max_length=1_000_000,  # the model's own limit is the config's business; no warning from here
    )


def load_tokenizer(path_or_name: str | os.PathLike) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory (one with only `tokenizer.json` will do) or of a hub name; UserError where none is.

    A hub name `a/b` is looked up as `a/b` or `b` below ADASPEC_WEIGHTS and ADASPEC_DATA/tokenizers first, then in the
    hub's local cache, so nothing is fetched twice.
    """
    transformers = _transformers()
    name = os.fspath(path_or_name)
    directory = _below_given_folders(name) or Path(name).expanduser()
    if not directory.is_dir():
        if directory.exists() or name.count("/") != 1 or name.startswith((".", "~", "/")):
            raise UserError(f"there is no tokenizer at {name}: give a directory with tokenizer.json, or a hub name a/b")
        return _from_hub(transformers, name)
    if not any((directory / file).exists() for file in _FILES):
        if (directory / ADAPTER).is_file():
            raise only_an_adapter(name, read_json(directory / ADAPTER))
        raise UserError(f"{name} holds no tokenizer: there is no {' or '.join(_FILES)} in it")
    try:
        return transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:
        # Without tokenizer_config.json or config.json nothing names a class, yet the file alone says everything.
        with contextlib.suppress(Exception):
            return transformers.PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
        raise UserError(f"no tokenizer can be read from {name} ({first_line(error)})") from error


def _below_given_folders(name: str) -> Path | None:
    if Path(name).expanduser().exists():
        return None
    beside_weights = find_below("ADASPEC_WEIGHTS", name, holding=_FILES)
    return beside_weights or find_below("ADASPEC_DATA", name, folder="tokenizers", holding=_FILES)


def _from_hub(transformers, name: str) -> PreTrainedTokenizerBase:
    load = transformers.AutoTokenizer.from_pretrained
    with contextlib.suppress(Exception):
        return load(name, trust_remote_code=False, local_files_only=True)
    try:
        if not hub_reachable():
            raise ConnectionError("the hub cannot be reached")
        return load(name, trust_remote_code=False)
    except Exception as error:
        raise UserError(
            f"the tokenizer {name} is neither a directory here, nor in the hub's cache, nor can it be fetched "
            f"({first_line(error)}); give a directory with tokenizer.json"
        ) from error


def end_of_text_id(tokenizer: PreTrainedTokenizerBase, model_eos_id: int | Sequence[int] | None = None) -> int:
    """The tokenizer's end-of-text id, else the model configuration's (the first of several), else UserError."""
    if tokenizer.eos_token_id is not None:
        return int(tokenizer.eos_token_id)
    if isinstance(model_eos_id, Sequence):
        model_eos_id = model_eos_id[0] if model_eos_id else None
    if model_eos_id is None:
        raise UserError("neither the tokenizer nor the model's configuration names an end-of-text token (eos_token)")
    return int(model_eos_id)


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that the tokenizer puts before every text by itself: Llama's begin of text, nothing for most others."""
    plain, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
    return list(whole[:at])


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of vocabulary, merges and special tokens: survives saving, loading and library versions."""
    special = sorted((i, token.content) for i, token in tokenizer.added_tokens_decoder.items() if token.special)
    content = [sorted(tokenizer.get_vocab().items()), _merges(tokenizer), special]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def first_difference(a: PreTrainedTokenizerBase, b: PreTrainedTokenizerBase) -> str | None:
    """The first place where the two differ, in words; None where equal text becomes equal ids in both."""
    tokens_a, tokens_b = _by_id(a), _by_id(b)
    for i in sorted(tokens_a.keys() | tokens_b.keys()):
        if tokens_a.get(i) != tokens_b.get(i):
            return f"token {i} is {_quoted(tokens_a, i)} in one and {_quoted(tokens_b, i)} in the other"
    for rank, (one, other) in enumerate(zip(_merges(a), _merges(b), strict=False)):
        if one != other:
            return f"merge {rank} is {one} in one and {other} in the other"
    if len(_merges(a)) != len(_merges(b)):
        return f"one has {len(_merges(a))} merges and the other {len(_merges(b))}"
    for probe in _PROBES:
        one, other = (t(probe, add_special_tokens=False)["input_ids"] for t in (a, b))
        if one != other:
            return f"{probe!r} becomes {one} in one and {other} in the other"
    return None


def check_same_tokenizer(
    a: PreTrainedTokenizerBase, b: PreTrainedTokenizerBase, names: tuple[str, str] = ("the target", "the draft")
) -> None:
    """UserError, naming the first difference, unless equal text becomes equal ids in both."""
    if where := first_difference(a, b):
        raise UserError(
            f"{names[0]} and {names[1]} have different tokenizers: {where}; a draft must share its target's tokenizer"
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


def _by_id(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    return {i: token for token, i in tokenizer.get_vocab().items()}


def _quoted(tokens: dict[int, str], i: int) -> str:
    return repr(tokens[i]) if i in tokens else "absent"


def _merges(tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    """Merge pairs in rank order; empty for a tokenizer that is not BPE."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return []
    merges = json.loads(backend.to_str())["model"].get("merges") or []
    return [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in merges]


def _transformers():
    """The library, imported without its notice that PyTorch is missing (it is not needed here)."""
    if "transformers" not in sys.modules:
        with _environment("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"):
            import transformers
    import transformers

    return transformers


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})

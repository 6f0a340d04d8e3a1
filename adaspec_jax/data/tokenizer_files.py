"""Tokenizers as they lie: where there is a tokenizer.json, its parts decide, whatever class a config names.

transformers 5 builds normaliser, pre-tokeniser and decoder of some classes anew (GPT2, GPTNeoX, Llama, Qwen2 and all of
model_type "qwen2"); transformers 4 did not, and neither do servers that read tokenizer.json themselves.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adaspec_jax.data.network import hub_reachable
from adaspec_jax.errors import UserError, first_line, is_a_failure
from adaspec_jax.files import ordinary, read_json
from adaspec_jax.places import ADAPTER, find_below, near_place, only_an_adapter

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerBase

_JSON, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_FILES = (_JSON, "tokenizer.model", "vocab.json")
_HUB_FILES = ["tokenizer*", "*token*.json", "vocab.json", "merges.txt", "*.model", "*.jinja", "config.json"]
_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
# Classes whose texts begin and end as tokenizer_config.json says (transformers 4.57); whether they begin where it does
# not say. Of other classes the tokenizer.json alone decides.
_SWITCHED = dict.fromkeys(("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"), True)
_SWITCHED |= {"GPTNeoXTokenizer": False}


class NoTokenizer(UserError):
    """There is none at all; one that cannot be read is a plain UserError."""


class Origin(NamedTuple):
    """What a tokenizer was read from, as its attribute `origin`: written again byte for byte while nothing changes."""

    content: bytes  # of tokenizer.json; empty where what was loaded says more
    loaded_sha256: str  # of what the `tokenizers` library writes of it
    notes: tuple[str, ...]  # what its user should know

    def unchanged(self, tokenizer: PreTrainedTokenizerBase) -> bytes | None:
        """The file's content, where the tokenizer is still as it was loaded, and that is what the file says."""
        return self.content if backend_sha256(tokenizer.backend_tokenizer) == self.loaded_sha256 else None


def load_tokenizer(path_or_name: str | os.PathLike) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory (one with only `tokenizer.json` will do) or of a hub name.

    `NoTokenizer` where none is, another UserError where it cannot be read.

    A hub name `a/b` is looked up as `a/b` or `b` below ADASPEC_WEIGHTS and ADASPEC_DATA/tokenizers first, then in the
    hub's local cache, so nothing is fetched twice.
    """
    name = os.fspath(path_or_name)
    directory = _below_given_folders(name) or Path(name).expanduser()
    if not directory.is_dir():
        if directory.exists() or name.count("/") != 1 or name.startswith((".", "~", "/")):
            raise NoTokenizer(
                f"there is no tokenizer at {name}: give a directory with tokenizer.json, or a hub name a/b"
                f"{near_place(name)}"
            )
        directory = _from_hub(name)
    if not any((directory / file).exists() for file in _FILES):
        if (directory / ADAPTER).is_file():
            raise only_an_adapter(name, read_json(directory / ADAPTER))
        raise NoTokenizer(f"{name} holds no tokenizer: there is no {' or '.join(_FILES)} in it")
    if (directory / _JSON).is_file():
        return _from_json(directory)
    return load_by_class(directory)


def load_by_class(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that transformers makes of a directory, by the class that its configs name; else UserError."""
    with _named(str(directory)), quiet_transformers() as transformers:
        return transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=False)


def notes_on(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """What the user of a loaded tokenizer should know, a line each."""
    origin = getattr(tokenizer, "origin", None)
    return origin.notes if origin else ()


def _from_json(directory: Path) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer

    file = directory / _JSON
    try:
        content = ordinary(file).read_bytes()
        backend = Tokenizer.from_buffer(content)
    except BaseException as error:  # the library's own errors are plain Exceptions, or panics
        if not is_a_failure(error):
            raise
        raise UserError(
            f"{file} is nothing that the tokenizers library can read ({first_line(error)}); copy or download it again"
        ) from None
    settings = read_json(directory / _SETTINGS) if (directory / _SETTINGS).is_file() else {}
    with _named(str(directory)), quiet_transformers() as transformers:
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    if isinstance(longest := tokenizer.model_max_length, bool) or not isinstance(longest, int | float):
        raise UserError(f'{directory / _SETTINGS}: "model_max_length" is {str(longest)[:40]!r}; a number is needed')
    ours = tokenizer.backend_tokenizer
    for part in _PARTS:
        setattr(ours, part, getattr(backend, part))
    if tokenizer.eos_token is None:
        _name_special_tokens(tokenizer, directory)
    notes = _follow_switches(tokenizer, settings)
    same = backend_sha256(ours) == backend_sha256(backend)
    tokenizer.origin = Origin(content if same else b"", backend_sha256(ours), notes)
    return tokenizer


def _name_special_tokens(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """As the class does that the configs name, where they name no tokens themselves: GPT-2's do not."""
    try:
        named = load_by_class(directory)
    except UserError:
        return
    known = {token.content for token in tokenizer.added_tokens_decoder.values()}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        if getattr(tokenizer, name) is None and str(getattr(named, name)) in known:
            setattr(tokenizer, name, str(getattr(named, name)))


def backend_sha256(backend: Backend) -> str:
    """Of all that a tokenizer.json says, but how to cut and pad, which every call says for itself."""
    backend.no_truncation()
    backend.no_padding()
    return hashlib.sha256(backend.to_str().encode()).hexdigest()


def _follow_switches(tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any]) -> tuple[str, ...]:
    """Begin and end of text as tokenizer_config.json's add_bos_token and add_eos_token say, where its class obeys."""
    from tokenizers import processors

    kind = str(settings.get("tokenizer_class")).removesuffix("Fast")
    begins = settings.get("add_bos_token", _SWITCHED.get(kind, False))
    begin = str(tokenizer.bos_token) if begins and tokenizer.bos_token else None
    end = str(tokenizer.eos_token) if settings.get("add_eos_token") and tokenizer.eos_token else None
    backend = tokenizer.backend_tokenizer
    ids = {token: backend.token_to_id(token) for token in (begin, end) if token}
    plain = backend.encode("a", add_special_tokens=False).ids
    if backend.encode("a").ids == [*([ids[begin]] if begin else []), *plain, *([ids[end]] if end else [])]:
        return ()
    if kind in _SWITCHED:
        single = [token for token in (begin, "$A", end) if token]
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=list(ids.items()))
        return ()
    return tuple(
        f"{_SETTINGS} has {key}, which the class {kind} does not obey: texts get what tokenizer.json adds alone"
        for key, token in (("add_bos_token", begin), ("add_eos_token", end))
        if token
    )


def _below_given_folders(name: str) -> Path | None:
    if Path(name).expanduser().exists():
        return None
    beside_weights = find_below("ADASPEC_WEIGHTS", name, holding=_FILES)
    return beside_weights or find_below("ADASPEC_DATA", name, folder="tokenizers", holding=_FILES)


def _from_hub(name: str) -> Path:
    """The snapshot in the hub's cache, fetched where it is not there."""
    import huggingface_hub

    def snapshot(**where: Any) -> Path:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES, **where))

    with contextlib.suppress(Exception):
        directory = snapshot(local_files_only=True)
        if any((directory / file).exists() for file in _FILES):
            return directory
    try:
        if not hub_reachable():
            raise ConnectionError("the hub cannot be reached")
        return snapshot()
    except Exception as error:
        raise NoTokenizer(
            f"the tokenizer {name} is neither a directory here, nor in the hub's cache, nor can it be fetched "
            f"({first_line(error)}); give a directory with tokenizer.json"
        ) from error


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not is_a_failure(error):
            raise
        raise UserError(f"no tokenizer can be read from {name} ({first_line(error)})") from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[Any]:
    """The library, without its notice that PyTorch is missing, nor advice on classes that are not used here."""
    variable = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(variable)
    if "transformers" not in sys.modules:
        os.environ[variable] = "1"
    try:
        import transformers

        verbosity = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()
        try:
            yield transformers
        finally:
            transformers.logging.set_verbosity(verbosity)
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before

"""Where a model and its files lie: a directory, a name below a given folder, or the hub. Reads none of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from adaspec_jax.errors import UserError, first_line, nearest_of

ADAPTER = "adapter_config.json"  # lies where PEFT saved what it adds to a model
OLD_HUB_NAMES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2")  # of before names had owners
_IN_A_SENTENCE = re.compile(r"(?<![\w:/\\.~-])(?:~|[A-Za-z]:)?[/\\][^\s'\",;()]+")
_NO_PLACES = ("random", "cut")  # what a config may say where a model's place is expected
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # a path may begin with a dot, a name may not


def find_local(path_or_name: str | Path) -> Path | None:
    """The local directory, or that name below ADASPEC_WEIGHTS; None for a name to ask the hub for; else UserError."""
    path_or_name = str(path_or_name)
    if Path(path_or_name).is_dir():
        _check_no_run(Path(path_or_name))
        return Path(path_or_name)
    if below := find_below("ADASPEC_WEIGHTS", path_or_name, holding=("config.json", ADAPTER)):
        return below
    if Path(path_or_name).exists():
        raise UserError(f"{path_or_name} is a file; give the directory that holds config.json and model.safetensors")
    if not HUB_NAME.fullmatch(path_or_name):
        raise UserError(f"{path_or_name}: no such directory{near_place(path_or_name)}")
    return None


def _check_no_run(directory: Path) -> None:
    """UserError for a run's directory, whose config.json is its own and whose models lie below."""
    models = [name for name in ("target", "reference", "draft") if (directory / name / "config.json").is_file()]
    if models and not any(directory.glob("*.safetensors*")) and not (directory / "tokenizer.json").is_file():
        below = ", ".join(str(directory / name) for name in models)
        raise UserError(f"{directory} is a run's directory, and no model; give one of its models: {below}")


def file_of(path_or_name: str, file: str, *, reachable: Callable[[], bool], needed: bool = False) -> Path | None:
    """One file of a directory or hub name, nothing else being fetched; None where there is no such file.

    `reachable` says whether to ask the hub, else what was fetched before counts; UserError where the hub does not give
    the file that is `needed`.
    """
    if (directory := find_local(path_or_name)) is not None:
        return directory / file if (directory / file).is_file() else None
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    name, online = str(path_or_name), reachable()
    try:
        return Path(huggingface_hub.hf_hub_download(name, file, local_files_only=not online))
    except EntryNotFoundError as error:
        if not needed:
            return None
        unreachable = ConnectionError("the hub cannot be reached")
        raise not_given_by_the_hub(name, error if online else unreachable) from error
    except Exception as error:
        raise not_given_by_the_hub(name, error) from error


def on_the_hub(name: str) -> str | None:
    """The name, where it is one that the hub has for everybody, and no directory of this machine's alone."""
    known = HUB_NAME.fullmatch(name) and ("/" in name or name in OLD_HUB_NAMES)
    return name if known and not Path(name).exists() else None


def without_places(value: Any) -> Any:
    """A JSON value in which every path of this machine has become its last part, for readers elsewhere."""
    if isinstance(value, Mapping):
        return {without_places(key): without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(item) for item in value]
    if not isinstance(value, str) or value.startswith(("hf:", "https://")):
        return value
    if value.startswith("--"):
        option, equals, given = value.partition("=")
        return f"{option}{equals}{without_places(given)}"
    path = value.replace("\\", "/").rstrip("/")
    begins = path.startswith(("/", "~", "./", "../")) or re.match("[A-Za-z]:/", path)
    if not set(" '\"(),") & set(value) and (begins or path.count("/") > 1 or ("/" in path and Path(value).exists())):
        return path.rpartition("/")[2]
    return _IN_A_SENTENCE.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], value)


def find_below(variable: str, name: str, *, holding: Iterable[str], folder: str = "") -> Path | None:
    """`a/b` or `b`, for a hub name a/b, below the folder (or a folder in it) that an environment variable names.

    The first of the two that holds one of these files; None where neither does.
    """
    root = os.environ.get(variable)
    if not root or not HUB_NAME.fullmatch(name):
        return None
    candidates = (Path(root, folder, candidate) for candidate in (name, name.rpartition("/")[2]))
    return next((path for path in candidates if any((path / file).is_file() for file in holding)), None)


def only_an_adapter(place: object, said: dict) -> UserError:
    """What to say of a place with an `ADAPTER` that says this."""
    base = said.get("base_model_name_or_path") or "an unnamed model"
    return UserError(
        f"{place} holds an adapter of {base}, as its {ADAPTER} says, and adapters are not read; merge it into that "
        "model (PEFT: merge_and_unload, then save_pretrained elsewhere), or remove the file where that is done"
    )


def not_given_by_the_hub(name: str, error: Exception) -> UserError:
    """What to say of the many errors that the hub's client raises: not found, gated, offline, broken proxy."""
    return UserError(
        f'"{name}" is not a local directory, and the hub did not give it ({first_line(error)}); '
        f"without network, pass the path of a downloaded directory{near_place(name, *_NO_PLACES)}"
    )


def near_place(path: str | os.PathLike, *words: str) -> str:
    """`; did you mean "x"?` when something of nearly this name lies beside it, or it is nearly one of these words."""
    path = Path(path).expanduser()
    if path.exists():
        return ""
    try:
        beside = [*(other.name for other in path.parent.iterdir()), *(words if path.parent == Path() else ())]
    except OSError:
        return ""
    near = nearest_of(path.name, beside, cutoff=0.75)
    return f'; did you mean "{path.with_name(near)}"?' if near else ""

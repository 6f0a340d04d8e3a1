"""All methods by name, and those of a user's own file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.methods.independent import PLAIN, SPECINFER, VANILLA
from adaspec_jax.methods.method import Method
from adaspec_jax.methods.text import LLMA, PROMPT_LOOKUP

METHODS: dict[str, Method] = {method.name: method for method in (PLAIN, VANILLA, SPECINFER, PROMPT_LOOKUP, LLMA)}


def find(name: str) -> Method:
    """The method of that name, or the one at `FILE.py:NAME` or `package.module:NAME`; else UserError in one line."""
    where, colon, attribute = name.rpartition(":")
    if colon:
        return _from_elsewhere(where, attribute)
    if name not in METHODS:
        raise UserError(f'there is no method "{name}"{did_you_mean(name, METHODS)}')
    return METHODS[name]


def find_all(names: str) -> list[Method]:
    """The methods of a list with commas, each once and in its order; "all" is the whole table."""
    wanted = METHODS if names == "all" else list(filter(None, names.split(",")))
    found = {method.name: method for method in map(find, wanted)}
    if not found:
        raise UserError(f"no method is named; known: all, {', '.join(METHODS)}")
    return list(found.values())


def _from_elsewhere(where: str, attribute: str) -> Method:
    try:
        module = _file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:  # whatever a user's own module raises
        raise UserError(f"{where} does not load: {type(error).__name__}: {error}") from error
    named = [name for name, value in vars(module).items() if isinstance(value, Method)]
    if attribute not in named:
        hint = did_you_mean(attribute, named) if named else "; it has none"
        raise UserError(f'{where} has no methods.Method called "{attribute}"{hint}')
    return getattr(module, attribute)


def _file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"methods_of_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module

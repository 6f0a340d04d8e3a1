"""All methods by name, and those of a user's own file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from adaspec_jax.errors import UserError, did_you_mean
from adaspec_jax.methods.cascades import CASCADES
from adaspec_jax.methods.foreign import FOREIGN
from adaspec_jax.methods.growth import GROWTH
from adaspec_jax.methods.heads import HEADS
from adaspec_jax.methods.independent import INDEPENDENT
from adaspec_jax.methods.lengths import LENGTHS
from adaspec_jax.methods.lossy import LOSSY
from adaspec_jax.methods.method import Method
from adaspec_jax.methods.own_layers import OWN_LAYERS
from adaspec_jax.methods.taught import TAUGHT
from adaspec_jax.methods.text import TEXT
from adaspec_jax.methods.verification import VERIFICATION

_KINDS = (INDEPENDENT, VERIFICATION, GROWTH, LENGTHS, FOREIGN, TEXT, TAUGHT, OWN_LAYERS, HEADS, LOSSY, CASCADES)
METHODS: dict[str, Method] = {method.name: method for kind in _KINDS for method in kind}


def find(name: str) -> Method:
    """The method of that name, or the one at `FILE.py:NAME` or `package.module:NAME`; else UserError in one line."""
    where, colon, attribute = name.rpartition(":")
    if colon:
        return _from_elsewhere(where, attribute)
    if name not in METHODS:
        raise UserError(f'there is no method "{name}"{did_you_mean(name, METHODS)}')
    return METHODS[name]


def swept(methods: Sequence[Method], sweep: str) -> list[Method]:
    """The methods, and in place of each that has the knob one for every value of a sweep "KNOB=a,b,c".

    "METHOD.KNOB=a,b,c" is for that method alone. UserError where none of them has it, or a value is none of it.
    """
    where, equals, values = sweep.partition("=")
    name, _, knob = where.rpartition(".")
    if not (equals and knob and values):
        raise UserError(f"--sweep {sweep}: give KNOB=VALUES or METHOD.KNOB=VALUES, as in window=3,5,7")
    having = [method.name for method in methods if method.name == name or (not name and knob in method.knobs)]
    if not having:
        known = sorted({f"{method.name}.{each}" for method in methods for each in method.knobs})
        raise UserError(f"--sweep {sweep}: none of the methods has it{did_you_mean(where, known) if known else ''}")
    found = []
    for method in methods:
        several = values.split(",") if method.name in having else []
        found += [method.set(**{knob: value}) for value in several] or [method]
    return found


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
    assert spec is not None and spec.loader is not None, "a path that ends in .py is one of Python's"
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module

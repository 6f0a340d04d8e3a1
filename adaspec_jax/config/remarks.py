"""What stands beside a config's fields in their source, for `--help`: what a key means is written once."""

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
from functools import cache
from typing import Any

from adaspec_jax.config.architectures import Architecture
from adaspec_jax.config.bounds import choices_of

_WIDTH, _BENEATH = 100, " " * 6


def remarks_on(kind: type) -> dict[str, str]:
    """By field of a dataclass: what it may be, and the comments above and behind it; a field without any is left out.

    Where the source is not at hand choices alone are said.
    """
    said: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        said |= _written(owner)
    found = {}
    for name, item in getattr(kind, "__dataclass_fields__", {}).items():
        choices = choices_of(item)
        parts = [f"one of {', '.join(choices)}"] if choices else []
        if remark := "; ".join([*parts, *([said[name]] if name in said else [])]):
            found[name] = remark
    return found


def keys_in_words(config: Any, prefix: str = "", said: set[tuple[type, str]] | None = None) -> list[str]:
    """A line for every key of a config, with its value; beneath it what it means, where that comes first."""
    said, lines, groups = set() if said is None else said, [], []
    remarks = remarks_on(type(config))
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            heading = textwrap.wrap(f"{name}: {_headline(type(value))}", _WIDTH)
            groups += ["", *heading, *keys_in_words(value, f"{name}.", said)]
            continue
        lines.append(f"  --config.{name}={value}")
        owner = next(kind for kind in type(config).__mro__ if item.name in vars(kind).get("__annotations__", {}))
        if item.name in remarks and (owner, item.name) not in said:
            lines += textwrap.wrap(remarks[item.name], _WIDTH, initial_indent=_BENEATH, subsequent_indent=_BENEATH)
        said.add((owner, item.name))
    return lines + groups


def _headline(kind: type) -> str:
    """What a group of keys is: the first paragraph of its docstring; none under `python -OO`, which takes it away."""
    if issubclass(kind, Architecture):
        return f"keys of the config.json of a {kind.__name__}"
    doc = kind.__doc__ or ""
    return "" if doc.startswith(f"{kind.__name__}(") else " ".join(doc.partition("\n\n")[0].split())


@cache
def _written(kind: type) -> dict[str, str]:
    """The comments of the fields that this class itself defines."""
    try:
        source = inspect.cleandoc("\n" + inspect.getsource(kind))
    except (OSError, TypeError):
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    [definition] = ast.parse(source).body
    fields = [each for each in getattr(definition, "body", []) if isinstance(each, ast.AnnAssign)]
    behind = {line for each in fields for line in range(each.lineno, (each.end_lineno or each.lineno) + 1)}
    found = {}
    for each in fields:
        first = each.lineno
        while first - 1 in comments and first - 1 not in behind:
            first -= 1
        lines = range(first, (each.end_lineno or each.lineno) + 1)
        if text := " ".join(comments[line] for line in lines if line in comments):
            found[ast.unparse(each.target)] = text
    return found

"""Config files by their path, or by the name of one that comes with the package."""

from __future__ import annotations

import ast
from pathlib import Path

from adaspec_jax.errors import UserError, did_you_mean

_PACKAGE = Path(__file__).resolve().parent
_OPTIONS = ("--config", "-config")
LIST = "list"  # in a config's place: which there are


def folder() -> Path:
    """Where the package's own configs lie: in it where it was installed, beside it in a checkout."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    return sorted(path.stem for path in folder().glob("*.py"))


def find_config(given: str) -> str:
    """`FILE.py[:variant]` of a path, of `configs/NAME.py` or of NAME; a file that exists comes first."""
    text, colon, variant = given.partition(":")
    path = Path(text)
    if path.is_file():
        return given
    if path.parent in (Path(), Path("configs")):
        shipped = folder() / (path.name if path.suffix == ".py" else f"{path.name}.py")
        if shipped.is_file():
            return f"{shipped}{colon}{variant}"
    beside = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
    if path.parent == Path() and path.suffix != ".py":
        beside = []  # a name, not a file's
    hint = did_you_mean(str(path), beside) if beside else did_you_mean(path.stem, names())
    raise UserError(f"there is no config file {path}{hint}")


def with_files(argv: list[str]) -> list[str]:
    """The arguments with the file of every config in its name's place."""
    found, expected = [], False
    for argument in argv:
        option, equals, value = argument.partition("=")
        if expected:
            argument = find_config(argument)
        elif equals and option in _OPTIONS:
            argument = f"{option}={find_config(value)}"
        expected = not expected and argument in _OPTIONS
        found.append(argument)
    return found


def listed() -> str:
    """The package's configs, each with the first line of what it says of itself."""
    width = max(map(len, names()), default=0)
    first_lines = [(name, _docstring(folder() / f"{name}.py").partition("\n")[0]) for name in names()]
    rows = [f"  {name:<{width}}  {line}" for name, line in first_lines]
    return "\n".join([*rows, "", "--config=NAME[:variant], or a path; --config=NAME --help lists its keys."])


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""

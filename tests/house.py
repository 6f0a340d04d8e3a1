"""The house, read from the sources alone: rooms, import arrows, circles, long functions, who takes the whole config.

python -m tests.house            prints the tree of folders and the arrows, then what breaks the rules, if anything
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
FILES = sorted(path for folder in ("adaspec_jax", "configs") for path in (CHECKOUT / folder).rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 300, 50

DOORS = set("train evaluate generate export plan convert doctor parity compare ablate benchmark datastore".split())
BETWEEN_DOORS = {
    ("compare", "parity"),
    ("benchmark", "benchmark_replay"),
    ("generate", "generate_screen"),
    ("generate", "generate_learning"),
}
OF_ALL_DOORS = {"command_line", "options", "sampling_options"}
COMMANDS = sorted(DOORS | {"search_layers", "rag", "schedule", "report", "diagnose"})
DOORS |= {*COMMANDS, "benchmark_replay", "generate_screen", "generate_learning", "__main__", *OF_ALL_DOORS}
# From the top floor down: a file may import from its own room and from floors below.
FLOORS = (
    {"configs"},
    DOORS,
    {"planning"},
    {"pipeline"},
    {"diagnosis"},
    {"measuring"},
    {"serving"},
    {"methods", "training"},
    {"models", "data", "reporting"},
    {"config", "devices", "retrieval"},
    {"decoding"},
    {"generation_config"},
    {"drafter_file", "text_part"},
    {"files", "places", "knobs", "program", "config_files", "__init__"},
    {"errors"},
    {"voice"},
)
# Arrows that would go down and are closed all the same.
CLOSED = {
    **dict.fromkeys(("serving", "methods", "training", "models", "data", "measuring", "diagnosis"), {"config"}),
    "training": {"config", "decoding", "reporting", "retrieval"},
    "models": {"config", "decoding", "retrieval"},
    "data": {"config", "devices", "decoding", "retrieval"},
    "reporting": {"devices", "decoding", "retrieval"},
    "serving": {"config", "models", "training", "methods", "decoding", "devices", "retrieval"},
    "config": {"decoding", "files", "places"},
    "retrieval": {"decoding"},
    "decoding": {"files", "places", "knobs", "drafter_file", "text_part"},
    "configs": DOORS
    | {"planning", "pipeline", "diagnosis", "measuring", "serving", "methods", "training", "models", "data"},
    # Nothing here needs jax, which would take longer to import than the check takes.
    "doctor": {"planning", "pipeline", "measuring", "methods", "training", "models", "devices", "decoding"},
    "compare": {"planning", "pipeline", "measuring", "methods", "training", "models", "devices", "decoding"},
    "report": {"planning", "pipeline", "measuring", "methods", "training", "models", "devices", "decoding"},
}
LAZY = set(
    "tensorflow_datasets grain ml_collections transformers torch datasets optuna bm25s sklearn matplotlib".split()
)
ONLY_IN = {"flax": ("adaspec_jax/models/",), "torch": ("adaspec_jax/parity/", "adaspec_jax/models/files/pickles.py")}
EVERYBODYS = {"errors", "__version__", "__init__"}


class Import(NamedTuple):
    line: int
    name: str  # full and dotted
    at_import: bool  # whether it runs when the module is imported


def room_of(path: str) -> str:
    """The folder or file below the package: `models` for models/families/phi.py, `train` for train.py; or `configs`."""
    parts = Path(path).with_suffix("").parts
    return parts[1] if parts[0] == "adaspec_jax" else parts[0]


def floor_of(room: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


def imports_of(source: str, path: str) -> Iterator[Import]:
    def visit(node, at_import):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                package = Path(path).parent.parts
                origin = ".".join([*package[: len(package) - node.level + 1], *filter(None, [origin])])
            yield from (Import(node.lineno, f"{origin}.{alias.name}", at_import) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                yield from visit(child, False)
            for child in node.orelse:
                yield from visit(child, at_import)
        else:
            in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, at_import and not in_function)

    yield from visit(ast.parse(source), True)


def broken_rules(source: str, path: str) -> list[str]:
    """One line for each import in `source` that the design forbids a file at `path`."""
    room, broken = room_of(path), []
    if floor_of(room) is None:
        broken.append(f"{path}: no room of this name in FLOORS; add it to the floor whose rooms it may not import")
    for line, name, at_import in imports_of(source, path):
        package, _, inside = name.partition(".")
        where = f"{path}:{line}"
        if package == "adaspec_jax":
            other = inside.split(".")[0]
            if other not in EVERYBODYS | {room} and not _goes_down(room, other):
                broken.append(f"{where}: {room} may not import {other}")
        if package == "configs":
            broken.append(f"{where}: a config file is loaded by --config, never imported")
        if package in ONLY_IN and not path.startswith(ONLY_IN[package]):
            broken.append(f"{where}: only {' and '.join(ONLY_IN[package])} may import {package}")
        if package in LAZY and at_import:
            broken.append(f"{where}: {package} is slow or optional; import it inside the function that needs it")
    return broken


def _goes_down(room: str, other: str) -> bool:
    if other in CLOSED.get(room, ()):
        return False
    if other in OF_ALL_DOORS or (room, other) in BETWEEN_DOORS:
        return room in DOORS and other != room
    start, end = floor_of(room), floor_of(other)
    return start is not None and end is not None and start < end


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def file_arrows() -> dict[str, set[str]]:
    """{module: modules of ours that it imports}; a name taken from a package counts for the package."""
    modules = {module_of(path) for path in FILES}
    found: dict[str, set[str]] = {}
    for path in FILES:
        module = module_of(path)
        found[module] = set()
        for _, name, _ in imports_of(path.read_text(), path.relative_to(CHECKOUT).as_posix()):
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != module:
                found[module].add(target)
    return found


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected groups of more than one, `__init__` files left out: they hand on what lies below them."""
    packages = {module_of(path) for path in FILES if path.name == "__init__.py"}
    arrows = {module: targets - packages for module, targets in arrows.items() if module not in packages}
    order, seen, groups = [], set(), []

    def visit(module, graph, out):
        stack = [(module, iter(sorted(graph.get(module, ()))))]
        seen.add(module)
        while stack:
            at, rest = stack[-1]
            following = next((other for other in rest if other not in seen), None)
            if following is None:
                out.append(at)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(sorted(graph.get(following, ())))))

    for module in sorted(arrows):
        if module not in seen:
            visit(module, arrows, order)
    backwards: dict[str, set[str]] = {module: set() for module in arrows}
    for module, targets in arrows.items():
        for target in targets:
            backwards.setdefault(target, set()).add(module)
    seen.clear()
    for module in reversed(order):
        if module not in seen:
            group: list[str] = []
            visit(module, backwards, group)
            if len(group) > 1:
                groups.append(sorted(group))
    return groups


def room_arrows() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in FILES:
        relative = path.relative_to(CHECKOUT).as_posix()
        for _, name, _ in imports_of(path.read_text(), relative):
            package, _, inside = name.partition(".")
            other = inside.split(".")[0]
            if (
                package == "adaspec_jax"
                and floor_of(other) is not None
                and other not in {room_of(relative), "__init__"}
            ):
                found.setdefault(room_of(relative), set()).add(other)
    return found


class Function(NamedTuple):
    path: str
    name: str
    lines: int  # docstring not counted
    whole_config: bool  # whether a parameter is the Experiment


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def functions() -> Iterator[Function]:
    for path in FILES:
        relative = path.relative_to(CHECKOUT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1
            start = first.end_lineno + 1 if documented else node.lineno
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            whole = any(a.annotation is not None and "Experiment" in ast.unparse(a.annotation) for a in given)
            yield Function(relative, node.name, node.end_lineno - start + 1, whole)


def defined_twice(source: str) -> list[str]:
    """Functions and classes whose place a later one of the same name takes; overloads and setters are decorated."""
    found = []
    for scope in (node for node in ast.walk(ast.parse(source)) if isinstance(getattr(node, "body", None), list)):
        names = [node.name for node in scope.body if isinstance(node, _DEFINITIONS) and not node.decorator_list]
        found += sorted({name for name in names if names.count(name) > 1})
    return found


def _print_tree(folder: Path, indent: str = "") -> None:
    for path in sorted(folder.iterdir(), key=lambda p: (p.is_file(), p.name)):
        if path.name.startswith("__") and path.name != "__main__.py":
            continue
        if path.is_dir():
            print(f"{indent}{path.name}/")
            _print_tree(path, indent + "  ")
        elif path.suffix == ".py":
            print(f"{indent}{path.stem:<{max(28 - len(indent), 1)}} {len(path.read_text().splitlines()):>4}")


def rooms_in_words() -> str:
    """A line for each floor, from the top down: its rooms, and the first sentence of what each says of itself."""
    lines = []
    for number, rooms in enumerate(floor for floor in FLOORS if floor not in ({"configs"}, DOORS)):
        for room in sorted(rooms - {"__init__"}):
            place = CHECKOUT / "adaspec_jax" / room
            file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            said = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n\n")[0]
            name = f"{room}/" if place.is_dir() else f"{room}.py"
            lines.append(f"{number + 1:>2}  {name:<21} {' '.join(said.split())}")
    return "\n".join(lines)


def main() -> int:
    _print_tree(CHECKOUT / "adaspec_jax")
    print("\nArrows, from the top floor down:")
    arrows = room_arrows()
    for rooms in FLOORS:
        for room in sorted(rooms):
            if room in arrows:
                print(f"  {room:<14} -> {' '.join(sorted(arrows[room], key=lambda r: (floor_of(r), r)))}")
    round_ones = circles(file_arrows())
    print(f"\nCircles: {len(round_ones)}", *round_ones, sep="\n  " if round_ones else "")
    takers = [f for f in functions() if f.whole_config]
    inside = [f for f in takers if room_of(f.path) in ("pipeline", "planning")]
    below = [f for f in takers if floor_of(room_of(f.path)) > floor_of("pipeline") and room_of(f.path) != "config"]
    print(f"Signatures with the whole config: {len(inside)} in pipeline and planning, {len(below)} below")
    for function in (*inside, *below):
        print(f"  {function.path} {function.name}")
    long = [f for f in functions() if f.lines > LONGEST_FUNCTION]
    print(f"Functions above {LONGEST_FUNCTION} lines: {len(long)}")
    for function in sorted(long, key=lambda f: -f.lines):
        print(f"  {function.path} {function.name} {function.lines}")
    broken = [line for p in FILES for line in broken_rules(p.read_text(), p.relative_to(CHECKOUT).as_posix())]
    print(*broken, sep="\n")
    return bool(broken or round_ones)


if __name__ == "__main__":
    sys.exit(main())

"""Walks the syntax trees of the package and keeps its import arrows pointing one way (nothing is imported or run)."""

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
FILES = sorted(path for folder in ("adaspec_jax", "configs") for path in (CHECKOUT / folder).rglob("*.py"))
LONGEST_FILE = 300

# What each room may import from the others. Upstairs, a command hands a config to the pipeline ...
BASE = {"models", "training", "decoding", "data", "sharding", "reporting"}
COMMANDS = {"train", "evaluate", "generate", "export", "plan", "convert", "doctor", "parity", "compare"}
ARROWS = {
    "configs": {"config", "paper"},
    "paper": {"config"},
    "config": {"architectures"},
    "architectures": set(),
    "command_line": {"config"},
    "pipeline": BASE
    | {"answers", "arms", "config", "measure", "memory", "processes", "programs", "stages", "teacher"}
    | {"text", "views", "workdir"},
    "stages": BASE | {"config", "memory", "processes", "programs", "text", "workdir"},
    "teacher": BASE | {"config", "processes", "teacher_choice", "text", "workdir"},
    "teacher_choice": {"config", "data", "workdir"},
    "text": {"config", "data", "models", "pair", "processes", "workdir"},
    "workdir": {"config", "models", "reporting"},
    "measure": {"decoding", "processes", "reporting"},
    "views": {"decoding", "processes", "training"},
    # A stage's program is the same whether it runs (stages) or is only compiled (planning).
    "programs": {"config", "models", "on_policy", "sharding", "training"},
    "on_policy": {"decoding", "training"},
    "arms": {"config", "training"},
    "answers": BASE | {"config", "processes", "text", "workdir"},
    "memory": {"programs"},
    "planning": BASE | {"config", "memory", "programs", "step_costs", "topologies"},
    "pair": {"data", "models"},
    **dict.fromkeys(
        COMMANDS,
        BASE
        | {"command_line", "config", "pipeline", "measure", "memory", "pair", "serving", "text", "views", "workdir"},
    ),
    "ablate": {"command_line", "config", "pipeline", "processes", "reporting"},
    "train": {"command_line", "pipeline", "processes", "reporting"},
    "compare": {"command_line", "paper", "parity", "reporting"},
    "plan": {"command_line", "planning", "sharding", "topologies"},
    # Nothing here needs jax, which would take longer to import than the check takes.
    "doctor": {"command_line", "reporting", "serving"},
    "serving": {"data", "model_directories"},
    # ... and below it nobody knows the config.
    "training": {"models", "data", "sharding"},
    "models": {"sharding", "model_directories"},
    "model_directories": set(),
    "decoding": set(),
    "data": set(),
    "sharding": set(),
    "processes": set(),
    "topologies": set(),
    "step_costs": set(),
    "reporting": set(),
    "errors": set(),
    "__init__": BASE,
}
FOR_EVERYBODY = {"errors", "__version__"}
LAZY = {"tensorflow_datasets", "grain", "ml_collections", "transformers", "torch", "datasets"}
ONLY_IN = {"flax": {"models"}, "torch": {"parity", "convert"}}


def room_of(path: str) -> str:
    """`adaspec_jax/models/phi.py` is in `models`, `adaspec_jax/train.py` is `train`, `configs/x.py` is in `configs`."""
    parts = Path(path).with_suffix("").parts
    return parts[1] if parts[0] == "adaspec_jax" else parts[0]


def imports_of(source: str, path: str):
    """Each import as (line, full dotted name, whether it runs when the module is imported)."""

    def visit(node, at_import):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                package = Path(path).parent.parts
                origin = ".".join([*package[: len(package) - node.level + 1], *filter(None, [origin])])
            yield from ((node.lineno, f"{origin}.{alias.name}", at_import) for alias in node.names)
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
    if room not in ARROWS:
        broken.append(f"{path}: no room of this name in ARROWS; add it, with what it may import")
    for line, name, at_import in imports_of(source, path):
        package, _, inside = name.partition(".")
        where = f"{path}:{line}"
        if package == "adaspec_jax":
            other = inside.split(".")[0]
            if other not in {room} | FOR_EVERYBODY | ARROWS.get(room, set()):
                broken.append(f"{where}: {room} may not import {other}")
        if package == "configs":
            broken.append(f"{where}: a config file is loaded by --config, never imported")
        if package in ONLY_IN and room not in ONLY_IN[package]:
            broken.append(f"{where}: only {' and '.join(sorted(ONLY_IN[package]))} may import {package}")
        if package in LAZY and at_import:
            broken.append(f"{where}: {package} is slow or optional; import it inside the function that needs it")
    return broken


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_imports_follow_the_arrows(path):
    broken = broken_rules(path.read_text(), path.relative_to(CHECKOUT).as_posix())
    assert not broken, "\n".join(broken)


def test_no_file_outgrows_its_concept():
    lengths = {path.relative_to(CHECKOUT).as_posix(): len(path.read_text().splitlines()) for path in FILES}
    too_long = {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE}
    assert not too_long, f"more than {LONGEST_FILE} lines: {too_long}"


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("adaspec_jax/decoding/engine.py", "from adaspec_jax.models import load", "decoding may not import models"),
        ("adaspec_jax/decoding/engine.py", "from ..models import load", "decoding may not import models"),
        ("adaspec_jax/decoding/drafters/x.py", "from ...models import load", "decoding may not import models"),
        ("adaspec_jax/data/tasks.py", "def f():\n    import adaspec_jax.config", "data may not import config"),
        ("adaspec_jax/training/loop.py", "from adaspec_jax import config", "training may not import config"),
        ("adaspec_jax/train.py", "from adaspec_jax import evaluate", "train may not import evaluate"),
        ("adaspec_jax/errors.py", "from adaspec_jax.data import x", "errors may not import data"),
        ("configs/quickstart.py", "from adaspec_jax.pipeline import run", "configs may not import pipeline"),
        ("configs/quickstart.py", "from configs.base import get_config", "never imported"),
        ("adaspec_jax/utils.py", "", "no room of this name"),
        ("adaspec_jax/training/loop.py", "def f():\n    from flax import linen", "only models may import flax"),
        ("adaspec_jax/export.py", "def f():\n    import torch.nn", "only convert and parity may import torch"),
        ("adaspec_jax/parity.py", "import torch", "inside the function"),
        ("adaspec_jax/data/sources.py", "try:\n    import grain\nexcept ImportError: pass", "inside the function"),
        ("adaspec_jax/data/sources.py", "class A:\n    from datasets import load_dataset", "inside the function"),
    ],
)
def test_a_forbidden_import_is_named(path, source, complaint):
    (broken,) = broken_rules(source, path)
    assert complaint in broken


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("adaspec_jax/training/loop.py", "from adaspec_jax.models import CausalLM\nfrom .objectives import distill"),
        ("adaspec_jax/models/phi.py", "from flax import linen\nfrom adaspec_jax import __version__, errors, sharding"),
        ("adaspec_jax/parity.py", "def f():\n    import torch, transformers"),
        ("adaspec_jax/models/weights.py", "import typing\nif typing.TYPE_CHECKING:\n    import transformers"),
        ("adaspec_jax/pipeline.py", "from . import config, decoding, reporting"),
        ("configs/quickstart.py", "from adaspec_jax.config import Experiment"),
    ],
)
def test_an_allowed_import_passes(path, source):
    assert not broken_rules(source, path)


def test_the_lock_pins_every_line_and_names_no_host():
    lines = (CHECKOUT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins and "://" not in "\n".join(lines)
    assert not [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*( ; [^:@/]+)?", pin)]


def test_the_lock_leaves_torch_and_cuda_out():
    names = re.findall(r"^([a-z0-9-]+)==", (CHECKOUT / "requirements.lock").read_text(), re.MULTILINE)
    assert {"jax", "flax", "pytest", "ruff"} <= set(names)
    assert not [name for name in names if re.match("torch|nvidia|triton|cuda|tensorflow$", name)]

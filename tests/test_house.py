"""Walks the syntax trees of the package and keeps its import arrows pointing one way (nothing is imported or run)."""

import re

import pytest

from tests.house import (
    CHECKOUT,
    FILES,
    LONGEST_FILE,
    LONGEST_FUNCTION,
    broken_rules,
    circles,
    defined_twice,
    file_arrows,
    floor_of,
    functions,
    room_of,
    rooms_in_words,
)

# Functions that read better whole, each with its reason.
LONG_WITH_REASON: dict[str, str] = {}
MOST_WITH_THE_CONFIG = 8  # signatures in pipeline/ and planning/ that take all of it


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_imports_follow_the_arrows(path):
    broken = broken_rules(path.read_text(), path.relative_to(CHECKOUT).as_posix())
    assert not broken, "\n".join(broken)


def test_no_file_outgrows_its_concept():
    lengths = {path.relative_to(CHECKOUT).as_posix(): len(path.read_text().splitlines()) for path in FILES}
    too_long = {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE}
    assert not too_long, f"more than {LONGEST_FILE} lines: {too_long}"


def test_nothing_is_defined_twice():
    assert defined_twice("def f(): 1\nclass A:\n  def g(s): 1\n  def g(s): 2\ndef f(): 2") == ["f", "g"]
    twice = {path.relative_to(CHECKOUT).as_posix(): defined_twice(path.read_text()) for path in FILES}
    assert not {path: names for path, names in twice.items() if names}


def test_no_circles():
    assert circles(file_arrows()) == []


def test_a_circle_is_found_through_any_number_of_files():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set()}
    assert circles(arrows) == [["a", "b", "c"]]


def test_the_whole_config_stops_at_the_pipelines_door():
    takers = [f for f in functions() if f.whole_config and room_of(f.path) not in ("config", "configs")]
    below = [f"{f.path} {f.name}" for f in takers if floor_of(room_of(f.path)) > floor_of("pipeline")]
    assert not below, f"the whole config is taken below the pipeline: {below}"
    inside = [f"{f.path} {f.name}" for f in takers if room_of(f.path) in ("pipeline", "planning")]
    assert len(inside) <= MOST_WITH_THE_CONFIG, f"{len(inside)} signatures take the whole config: {inside}"


def test_functions_fit_a_screen():
    long = {f"{f.path} {f.name}": f.lines for f in functions() if f.lines > LONGEST_FUNCTION}
    unexplained = {name: lines for name, lines in long.items() if name not in LONG_WITH_REASON}
    assert not unexplained, f"more than {LONGEST_FUNCTION} lines, without a reason in LONG_WITH_REASON: {unexplained}"
    assert set(LONG_WITH_REASON) <= set(long), "a reason for a function that is not long any more"


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("adaspec_jax/decoding/engine.py", "from adaspec_jax.models import load", "decoding may not import models"),
        ("adaspec_jax/decoding/engine.py", "from ..models import load", "decoding may not import models"),
        ("adaspec_jax/decoding/drafters/x.py", "from ...models import load", "decoding may not import models"),
        ("adaspec_jax/data/tasks.py", "def f():\n    import adaspec_jax.config", "data may not import config"),
        ("adaspec_jax/training/loop.py", "from adaspec_jax import config", "training may not import config"),
        ("adaspec_jax/training/loop.py", "from adaspec_jax import methods", "training may not import methods"),
        ("adaspec_jax/methods/x.py", "from adaspec_jax import training", "methods may not import training"),
        ("adaspec_jax/measuring/x.py", "from adaspec_jax import pipeline", "measuring may not import pipeline"),
        ("adaspec_jax/decoding/x.py", "from adaspec_jax.retrieval import y", "decoding may not import retrieval"),
        ("adaspec_jax/serving/x.py", "from adaspec_jax import models", "serving may not import models"),
        ("adaspec_jax/doctor.py", "from adaspec_jax import models", "doctor may not import models"),
        ("adaspec_jax/train.py", "from adaspec_jax import evaluate", "train may not import evaluate"),
        ("adaspec_jax/errors.py", "from adaspec_jax.data import x", "errors may not import data"),
        ("configs/quickstart.py", "from adaspec_jax.pipeline import run", "configs may not import pipeline"),
        ("configs/quickstart.py", "from configs.base import get_config", "never imported"),
        ("adaspec_jax/utils.py", "", "no room of this name"),
        ("adaspec_jax/training/loop.py", "def f():\n    from flax import linen", "only adaspec_jax/models/ may import"),
        ("adaspec_jax/export.py", "def f():\n    import torch.nn", "may import torch"),
        ("adaspec_jax/parity/x.py", "import torch", "inside the function"),
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
        ("adaspec_jax/models/families/phi.py", "from flax import linen\nfrom adaspec_jax import __version__, errors"),
        ("adaspec_jax/models/decoder.py", "from adaspec_jax.devices import sharding"),
        ("adaspec_jax/parity/x.py", "def f():\n    import torch, transformers"),
        ("adaspec_jax/models/weights.py", "import typing\nif typing.TYPE_CHECKING:\n    import transformers"),
        ("adaspec_jax/pipeline/x.py", "from adaspec_jax import config, decoding, reporting"),
        ("configs/quickstart.py", "from adaspec_jax.config import Experiment"),
        ("adaspec_jax/methods/x.py", "from adaspec_jax import decoding, models, retrieval"),
    ],
)
def test_an_allowed_import_passes(path, source):
    assert not broken_rules(source, path)


def test_the_lock_pins_every_line_with_the_sums_of_its_files_and_names_no_host():
    text = (CHECKOUT / "requirements.lock").read_text()
    assert "://" not in text
    requirements = [" ".join(line.split()) for line in re.sub(r"(?m)^#.*|\\\n", "", text).splitlines() if line]
    pins = [requirement.partition(" --hash")[0] for requirement in requirements]
    assert pins and not [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*( ; [^:@/]+)?", pin)]
    assert not [each for each in requirements if not re.search(r"( --hash=sha256:[0-9a-f]{64})+$", each)]
    assert (CHECKOUT / "constraints.txt").read_text().splitlines() == pins


def test_every_pinned_package_has_its_licence_in_the_docs():
    table = (CHECKOUT / "docs" / "licences.md").read_text()
    rows = dict(re.findall(r"^\| ([a-z0-9-]+) \| (.+) \|$", table, re.MULTILINE))
    rows.pop("package")
    pinned = re.findall(r"^([a-z0-9-]+)==", (CHECKOUT / "constraints.txt").read_text(), re.MULTILINE)
    assert list(rows) == list(dict.fromkeys(pinned)) and "not installed here" not in rows.values()


def test_a_commit_is_looked_at_by_the_ruff_of_the_lock():
    hooks = (CHECKOUT / ".pre-commit-config.yaml").read_text()
    locked = re.search(r"^ruff==(\S+)", (CHECKOUT / "requirements.lock").read_text(), re.MULTILINE)
    assert re.findall(r"ruff-pre-commit\n +rev: v(\S+)", hooks) == [locked[1]]


def test_the_lock_leaves_torch_and_cuda_out():
    names = re.findall(r"^([a-z0-9-]+)==", (CHECKOUT / "requirements.lock").read_text(), re.MULTILINE)
    assert {"jax", "flax", "pytest", "ruff"} <= set(names)
    assert not [name for name in names if re.match("torch|nvidia|triton|cuda|tensorflow$", name)]


def test_contributors_are_shown_the_house_as_it_is():
    assert f"```text\n{rooms_in_words()}\n```" in (CHECKOUT / "CONTRIBUTING.md").read_text()

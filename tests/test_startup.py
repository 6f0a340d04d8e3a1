"""What a command imports before it knows what to do: nothing that takes longer than reading its own help."""

import json
import re
import subprocess
import sys

import pytest

from tests.house import COMMANDS
from tests.running import CHECKOUT, PATIENCE

HEAVY = ("jax", "flax", "transformers", "optax", "orbax", "numpy", "torch", "tokenizers", "datasets")
IMPORTS = """
import contextlib, io, json, runpy, sys

class Refusing:
    asked = []
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            self.asked.append(name)
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refusing())
import adaspec_jax
found, helps = {"import adaspec_jax": Refusing.asked}, {}
for name in COMMANDS:
    sys.argv, Refusing.asked, said = [name, "--help"], [], io.StringIO()
    for module in [module for module in sys.modules if module.partition(".")[0] == "adaspec_jax"]:
        del sys.modules[module]
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit, ModuleNotFoundError):
        runpy.run_module(f"adaspec_jax.{name}", run_name="__main__", alter_sys=True)
    found[name], helps[name] = Refusing.asked, said.getvalue()
print(json.dumps([found, helps]))
"""


@pytest.fixture(scope="module")
def said():
    """({command: heavy packages that its --help asked for}, {command: its help})."""
    program = f"HEAVY, COMMANDS = {HEAVY}, {[*COMMANDS, '__main__']}\n{IMPORTS}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_help_of_every_command_imports_nothing_heavy(said):
    found, helps = said
    assert set(found) == {*COMMANDS, "__main__", "import adaspec_jax"} and len(COMMANDS) >= 11
    assert not {name: heavy for name, heavy in found.items() if heavy}
    assert all("usage:" in text for text in helps.values())


def test_every_option_of_every_command_says_what_it_is_and_its_default(said):
    _, helps = said
    listed = {name: text.partition("\noptions:\n")[2] for name, text in helps.items() if "\noptions:\n" in text}
    assert len(listed) >= 12
    silent = r"^  (--\w+(?: \S+)?)\n(?! {6})"
    assert not {name: found for name, text in listed.items() if (found := re.findall(silent, text, re.MULTILINE))}
    assert re.search(r"--num_prompts NUM_PROMPTS\s+the first of them \(default: 100\)", listed["benchmark"])
    assert "SUPPRESS" not in "".join(helps.values())


def test_the_names_of_lazy_packages_are_there():
    from adaspec_jax import parity, pipeline

    assert callable(pipeline.run) and all(callable(getattr(parity, name)) for name in parity.__all__)
    with pytest.raises(AttributeError, match="no attribute 'certificat'"):
        _ = parity.certificat

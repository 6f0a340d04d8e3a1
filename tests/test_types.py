"""The public names are typed: a checker passes the package, and finds what a program does wrong with them."""

import re
import subprocess
import sys

import pytest

from tests.running import CHECKOUT, PATIENCE

MISTAKE = re.compile(r"# mistake: ([a-z-]+)$", re.MULTILINE)
TYPED = CHECKOUT / "tests" / "typed"


@pytest.mark.slow
def test_the_package_and_a_program_of_its_public_names_type_check_and_every_mistake_in_another_is_found():
    pytest.importorskip("mypy", reason="mypy is not installed here")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "adaspec_jax", *sorted(map(str, TYPED.glob("*.py")))]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE)
    found = re.findall(r"^(\S+?):(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    mistaken = TYPED / "mistaken.py"
    made = [
        (str(number), said[1])
        for number, line in enumerate(mistaken.read_text().splitlines(), 1)
        if (said := MISTAKE.search(line))
    ]
    assert [(file, *rest) for file, *rest in found if not file.endswith(mistaken.name)] == [], done.stderr
    assert [(line, code) for _, line, code in found] == made and len(made) > 10

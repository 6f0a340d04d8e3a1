"""The table of all systems is the one its command writes, and leaves no method out."""

import re

from adaspec_jax.methods import METHODS
from benchmarks import systems
from tests.running import CHECKOUT


def test_the_page_is_what_its_command_writes():
    assert (CHECKOUT / "docs" / "systems.md").read_text() == systems.page()


def test_every_method_and_its_paper_has_a_row():
    rows = [system for section in systems.SECTIONS.values() for system in section]
    assert set(METHODS) - {"plain"} == {name for system in rows for name in system.methods}
    named = {paper for system in rows for paper in re.findall(r"\d{4}\.\d{5}", system.paper)}
    assert not {paper for method in METHODS.values() for paper in re.findall(r"\d{4}\.\d{5}", method.paper)} - named


def test_every_head_of_the_committed_runs_has_its_figure():
    shown = {system.head for section in systems.SECTIONS.values() for system in section}
    runs = systems.read("heads_stories.json")["runs"]
    assert not {name.removesuffix("_seed0") for name in runs if name.endswith("_seed0")} - {*shown, "model"}

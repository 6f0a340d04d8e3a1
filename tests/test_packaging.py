"""The command `adaspec-jax`, and the wheel: what it holds, and that it works away from the checkout."""

import configparser
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from adaspec_jax import __main__, __version__
from adaspec_jax.config_files import find_config, names
from adaspec_jax.errors import UserError
from tests.house import COMMANDS
from tests.running import CHECKOUT, PATIENCE, command_line

PARTS = ("adaspec_jax", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE", "requirements.txt")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the checkout, as pip builds it."""
    pytest.importorskip("setuptools", minversion="77", reason="setuptools is not installed here")
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        if (CHECKOUT / part).is_dir():
            shutil.copytree(CHECKOUT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / part, copy / part)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True, timeout=PATIENCE)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """`run(*arguments)` of the console script of the unpacked wheel, away from the checkout."""
    target, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    zipfile.ZipFile(wheel).extractall(target)
    scripts = configparser.ConfigParser()
    (entry_points,) = target.glob("*.dist-info/entry_points.txt")
    scripts.read(entry_points)
    module, function = scripts["console_scripts"]["adaspec-jax"].split(":")
    (target / "adaspec-jax").write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")

    def run(*arguments):
        command = [sys.executable, str(target / "adaspec-jax"), *arguments]
        environment = os.environ | {"PYTHONPATH": str(target), "JAX_PLATFORMS": "cpu"}
        return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=PATIENCE)

    return run


def test_the_wheel_holds_every_module_and_every_config_once(wheel):
    held = sorted(name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py"))
    package = [path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "adaspec_jax").rglob("*.py")]
    configs = [f"adaspec_jax/configs/{path.name}" for path in (CHECKOUT / "configs").glob("*.py")]
    assert held == sorted([*package, *configs]) and len(configs) > 10
    assert "adaspec_jax/py.typed" in zipfile.ZipFile(wheel).namelist()  # a type checker reads its annotations


def test_an_installed_wheel_has_one_command_for_all_and_its_configs_by_name(installed):
    helped = installed("--help")
    assert helped.returncode == 0 and helped.stdout.startswith("usage: adaspec-jax COMMAND")
    assert all(re.search(rf"^  {name} +\w", helped.stdout, re.MULTILINE) for name in COMMANDS)
    assert "usage: adaspec-jax doctor " in installed("doctor", "--help").stdout
    printed = installed("train", "--config=quickstart", "--config.seed=7", "--print_config")
    assert printed.returncode == 0, printed.stderr
    assert json.loads(printed.stdout)["seed"] == 7
    refused = installed("train", "--config=quickstrat")
    assert refused.returncode == 2 and 'did you mean "quickstart"?' in refused.stderr
    versions = installed("train", "--version").stdout.splitlines()
    assert versions[0] == f"adaspec-jax {__version__}" and versions[1].startswith("jax 0.") and "cpu" in versions[2]


@pytest.mark.slow
def test_a_wheel_that_pip_installs_runs_the_whole_quickstart(wheel, tmp_path):
    place = tmp_path / "environment"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    (site,) = place.glob("lib/python*/site-packages")
    packages = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "others.pth").write_text("\n".join(packages) + "\n")  # jax and its like, but not the checkout
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True, timeout=PATIENCE)
    command = [place / "bin" / "adaspec-jax", "train", "--config=quickstart", "--workdir", "run"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["drafts"]["draft"]["alpha"] > report["drafts"]["base"]["alpha"] + 0.2


def test_every_command_is_listed_and_says_how_it_was_called(monkeypatch, capsys):
    assert sorted(__main__.COMMANDS) == COMMANDS
    for program in ("/usr/bin/adaspec-jax", "adaspec_jax/__main__.py"):
        monkeypatch.setattr(sys, "argv", [program, "search-layers", "--help"])
        with pytest.raises(SystemExit):
            __main__.main()
        name = "adaspec-jax" if "usr" in program else "python -m adaspec_jax"
        assert capsys.readouterr().out.startswith(f"usage: {name} search_layers ")
    for name in COMMANDS:
        package = importlib.import_module(f"adaspec_jax.{name}")
        if hasattr(package, "__path__"):
            package = importlib.import_module(f"adaspec_jax.{name}.__main__")
        assert callable(package.main), name


def test_packages_to_install_go_by_names_that_an_index_has():
    """An extra of this package resolves where a wheel of it is installed, and not in the environment of a checkout."""
    pages = [CHECKOUT / "README.md", *(CHECKOUT / "docs").glob("*.md"), *(CHECKOUT / "adaspec_jax").rglob("*.py")]
    for path in pages:
        said = re.findall(r"pip install\s+([^`);:]*)", path.read_text())
        assert not any("adaspec-jax[" in names or "requirements" in names for names in said), (path, said)


def test_a_misspelt_command_gets_a_near_name(monkeypatch, capsys):
    status, out, errors = command_line(capsys, monkeypatch, "__main__", "evalute", "--target", "x")
    assert status == 2 and not out and 'did you mean "evaluate"?' in errors and len(errors.splitlines()) == 1


@pytest.mark.parametrize("given", ["quickstart", "quickstart.py", "configs/quickstart.py", "quickstart:small"])
def test_a_config_is_found_by_name_wherever_one_stands(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, _, variant = find_config(given).partition(":")
    assert Path(path).samefile(CHECKOUT / "configs" / "quickstart.py") and variant == given.partition(":")[2]


def test_a_file_that_is_there_comes_before_a_config_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    for given in ("quickstart.py", "configs/quickstart.py"):
        Path(given).write_text("def get_config(): ...\n")
        assert find_config(f"{given}:x") == f"{given}:x"


@pytest.mark.parametrize(
    ("given", "near"), [("storys", "stories"), ("configs/storis.py", "stories"), ("mine/own.py", "own")]
)
def test_an_unknown_config_gets_a_near_name(given, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f'did you mean "{near}"'):
        find_config(given)


def test_the_configs_are_listed_with_what_they_are_for(capsys, monkeypatch):
    status, out, _ = command_line(capsys, monkeypatch, "train", "--config", "list")
    assert status == 0 and re.findall(r"^  (\w+)  +\S", out, re.MULTILINE) == names()


def test_the_citation_is_of_this_version_and_names_the_paper():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed here")
    said = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert said["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= set(said)
    assert said["version"] == __version__ and said["license"] == "Apache-2.0"
    assert said["references"][0]["url"].endswith("2510.19779")

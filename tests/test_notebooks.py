"""The notebooks: valid, without outputs, of one mind; they run from top to bottom as they are shipped, and go on."""

import ast
import json
import re
import shutil
import subprocess
import sys
import types
import venv
from pathlib import Path

import pytest

from adaspec_jax.config_files import find_config
from tests.running import CHECKOUT, PATIENCE

NOTEBOOKS = sorted((CHECKOUT / "launch").glob("*.ipynb"))
TINY = [
    *("data.num_train=32", "data.num_evaluation=4", "tokenizer.vocab_size=320", "teacher=hidden", "mesh.data=1"),
    *(
        "target.architecture.vocab_size=320",
        "target.architecture.hidden_size=32",
        "target.architecture.num_hidden_layers=1",
    ),
    *(
        "draft.architecture.vocab_size=320",
        "draft.architecture.hidden_size=24",
        "draft.architecture.num_attention_heads=3",
        "draft.architecture.num_hidden_layers=1",
    ),
    *("target.epochs=1", "evaluation.num_prompts=4", "evaluation.batch_size=4", "evaluation.max_new_tokens=8"),
    "evaluation.resamples=100",
]


def cells(path, kind="code"):
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def test_there_are_two():
    assert [path.name for path in NOTEBOOKS] == ["colab.ipynb", "kaggle_tpu.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_valid_and_has_no_outputs(path):
    text = path.read_text()
    content = json.loads(text)
    assert text == json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    assert all(
        not cell["outputs"] and cell["execution_count"] is None for cell in content["cells"] if "outputs" in cell
    )
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.reads(text, as_version=4))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_cells_compile_and_their_options_exist(path):
    for source in cells(path):
        ast.parse(source)
    headings = [line for text in cells(path, "markdown") for line in text.splitlines() if line.startswith("## ")]
    assert [heading[3] for heading in headings] == list("123456") and len(cells(path)) == 6
    values = {}
    exec(cells(path)[0], values)  # noqa: S102
    assert Path(find_config(values["CONFIG"])).is_file() and not values["REPO"] and values["ALLOW_CPU"]


def test_colab_shows_every_parameter_in_its_form():
    source = cells(NOTEBOOKS[0])[0]
    assigned = re.findall(r"^([A-Z_]+) = ", source, re.MULTILINE)
    assert assigned == re.findall(r"^([A-Z_]+) = .*  # @param \{type:\"\w+\"\}$", source, re.MULTILINE)
    assert {"REPO", "CONFIG", "WORKDIR"} <= set(assigned)


def test_the_notebooks_differ_in_words_and_places_alone():
    for ours, theirs in zip(*[map(strip, cells(path)[1:]) for path in NOTEBOOKS], strict=True):
        assert ours == theirs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_run_without_a_reference_is_shown_too(path, tmp_path, monkeypatch, capsys):
    page, draft = [], {"alpha": 0.5, "ci95": [0.4, 0.6], "block_efficiency": 2.0}
    (tmp_path / "report.json").write_text(json.dumps({"drafts": {"draft": draft}, "paired": {}}))
    (tmp_path / "report.html").write_text("<p>all of it</p>")
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(HTML=str, display=page.append))
    exec(cells(path)[-1], {"json": json, "Path": Path, "WORKDIR": tmp_path})  # noqa: S102
    assert "alpha 50.0% [40.0%, 60.0%]" in capsys.readouterr().out and "all of it" in page[0]


def strip(source):
    """The code without the words of its messages."""
    return re.sub(r"choose .*> [^\"]*", "", source).replace("TPU or GPU", "TPU")


@pytest.fixture
def run_colab(tmp_path, monkeypatch):
    """Runs the cells [:upto] of a copied colab.ipynb as a user would, and gives what each printed."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))

    def run(upto=6, **parameters):
        monkeypatch.setenv("ADASPEC_NOTEBOOK_PARAMETERS", json.dumps(parameters))
        notebook = nbformat.read(CHECKOUT / "launch" / "colab.ipynb", as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        notebook.cells = code[:upto]
        limits = {"timeout": PATIENCE, "startup_timeout": PATIENCE}
        client = nbclient.NotebookClient(notebook, **limits, resources={"metadata": {"path": str(tmp_path)}})
        client.allow_errors = True
        client.execute()
        return ["".join(map(text_of, cell.outputs)) for cell in code[:upto]]

    return run


def text_of(output):
    if output.output_type == "error":
        return "\n".join(output.traceback)
    return output.get("text") or str(output.data)


def test_without_an_accelerator_it_says_what_to_do(run_colab):
    *_, installed, refused = run_colab(upto=3, ALLOW_CPU=False)
    assert "adaspec_jax is there already" in installed
    last = refused.splitlines()[-1]
    assert last.startswith("Stopped: no TPU or GPU here: choose Runtime") and "ALLOW_CPU" in last
    assert "Traceback" not in refused


def test_without_a_repository_or_a_checkout_it_says_what_to_do(run_colab, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")
    if subprocess.run([sys.executable, "-c", "import adaspec_jax"], cwd="/", capture_output=True).returncode == 0:
        pytest.skip("adaspec_jax is installed here")
    said = run_colab(upto=2)[-1].splitlines()[-1]
    assert said.startswith("Stopped: no checkout of adaspec_jax is in") and "set REPO in the first cell" in said


@pytest.fixture
def fresh_kernel(tmp_path, monkeypatch):
    """The name of a kernel in an environment of its own, with all that is installed here but this package."""
    pytest.importorskip("ipykernel")
    place = tmp_path / "environment"
    venv.create(place, with_pip=True)
    (site,) = place.glob("lib/python*/site-packages")
    packages = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "others.pth").write_text("\n".join(packages) + "\n")
    for old in (*site.glob("setuptools*"), *site.glob("pkg_resources")):  # Python 3.11 brings one that is too old
        shutil.rmtree(old)
    kernel = tmp_path / "jupyter" / "kernels" / "fresh"
    kernel.mkdir(parents=True)
    command = [str(place / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "fresh", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # setuptools is here: no index is asked
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("ADASPEC_NOTEBOOK_PARAMETERS", raising=False)
    return "fresh"


def upload(place, how):
    """A checkout as a user brings it; its quickstart is a tiny one, and nothing else is changed."""
    checkout = place / "adaspec_jax-main"
    parts = ("adaspec_jax", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE", "requirements.txt")
    for part in parts:
        if (CHECKOUT / part).is_dir():
            shutil.copytree(CHECKOUT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / part, checkout / part)
    config = checkout / "configs" / "quickstart.py"
    lines = [f"    made.{key} = {value!r}" for key, value in (line.split("=") for line in TINY)]
    lines = [line.replace("'", "") if not line.endswith("'hidden'") else line for line in lines]
    tiny = [
        "",
        "",
        "_get_config = get_config",
        "",
        "",
        'def get_config(variant=""):',
        "    made = _get_config(variant)",
    ]
    config.write_text(config.read_text() + "\n".join([*tiny, *lines, "    return made", ""]))
    if how == "zip":
        shutil.make_archive(str(place / "adaspec_jax"), "zip", place, checkout.name)
        shutil.rmtree(checkout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "how"), zip(NOTEBOOKS, ("folder", "zip"), strict=True), ids=lambda x: getattr(x, "name", x)
)
def test_run_all_of_a_notebook_as_it_is_shipped(path, how, fresh_kernel, tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    session = tmp_path / "session"
    session.mkdir()
    upload(session, how)
    notebook = nbformat.read(path, as_version=4)
    limits = {"timeout": PATIENCE, "startup_timeout": PATIENCE, "kernel_name": fresh_kernel}
    nbclient.NotebookClient(notebook, **limits, resources={"metadata": {"path": str(session)}}).execute()
    printed = ["".join(map(text_of, cell.outputs)) for cell in notebook.cells if cell.cell_type == "code"]
    assert f"adaspec_jax is installed from {session}" in printed[1]
    assert "Going on with the CPU" in printed[2] and "report.json and report.html are written" in printed[4]
    assert "AdaSPEC minus DistillSpec" in printed[5] and "<iframe srcdoc=" in printed[5]


@pytest.mark.slow
def test_colab_trains_from_end_to_end_and_goes_on(run_colab, tmp_path):
    parameters = {"WORKDIR": str(tmp_path / "run"), "OVERRIDES": [f"--config.{t}" for t in TINY]}
    printed = run_colab(**parameters)
    assert "report.json and report.html are written" in printed[4], printed
    assert "AdaSPEC minus DistillSpec" in printed[5] and "<iframe srcdoc=" in printed[5]
    stages = {file: file.read_bytes() for file in (tmp_path / "run").glob("*/stage.json")}
    assert len(stages) == 3
    assert "AdaSPEC minus DistillSpec" in run_colab(**parameters)[5]
    assert stages == {file: file.read_bytes() for file in stages}

"""The notebooks: valid, without outputs, of one mind; colab.ipynb trains from end to end on a CPU, and goes on."""

import ast
import json
import re
import subprocess
import sys

import pytest

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
    assert (CHECKOUT / values["CONFIG"]).is_file() and not values["REPO"] and not values["ALLOW_CPU"]


def test_the_notebooks_differ_in_words_and_places_alone():
    for ours, theirs in zip(*[map(strip, cells(path)[1:]) for path in NOTEBOOKS], strict=True):
        assert ours == theirs


def strip(source):
    """The code without Colab's Drive and without the words of its messages."""
    drive = re.escape('if WORKDIR.startswith("/content/drive/")') + r'.*drive\.mount\("/content/drive"\)\n+'
    return re.sub(r"choose .*> \S+ \S+,", "", re.sub(drive, "", source, flags=re.DOTALL)).replace("TPU or GPU", "TPU")


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
    *_, installed, refused = run_colab(upto=3)
    assert installed.startswith("adaspec_jax is there already")
    last = refused.splitlines()[-1]
    assert last.startswith("Stopped: no TPU or GPU here: choose Runtime") and "ALLOW_CPU" in last
    assert "Traceback" not in refused


def test_without_a_repository_it_says_what_to_do(run_colab, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")
    if subprocess.run([sys.executable, "-c", "import adaspec_jax"], cwd="/", capture_output=True).returncode == 0:
        pytest.skip("adaspec_jax is installed here")
    assert run_colab(upto=2)[-1].startswith("Stopped: set REPO in the first cell")


@pytest.mark.slow
def test_colab_trains_from_end_to_end_and_goes_on(run_colab, tmp_path):
    parameters = {"ALLOW_CPU": True, "WORKDIR": str(tmp_path / "run"), "OVERRIDES": [f"--config.{t}" for t in TINY]}
    printed = run_colab(**parameters)
    assert "report.json and report.html are written" in printed[4], printed
    assert "AdaSPEC minus DistillSpec" in printed[5] and "<iframe srcdoc=" in printed[5]
    stages = {file: file.read_bytes() for file in (tmp_path / "run").glob("*/stage.json")}
    assert len(stages) == 3
    assert "AdaSPEC minus DistillSpec" in run_colab(**parameters)[5]
    assert stages == {file: file.read_bytes() for file in stages}

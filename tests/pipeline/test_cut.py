"""A draft that is cut from its target: the whole run, to the bit when resumed, and what is said of it afterwards."""

import json
import shutil

import jax
import numpy as np
import pytest

from adaspec_jax import models, pipeline
from adaspec_jax.config import Draft, GPTNeoX, Llama, Target, flatten, with_cut
from adaspec_jax.config.paper import departures
from adaspec_jax.devices import processes
from adaspec_jax.errors import Stopped, UserError
from adaspec_jax.models.cutting import cut_from
from adaspec_jax.pipeline import ablation, beginnings, whole_run
from adaspec_jax.pipeline.workdir import Workdir
from tests.pipeline.test_arms import short
from tests.running import command_line

LAYERS = (0, 2)
SAID = "cut from layers 0, 2 of a target trained from scratch"


def experiment(**draft):
    """On a target whose stage is rounded when it is restored."""
    config = short(dtype="bfloat16")
    config.target.architecture.num_hidden_layers = 3
    kept = {"epochs": 0.4, "batch_size": 8, "lr": 5e-3}
    config.draft = Draft(**kept | {"init": "cut"} | draft)
    return config


@pytest.fixture(scope="module")
def finished(few_costs_throughout, tmp_path_factory):
    directory = tmp_path_factory.mktemp("cut") / "run"
    bases = []

    def fitted(start, label, model, *rest):
        bases.append((label, jax.device_get(model)))
        return whole_run_fitted(start, label, model, *rest)

    whole_run_fitted = whole_run._fitted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole_run, "_fitted", fitted)
        report = pipeline.run(experiment(), directory)
    return directory, report, dict(bases)


def test_the_draft_begins_as_layers_of_the_fine_tuned_target_in_float32(finished):
    directory, report, begun = finished
    expected = models.cut(models.load(directory / "target"), LAYERS)
    assert set(begun) == {"target", "reference", "draft"}
    for label in ("reference", "draft"):
        assert begun[label].config.num_layers == 2 and begun[label].dtype == np.float32
        assert begun[label].config.num_tokens == begun["target"].config.num_tokens
        jax.tree.map(np.testing.assert_array_equal, begun[label].params, expected.params)
    # Which are not those that the target began with.
    assert not np.array_equal(begun["target"].params["embed"]["embedding"], expected.params["embed"]["embedding"])


def test_the_report_and_the_config_have_the_layers_and_the_architecture(finished):
    directory, report, _ = finished
    draft = report["settings"]["draft"]
    assert draft["layers"] == list(LAYERS) and draft["architecture"]["num_hidden_layers"] == 2
    assert draft["architecture"]["hidden_size"] == 48
    kept = json.loads((directory / "config.json").read_text())
    assert kept["draft.layers"] == list(LAYERS) and kept["draft.architecture.num_hidden_layers"] == 2
    assert report["models"]["base"] == report["models"]["draft"] < report["models"]["target"]
    assert set(report["drafts"]) == {"base", "reference", "draft"} and report["drafts"]["draft"]["judged"] > 0
    assert any(
        "draft cut from the target's layers (paper: a model of" in line for line in departures(report["settings"])
    )


def test_a_run_that_is_stopped_in_every_stage_ends_with_the_same_bits(finished, tmp_path, monkeypatch):
    directory, report, _ = finished
    for stage, step in {"target": 4, "reference": 4, "draft": 2}.items():
        monkeypatch.setattr(processes, "stopping", lambda now, at=(stage, step): at == (_begun(tmp_path / "run"), now))
        with pytest.raises(Stopped):
            pipeline.run(experiment(), tmp_path / "run")
    monkeypatch.setattr(processes, "stopping", lambda step: False)
    again = pipeline.run(experiment(), tmp_path / "run")
    for label in ("target", "reference", "draft"):
        files = [(run / label / "model.safetensors").read_bytes() for run in (directory, tmp_path / "run")]
        assert files[0] == files[1], label
    assert again["drafts"] == report["drafts"]


def _begun(workdir):
    """The stage that is being fitted."""
    return next(label for label in ("target", "reference", "draft") if Workdir(workdir).finished(label) is None)


@pytest.mark.slow
def test_other_layers_redo_reference_and_draft_and_keep_the_target(finished, tmp_path, monkeypatch):
    directory, _, _ = finished
    shutil.copytree(directory, tmp_path / "run")
    with pytest.raises(
        UserError, match=r"made with draft.layers=\[0, 2\], not \[1\]; .* delete .*/reference and later"
    ):
        pipeline.run(experiment(layers=(1,)), tmp_path / "run")
    for name in ("reference", "draft", "teacher"):
        shutil.rmtree(tmp_path / "run" / name)
    before = (tmp_path / "run" / "target" / "model.safetensors").stat().st_mtime_ns
    report = pipeline.run(experiment(layers=(1,)), tmp_path / "run")
    assert report["settings"]["draft"]["layers"] == [1]
    assert (tmp_path / "run" / "target" / "model.safetensors").stat().st_mtime_ns == before
    assert models.load(tmp_path / "run" / "draft").config.num_layers == 1


def test_what_is_exported_says_what_it_was_cut_from(finished, tmp_path, capsys, monkeypatch):
    directory, _, _ = finished
    for stage in ("draft", "reference"):
        arguments = ["--workdir", directory, "--stage", stage, "--out", tmp_path / stage]
        status, said, errors = command_line(capsys, monkeypatch, "export", *arguments)
        assert status == 0, errors
        assert said.splitlines()[0].endswith(f"float32, {SAID}")
        assert json.loads((tmp_path / stage / "config.json").read_text())["adaspec_cut"] == SAID
    assert cut_from(models.load(directory / "target")) is None


def test_the_target_is_named_as_others_know_it():
    assert beginnings._named(Target(init="some/model")) == "some/model, fine-tuned"
    assert beginnings._named(Target(init="/a/path/to/model/", epochs=0)) == "model"


def test_every_seed_of_an_ablation_cuts_its_draft_from_the_first_ones_target(tmp_path):
    config = with_cut(experiment())
    second = ablation.seeded(config, tmp_path, 1)
    assert second.draft == config.draft and second.target.init == str(tmp_path / "seed0" / "target")
    assert with_cut(second) == second


CONFIG = """
from adaspec_jax.config import *
def get_config(variant=""):
    fit = {{"batch_size": 8, "lr": 1e-3}}
    place = {place!r}
    return Experiment(
        data=Data(task="word_problems", num_train=32, num_evaluation=4, max_length=256, buckets=(256,)),
        tokenizer=Tokenizer(init=place),
        target=Target(init=place, architecture=None, epochs=0),
        reference=Reference(epochs=0.5, **fit),
        draft=Draft(init="cut", epochs=0.4, **fit),
        evaluation=Evaluation(num_prompts=4, max_new_tokens=8, resamples=50, draft_length=2, batch_size=4),
        mesh=Mesh(data=1),
        teacher="hidden",
    )
"""


def test_a_model_that_is_brought_needs_its_place_alone(shared_weights, tmp_path, capsys, monkeypatch):
    """Its sizes are read, its draft is cut from it as it is, and it says which."""
    place = shared_weights("stories260K-hf")
    (tmp_path / "config.py").write_text(CONFIG.format(place=str(place)))
    arguments = ["--config", tmp_path / "config.py", "--workdir", tmp_path / "run"]
    status, said, errors = command_line(capsys, monkeypatch, "train", *arguments)
    assert status == 0, errors
    assert "parameters cut from layers 0, 4 of stories260K-hf" in said
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["settings"]["target"]["architecture"]["num_key_value_heads"] == 4
    assert report["settings"]["draft"]["layers"] == [0, 4]
    draft = models.load(tmp_path / "run" / "draft")
    assert draft.config.num_layers == 2 and draft.config.tie_embeddings
    # The same again finds everything done; a target of other sizes is another config.
    status, _, errors = command_line(capsys, monkeypatch, "train", *arguments, "--config.draft.layers=0,4")
    assert status == 0, errors


def test_a_tokenizer_left_at_train_is_held_against_the_targets_alone(shared_weights, tmp_path):
    config = short()
    config.target.init, config.target.architecture = str(shared_weights("stories260K-hf")), Llama()
    config.draft = Draft(init="cut")
    with pytest.raises(
        UserError, match='tokenizer.init is "train", and the target .*stories260K-hf comes with a token'
    ):
        pipeline.run(config, tmp_path / "run")


def test_a_workdir_of_before_there_were_layers_is_still_its_configs(tmp_path):
    config = short()
    flat = json.loads(json.dumps(flatten(config)))
    new = ["draft.layers", *(f"{name}.architecture.attention_bias" for name in ("target", "draft"))]
    for key in new:
        del flat[key]
    workdir = tmp_path / "run"
    (workdir / "target").mkdir(parents=True)
    (workdir / "target" / "stage.json").write_text("{}")
    (workdir / "config.json").write_text(json.dumps(flat))
    Workdir(workdir).claim(config)
    config.draft.architecture = GPTNeoX(attention_bias=False)
    config.target.architecture = GPTNeoX(attention_bias=False)
    with pytest.raises(UserError, match="made with target.architecture"):
        Workdir(workdir).claim(config)

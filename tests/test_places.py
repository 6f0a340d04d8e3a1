"""A model or a tokenizer is a directory, or a hub name that the given folders are asked for first."""

import re

import pytest

from adaspec_jax import data
from adaspec_jax.errors import UserError
from adaspec_jax.places import find_below, find_local


@pytest.fixture
def weights(tmp_path, monkeypatch):
    for name in ("maker/whole", "short"):
        (tmp_path / "weights" / name).mkdir(parents=True)
        (tmp_path / "weights" / name / "config.json").write_text("{}")
    monkeypatch.setenv("ADASPEC_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_a_hub_name_is_found_whole_or_by_its_last_part(weights):
    assert find_local("maker/whole") == weights / "maker" / "whole"
    assert find_local("anybody/short") == find_local("short") == weights / "short"
    assert find_local("maker/unknown") is None  # to ask the hub for
    (weights / "short" / "config.json").rename(weights / "short" / "adapter_config.json")
    assert find_local("short") == weights / "short"  # whoever reads it says what it is
    assert find_below("ADASPEC_WEIGHTS", "short", holding=("tokenizer.json", "vocab.json")) is None


def test_a_path_is_never_taken_for_a_name_below_the_given_folders(weights, tmp_path):
    (weights / "short" / "tokenizer.json").write_text("{}")
    for path in (tmp_path / "nowhere" / "short", "./nowhere/short", "../short"):
        with pytest.raises(UserError, match="there is no tokenizer at"):
            data.load_tokenizer(path)
        with pytest.raises(UserError, match="no such directory"):
            find_local(path)


def test_without_a_given_folder_there_is_nothing_below_it(monkeypatch):
    monkeypatch.delenv("ADASPEC_WEIGHTS", raising=False)
    assert find_below("ADASPEC_WEIGHTS", "short", holding=("config.json",)) is None


def test_a_runs_directory_in_a_models_place_is_told_from_a_model(tmp_path):
    for name in ("target", "draft"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "config.json").write_text("{}")
    (tmp_path / "run" / "config.json").write_text("{}")  # the run's own
    says = f"is a run's directory, and no model; give one of its models: {tmp_path}/run/target, {tmp_path}/run/draft"
    with pytest.raises(UserError, match=re.escape(says)):
        find_local(tmp_path / "run")
    assert find_local(tmp_path / "run" / "draft") == tmp_path / "run" / "draft"
    (tmp_path / "run" / "model.safetensors").touch()  # a model that has others below it
    assert find_local(tmp_path / "run") == tmp_path / "run"

"""What a run's directory holds is what the run made, and nothing that a killed one left over."""

import pytest

from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.workdir import Workdir
from tests import tiny_pair


@pytest.fixture
def workdir(tmp_path):
    made = Workdir(tmp_path / "run")
    tiny_pair.tokenizer().save_pretrained(made.tokenizer)
    made.seal_tokenizer(made.tokenizer)
    return made


@pytest.mark.parametrize("spoil", ["changed", "gone", "added"])
def test_a_tokenizer_that_is_not_what_the_run_made_is_named(workdir, spoil):
    workdir.check_tokenizer()
    file = workdir.tokenizer / ("tokenizer.json" if spoil != "added" else "vocab.json")
    if spoil == "gone":
        file.unlink()
    else:
        file.write_text("{}")
    with pytest.raises(
        UserError, match=f"{file} is damaged: it is not what this run made.* delete {workdir.tokenizer}"
    ):
        workdir.check_tokenizer()


def test_a_tokenizer_of_before_is_taken_as_it_is(workdir):
    (workdir.path / "decisions.json").unlink()
    workdir.check_tokenizer()


def test_what_killed_runs_left_goes_and_checkpoints_of_an_unfinished_stage_stay(workdir):
    for stage in ("target", "draft"):
        (workdir.stage(stage) / "checkpoints" / "4").mkdir(parents=True)
        (workdir.stage(stage) / f".x.{'0' * 32}.tmp").touch()
    workdir.finish("target", {"steps": 4})
    workdir.clear()
    assert sorted(path.name for path in workdir.stage("target").iterdir()) == ["stage.json"]
    assert sorted(path.name for path in workdir.stage("draft").rglob("*")) == ["4", "checkpoints"]

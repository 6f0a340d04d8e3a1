"""What a run reads depends on the day where a chat template writes it, and then on the day the run began."""

import datetime

import pytest

from adaspec_jax import data
from adaspec_jax.config import Data, Target, Tokenizer
from adaspec_jax.pipeline import text
from adaspec_jax.pipeline.workdir import Workdir

DATED = "{{- strftime_now('%d %b %Y') + '\\n' }}" + data.chat.CHATML


@pytest.fixture
def on(monkeypatch):
    """Makes every later reading happen on this day."""

    def of(day):
        class Calendar(datetime.date):
            @classmethod
            def today(cls):
                return datetime.date.fromisoformat(day)

        monkeypatch.setattr(text.datetime, "date", Calendar)

    return of


def read(workdir, task, template=None):
    spec = Data(task=task, num_train=4, num_evaluation=2, chat_template=template and str(template))
    tokenizer = Tokenizer(init="train", vocab_size=300)
    return text.read_text(spec, tokenizer, {"target": Target()}, workdir=workdir, seed=0)


@pytest.mark.parametrize("task", ["word_problems", "word_problem_chats"])
def test_no_run_notes_the_day_for_nothing(task, tmp_path, on):
    found = []
    for day in ("2024-02-29", "2024-03-01"):
        on(day)
        directory = tmp_path / day
        read(Workdir(directory), task)
        kept = sorted(file for file in directory.rglob("*.json"))
        found.append({str(file.relative_to(directory)): file.read_text() for file in kept})
    assert found[0] == found[1]


def test_a_template_that_writes_the_day_is_told_the_runs_first(tmp_path, on):
    file = tmp_path / "dated.jinja"
    file.write_text(DATED)
    on("2024-02-29")
    first = read(Workdir(tmp_path / "run"), "word_problem_chats", file)
    assert first.record["chat_date"] == "2024-02-29"
    on("2024-03-01")
    again = read(Workdir(tmp_path / "run"), "word_problem_chats", file)
    assert (again.tokens_sha256, again.record) == (first.tokens_sha256, first.record)
    begun = read(Workdir(tmp_path / "later"), "word_problem_chats", file)
    assert begun.record["chat_date"] == "2024-03-01" and begun.tokens_sha256 != first.tokens_sha256
    assert "01 Mar 2024" in begun.tokenizer.decode(begun.train[0].tokens)

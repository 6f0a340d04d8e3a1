"""How many examples a plan is made for: a file's lines where it is there, else what is said to be assumed."""

import gzip

import pytest

from adaspec_jax.config import Answers, Data
from adaspec_jax.planning.examples import answering, examples_of


@pytest.mark.parametrize("name", ["chat.jsonl", "chat.jsonl.gz"])
def test_the_rows_of_a_file_are_counted_without_those_held_out(tmp_path, name):
    file = tmp_path / name
    content = b"{}\n" * 50 + b"\n \n"
    file.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    spec = {"task": "chat", "train": str(file)}
    assert examples_of(Data(**spec)) == (50, None)
    assert examples_of(Data(**spec, held_out=200)) == (45, None)
    assert examples_of(Data(**spec, held_out=200, evaluation="other.jsonl")) == (50, None)
    assert examples_of(Data(**spec, held_out=2, train_rows="10:40")) == (28, None)


def test_what_is_known_of_a_task_needs_no_file_and_the_rest_is_said_to_be_assumed():
    assert examples_of(Data(task="gsm8k")) == (7473, None)
    assert examples_of(Data(task="word_problems", num_train=12)) == (12, None)
    for spec in (
        Data(task="chat", train="hf:a/b:train"),
        Data(task="gsm8k", train="gone.jsonl"),
        Data(mixture=("gsm8k",)),
    ):
        number, note = examples_of(spec)
        assert number == 4000 and "4,000 are assumed; set --config.data.num_train" in note
        assert (spec.train or "gsm8k") in note


def test_the_target_s_own_answers_are_named_with_their_decoding_steps():
    answers = Answers(source="target", max_new_tokens=100)
    assert "answers 17 rows itself, 8 at a time, in up to 300 decoding steps" in answering(answers, 17, 8)
    assert answering(Answers(), 17, 8) is None

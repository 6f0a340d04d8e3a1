"""A run says what it will do before it does it, by what is there and what the config asks for."""

from types import SimpleNamespace

import jax
import numpy as np

from adaspec_jax import data, models
from adaspec_jax.config import MODEL, Answers, Evaluation, GPTNeoX
from adaspec_jax.data.chat import Conversation
from adaspec_jax.pipeline.intent import in_words

SIZES = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def stage(name, steps, kind=MODEL, epochs=3.0, warmup=3):
    fit = SimpleNamespace(warmup_steps=warmup)
    return SimpleNamespace(name=name, kind=kind, steps=steps, updates=steps, batch_size=8, epochs=epochs, fit=fit)


def test_models_data_steps_and_bytes_are_said_before_a_run_begins(tmp_path):
    architecture = GPTNeoX(**SIZES)
    size = models.build(architecture.hf_config(), jax.random.key(0)).num_params
    rows = [data.Encoded(np.zeros(10, np.int32), 4), data.Encoded(np.zeros(1200, np.int32), 200)]
    start = SimpleNamespace(
        workdir=SimpleNamespace(path=tmp_path),
        text=SimpleNamespace(rows=rows, rows_in_words="examples", held_out=rows * 3),
        stages={
            "target": stage("target", 0, epochs=0.0),
            "reference": stage("reference", 1200),
            "top_0.4": stage("draft", 30, epochs=1.0),
            "qualifier": stage("qualifier", 7),
            "draft": stage("draft", 30, kind="eagle3"),
        },
        finished={"target": None, "reference": {"steps": 1200}, "top_0.4": None, "qualifier": None, "draft": None},
    )
    architectures = {"target": architecture, "draft": architecture, "qualifier": None}
    first, text, target, reference, arm, qualifier, draft, last = in_words(
        start, architectures, Evaluation(), Answers()
    )
    assert first == f"to do in {tmp_path}:"
    assert text == "  data: 2 examples of 1,210 tokens, 1,006 of them labels; 6 prompts to measure on"
    assert target == f"  target: gpt_neox of {size:,} parameters; used as it is"
    assert reference == f"  reference: gpt_neox of {size:,} parameters; finished earlier"
    held, kept = f"{size * 16 / 1024:.3g} KiB", f"{size * 28 / 1024:.3g} KiB"
    assert "; 30 steps of 8 rows (1 epoch); " in arm
    assert arm.endswith(f"{held} of parameters, moments and gradients, up to {kept} on the disk")
    assert qualifier == "  qualifier: a model; 7 steps of 8 rows (3 epochs)"
    assert draft == "  draft: a head of the kind eagle3; 30 steps of 8 rows (3 epochs)"
    assert last == "  then every draft is measured, with 5 guesses a round and up to 128 tokens"


def test_answers_that_the_target_gives_itself_are_part_of_what_is_to_do(tmp_path):
    architecture = GPTNeoX(**SIZES)
    ask, say = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}
    talk = Conversation((ask, say, ask))
    rows = [data.Encoded(np.zeros(10, np.int32), 10)] * 3
    start = SimpleNamespace(
        workdir=SimpleNamespace(path=tmp_path),
        text=SimpleNamespace(rows=rows, train=rows, held_out=rows, examples_of_train=[talk] * 3),
        stages={"target": stage("target", 0, epochs=0.0)},
        finished={"target": None},
    )
    answers = Answers(source="target", temperature=0.0, max_new_tokens=9)
    _, text, _, asked, _ = in_words(start, {"target": architecture}, Evaluation(), answers)
    assert text == "  data: 3 prompts of 30 tokens; 3 prompts to measure on"
    assert (
        asked
        == "  answers: the target answers 6 turns of 3 conversations itself: up to 9 tokens each, the likeliest tokens"
    )
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "000000.npz").touch()
    start.text.examples_of_train = []
    *_, asked, _ = in_words(start, {"target": architecture}, Evaluation(), Answers(source="target"))
    assert asked.startswith(
        "  answers: the target answers 3 prompts itself but for those that it has answered: up to 128"
    )
    assert asked.endswith("drawn at temperature 1")


def test_a_stage_of_which_half_is_warm_up_is_said_to_be_short(tmp_path):
    rows = [data.Encoded(np.zeros(10, np.int32), 4)]
    stages = {"reference": stage("reference", 30, warmup=20), "draft": stage("draft", 40, warmup=20)}
    start = SimpleNamespace(
        workdir=SimpleNamespace(path=tmp_path),
        text=SimpleNamespace(rows=rows, rows_in_words="examples", held_out=rows),
        stages=stages,
        finished=dict.fromkeys(stages),
    )
    *_, note, _ = lines = in_words(start, {"draft": None}, Evaluation(), Answers())
    rises = "  note: reference: the learning rate rises for 20 of 30 updates; "
    assert note == f"{rises}set --config.reference.warmup_steps lower, or give more rows or epochs"
    assert sum("note:" in line for line in lines) == 1
    start.finished["reference"] = {"steps": 30}
    assert not any("note:" in line for line in in_words(start, {"draft": None}, Evaluation(), Answers()))

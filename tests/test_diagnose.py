"""The door: a finished run and a bare pair are diagnosed, and mistakes are one line."""

import dataclasses
import json
import shlex

import pytest

from adaspec_jax.command_line import load_config, parse_experiment
from adaspec_jax.config import Data, Draft, Evaluation, Experiment, GPTNeoX, Reference, Target, Tokenizer, flatten
from adaspec_jax.diagnosis.checks.training import steps
from adaspec_jax.diagnosis.commands import retrain
from adaspec_jax.diagnosis.evidence import Evidence
from adaspec_jax.diagnosis.judge import findings_of, judge
from tests import tiny_pair
from tests.running import command_line

SERVED = [{"prompt": f"Ada has {n} pens and", "answer": f" keeps {n // 2} of them."} for n in range(3)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    place = tmp_path_factory.mktemp("pair")
    tiny_pair.save(place / "target", tiny_pair.LLAMA | {"vocab_size": tiny_pair.TOKENS})
    tiny_pair.save(place / "draft", tiny_pair.GPT_NEOX | {"vocab_size": tiny_pair.TOKENS}, seed=1)
    (place / "served.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in SERVED))
    return place


def _options(pair):
    served = ["--data", pair / "served.jsonl", "--prompt_column", "prompt", "--max_new_tokens", 8]
    return ["--target", pair / "target", "--draft", pair / "draft", *served]


def test_an_untrained_pair_is_said_to_be_one_and_the_json_holds_the_evidence(pair, capsys, monkeypatch):
    status, out, err = command_line(capsys, monkeypatch, "diagnose", *_options(pair), "--json", pair / "out.json")
    assert status == 0, err
    assert "was never trained" in " ".join(out.split()) and "$ python -m adaspec_jax.doctor --target=" in out
    found = json.loads((pair / "out.json").read_text())
    assert found["causes"] == ["tokenizer"] and found["verdict"].startswith("Acceptance is")
    again = Evidence.of_json(found["evidence"])
    assert json.loads(json.dumps(judge(again))) == found
    assert len(findings_of(again)) == len(found["findings"]) >= 13


def test_another_tokenizer_is_named_without_any_model_being_run(pair, tmp_path, capsys, monkeypatch):
    (tmp_path / "draft").mkdir()
    for file in (pair / "draft").iterdir():
        (tmp_path / "draft" / file.name).write_bytes(file.read_bytes())
    tiny_pair.tokenizer([text.replace("Tom", "Zoë") for text in tiny_pair.TEXTS]).save_pretrained(tmp_path / "draft")
    options = ["--target", pair / "target", "--draft", tmp_path / "draft", "--task", "word_problems"]
    status, out, _ = command_line(capsys, monkeypatch, "diagnose", *options)
    assert status == 0 and out.startswith("The likeliest cause is that the draft does not read the target's tokens")


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "--target is missing: give --workdir of a run, or --target and --draft"),
        (["--target", "a"], "--draft is missing"),
        (["--workdir", "a", "--draft", "b"], "--workdir has its own draft"),
        (["--target", "a", "--draft", "b"], "--task is missing"),
        (["--workdir", "a", "--train_data", "b"], "--train_data is of a pair"),
        (["--workdir", "a", "--data", "b"], "say how its rows are read"),
        (["--workdir", "a", "--answer_column", "b"], "--answer_column needs --prompt_column"),
        (["--workdir", "a", "--prompt_column", "b"], "--prompt_column needs a file"),
        (["--workdir", "a", "--guesses", "b"], "--guesses"),
        (["--workdir", "/nowhere"], "no /nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments, said, capsys, monkeypatch):
    status, _, err = command_line(capsys, monkeypatch, "diagnose", *arguments)
    assert status == 2 and said in err and err.count("\n") == 1


def _tiny():
    shape = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = GPTNeoX(**shape, intermediate_size=32, max_position_embeddings=320)
    fit = {"epochs": 1, "batch_size": 4, "lr": 1e-3}
    return Experiment(
        teacher="recompute",
        data=Data(num_train=16, num_evaluation=4, max_length=256, buckets=(256,)),
        tokenizer=Tokenizer(vocab_size=300),
        target=Target(architecture=model, **fit),
        reference=Reference(**fit),
        draft=Draft(architecture=model, **fit),
        evaluation=Evaluation(num_prompts=4, batch_size=4, max_new_tokens=8, resamples=100),
    )


@pytest.mark.slow
def test_a_finished_run_is_diagnosed_and_its_next_run_begins_from_its_own_config(tmp_path, capsys, monkeypatch):
    from adaspec_jax import pipeline
    from adaspec_jax.reporting import read_diagnosis

    run = tmp_path / "run"
    pipeline.run(_tiny(), run)
    assert read_diagnosis(run) is None
    options = ["--workdir", run, "--num_prompts", 4, "--temperature", 0.7]
    status, out, err = command_line(capsys, monkeypatch, "diagnose", *options)
    assert status == 0, err
    kept = read_diagnosis(run)
    assert kept["verdict"] in " ".join(out.split()) and kept["evidence"]["served"]["temperature"] == 0.7
    assert kept["evidence"]["draft"]["steps"] == 4 and kept["evidence"]["trained"]["texts"] == 4
    assert "Why acceptance is what it is" in (run / "report.html").read_text()
    before = (run / "report.html").stat().st_mtime_ns
    pipeline.run(_tiny(), run)  # finds its report as it left it
    assert (run / "report.html").stat().st_mtime_ns == before
    again = load_config(str(run / "again.py"))
    assert flatten(again) == flatten(_tiny())
    evidence = Evidence.of_json(kept["evidence"])
    # Of a budget that makes more of the epochs, those that the config says are doubled.
    assert evidence.draft.epochs > evidence.draft.asked_epochs == _tiny().draft.epochs
    rising = dataclasses.replace(evidence.draft, agreement_half=0.4, agreement_end=0.6)
    found = steps(dataclasses.replace(evidence, draft=rising, recipe=None, held_out=None))
    assert found.verdict == "cause" and "twice the steps would add about 13.3" in found.says
    doubled, _ = parse_experiment(shlex.split(found.command)[2:], description=None)
    assert doubled.draft.epochs == 2 * _tiny().draft.epochs and doubled.reference == _tiny().reference
    command = retrain(evidence, "--config.draft.epochs=2.5")
    config, options = parse_experiment(shlex.split(command)[2:], description=None)
    assert (config.draft.epochs, config.target.epochs, config.target.init) == (2.5, 0, f"{run}/target")
    assert options.workdir == f"{run}-again" and config.draft.architecture == _tiny().draft.architecture

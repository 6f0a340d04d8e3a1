"""The command that says how many guesses pay at each batch size: its report, its table, its picture, its mistakes."""

import json
import re
import shlex

import pytest

from adaspec_jax.measuring import costs
from adaspec_jax.serving.schedules import ranges
from tests import tiny_pair
from tests.running import command_line

SIZES = {"vocab_size": tiny_pair.TOKENS, "max_position_embeddings": 128}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("schedule")
    for seed, name in enumerate(("target", "draft")):
        tiny_pair.save(root / name, tiny_pair.LLAMA | SIZES, seed=seed)
    rows = [json.dumps({"prompt": text}) + "\n" for text in tiny_pair.TEXTS[:4]]
    (root / "prompts.jsonl").write_text("".join(rows))
    return root


def run(capsys, monkeypatch, root, *arguments, draft=True):
    shared = ["--target", root / "target", *(["--draft", root / "draft"] if draft else []), "--num_prompts", 4]
    shared += ["--max_new_tokens", 8]
    return command_line(capsys, monkeypatch, "schedule", *shared, *arguments)


def test_a_schedule_is_measured_checked_written_and_said(root, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "_CALLS", 1)
    monkeypatch.setattr(costs, "_REPEATS", 1)
    files = ["--json", tmp_path / "s.json", "--svg", tmp_path / "s.svg", "--prompts", root / "prompts.jsonl"]
    sizes = ["--batch_sizes", "2,1", "--draft_lengths", "2", "--check"]
    status, out, errors = run(capsys, monkeypatch, root, *files, *sizes)
    assert status == 0, errors
    report = json.loads((tmp_path / "s.json").read_text())
    assert list(report["batch_sizes"]) == ["1", "2"] and report["ranges"][-1][1] == 2
    guesses = {}
    for size, each in report["batch_sizes"].items():
        assert list(each["candidates"]) == ["0", "2"] and 0 <= each["alpha"] <= 1
        rates = {n: c["tokens_per_second"] for n, c in each["candidates"].items()}
        measured = {n: c["measured"]["tokens_per_second"] for n, c in each["candidates"].items()}
        assert str(each["guesses"]) == max(rates, key=rates.get)
        assert str(each["check"]["best"]) == max(measured, key=measured.get)
        assert each["check"]["behind"] == 1 - measured[str(each["guesses"])] / max(measured.values())
        assert each["candidates"]["0"]["measured"]["tokens_per_round"] == each["candidates"]["0"]["speedup"] == 1.0
        two = each["candidates"]["2"]
        assert two["tokens_per_round"] >= two["measured"]["tokens_per_round"]  # an answer's end leaves no room
        parts = each["costs"]
        seconds = parts["first_draft_step"] + parts["draft_step"] + parts["verification"]["2"]
        assert two["seconds_per_round"] == pytest.approx(seconds)
        assert two["tokens_per_second"] == pytest.approx(int(size) * two["tokens_per_round"] / seconds)
        guesses[int(size)] = each["guesses"]
        assert re.search(rf"^{size} .* {each['guesses']} .* %$", out, re.MULTILINE)
    assert report["ranges"] == ranges(guesses)
    picture = (tmp_path / "s.svg").read_text()
    assert picture.count("<rect ") == 4 and picture.count("chosen") == 3 and "http://www.w3.org" in picture
    if report["vllm"]:
        line = next(line for line in out.splitlines() if line.startswith("vLLM: "))
        assert json.loads(shlex.split(line)[2]) == report["vllm"]
        assert report["vllm"]["num_speculative_tokens_per_batch_size"] == report["ranges"]
    else:
        assert "No batch size gains by guesses" in out


PROMPTS = ["--prompts", "{root}/prompts.jsonl"]
MISTAKES = {
    "nothing to measure": ([], "a schedule is measured: give either --prompts FILE or --task NAME"),
    "two sources": ([*PROMPTS, "--task", "gsm8k"], "give either --prompts FILE or --task NAME"),
    "sizes": ([*PROMPTS, "--batch_sizes", "1,many"], "--batch_sizes is many; give a whole number"),
    "no size": ([*PROMPTS, "--batch_sizes", "0,2"], "--batch_sizes is 0; it must be at least 1"),
    "lengths": ([*PROMPTS, "--draft_lengths", "-1"], "--draft_lengths is -1; it must be at least 1"),
    "no directory": ([*PROMPTS, "--json", "{root}/nowhere/s.json"], "there is no such directory"),
    "few prompts": ([*PROMPTS, "--batch_sizes", "1,8"], "4 prompts do not fill a batch of 8: give more of them"),
    "no prompt": ([*PROMPTS, "--num_prompts", "0"], "--num_prompts is 0; it must be at least 1"),
    "long": ([*PROMPTS, "--max_new_tokens", "500", "--batch_sizes", "1"], "lower --max_new_tokens"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(root, capsys, monkeypatch, mistake):
    arguments, says = MISTAKES[mistake]
    status, out, errors = run(capsys, monkeypatch, root, *(part.format(root=root) for part in arguments))
    assert status == 2 and says in errors and errors.count("\n") == 1 and not out


def test_a_schedule_needs_a_draft(root, capsys, monkeypatch):
    status, _, errors = run(capsys, monkeypatch, root, "--prompts", root / "prompts.jsonl", draft=False)
    assert status == 2 and "--draft" in errors and errors.count("\n") == 1

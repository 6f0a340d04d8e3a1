"""The command that searches for a layer set: what it writes is what draft_and_verify takes."""

import importlib.util
import json

import pytest

from tests import tiny_pair
from tests.running import command_line

SIZES = {"vocab_size": tiny_pair.TOKENS, "num_hidden_layers": 3, "max_position_embeddings": 128}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("search")
    tiny_pair.save(root / "target", tiny_pair.LLAMA | SIZES)
    tiny_pair.save(root / "shallow", tiny_pair.LLAMA | SIZES | {"num_hidden_layers": 2})
    rows = [json.dumps({"prompt": text}) + "\n" for text in tiny_pair.TEXTS[:3]]
    (root / "prompts.jsonl").write_text("".join(rows))
    return root


def run(capsys, monkeypatch, root, *arguments, target="target"):
    shared = ["--target", root / target, "--prompts", root / "prompts.jsonl", "--num_prompts", 3]
    shared += ["--max_new_tokens", 8, "--length", 3, "--threshold", 0.1]
    return command_line(capsys, monkeypatch, "search_layers", *shared, *arguments)


def test_a_set_is_found_written_and_taken(root, capsys, monkeypatch, tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed")
    file, journal = tmp_path / "set.json", tmp_path / "set.trials.jsonl"
    status, out, errors = run(capsys, monkeypatch, root, "--out", file, "--trials", 4)
    assert status == 0, errors
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert lines[1]["skipped"] == [2, 3] and len(lines) == 5 and all(line["rate"] >= 0 for line in lines[1:])
    made = json.loads(file.read_text())
    chosen, found = sorted([2 * n for n in made["attention"]] + [2 * n + 1 for n in made["mlp"]]), made["found"]
    assert chosen in [line["skipped"] for line in lines[1:]] and made["num_layers"] == 3 and found["trials"] == 4
    assert found["tokens_per_second"] >= found["default_tokens_per_second"] > 0
    assert out.startswith(f"{file}: after 4 trials the set leaves out {len(made['attention'])} attentions and ")
    assert ("is the default one" in out) == (chosen == [2, 3])
    status, _, errors = run(capsys, monkeypatch, root, "--out", file, "--trials", 6)
    assert (
        status == 0
        and len(journal.read_text().splitlines()) == 7
        and journal.read_text().startswith(json.dumps(lines[0], sort_keys=True))
    )
    status, _, errors = run(capsys, monkeypatch, root, "--out", file, "--trials", 6, "--max_new_tokens", 7)
    assert status == 2 and "is of another search (max_new_tokens, texts_sha256)" in errors and errors.count("\n") == 1
    elsewhere = json.dumps(lines[0] | {"machine": ["Linux aarch64", 64, "cpu"]}) + "\n"
    journal.write_text(elsewhere + "".join(journal.read_text().splitlines(keepends=True)[1:]))
    status, _, errors = run(capsys, monkeypatch, root, "--out", file, "--trials", 7)
    assert status == 2 and "is of another search (machine)" in errors
    shared = ["--target", root / "target", "--prompt", tiny_pair.TEXTS[0], "--max_new_tokens", 8]
    plain = command_line(capsys, monkeypatch, "generate", *shared)[1].splitlines()[0]
    status, out, errors = command_line(
        capsys, monkeypatch, "generate", *shared, "--method", "draft_and_verify", f"--method.layers={file}"
    )
    assert status == 0 and out.splitlines()[0] == plain, errors


MISTAKES = {
    "no prompts": (["--task", "gsm8k"], "give either --prompts FILE or --task NAME"),
    "no trials": (["--trials", 0], "--trials is 0; it must be at least 1"),
    "threshold": (["--threshold", 1], "--threshold is 1; it must be below 1"),
    "unknown option": (["--trails", 4], 'no option --trails; did you mean "--trials"'),
    "no directory": (["--out", "{root}/nowhere/set.json"], "there is no such directory"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(root, capsys, monkeypatch, tmp_path, mistake):
    arguments, says = MISTAKES[mistake]
    arguments = ["--out", tmp_path / "set.json", *(str(part).format(root=root) for part in arguments)]
    status, _, errors = run(capsys, monkeypatch, root, *arguments)
    assert status == 2 and says in errors and errors.count("\n") == 1 and not list(tmp_path.iterdir())


def test_what_it_cannot_do_without_is_named(root, capsys, monkeypatch, tmp_path):
    found = importlib.util.find_spec
    without = [None]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: without[0] if name == "optuna" else found(name))
    status, _, errors = run(capsys, monkeypatch, root, "--out", tmp_path / "set.json")
    assert (status, errors) == (2, "error: the search needs optuna: pip install optuna\n")
    without[0] = "there"
    status, _, errors = run(capsys, monkeypatch, root, "--out", tmp_path / "set.json", target="shallow")
    assert status == 2 and "draft_and_verify needs a target of at least three layers" in errors
    assert errors.count("\n") == 1

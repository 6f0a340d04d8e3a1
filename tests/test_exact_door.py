"""--exact: all methods of a benchmark write plain decoding's text to the bit, and so does generate."""

import json

import pytest

from tests import tiny_pair
from tests.running import command_line

SIZES = {"vocab_size": tiny_pair.TOKENS, "max_position_embeddings": 128}
SHARED = ["--dtype", "bfloat16", "--max_new_tokens", "24"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("exact")
    tiny_pair.save(root / "target", tiny_pair.GPT_NEOX | SIZES)
    rows = [{"prompt": text} for text in tiny_pair.TEXTS[:3]]
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def benchmark(capsys, monkeypatch, root, *arguments):
    shared = ["--target", root / "target", "--prompts", root / "prompts.jsonl", *SHARED, "--batch_size", 3]
    return command_line(capsys, monkeypatch, "benchmark", *shared, *arguments)


def test_every_text_is_that_of_exact_plain_decoding(root, capsys, monkeypatch, tmp_path):
    methods = ["--methods", "prompt_lookup,anpd", "--sweep", "prompt_lookup.length=2", "--sweep", "anpd.length=4"]
    status, out, errors = benchmark(capsys, monkeypatch, root, *methods, "--exact", "--json", tmp_path / "b.json")
    assert status == 0, errors
    report = json.loads((tmp_path / "b.json").read_text())
    assert report["exact"] == 4
    assert set(report["methods"]) == {"plain[exact=4]", "prompt_lookup[length=2]", "anpd[length=4]"}
    for label, m in report["methods"].items():
        assert m["identical_to_plain"] == 3 and m["speedup"] > 0 and m["lossless"] is True, label
        assert len(m["histogram"]) == 5
    assert report["methods"]["plain[exact=4]"]["accepted"] == 0 < report["methods"]["anpd[length=4]"]["accepted"]
    assert report["plain"]["speedup"] == 1.0 and len(report["plain"]["histogram"]) == 1
    assert report["verdict"]["best"] != "plain[exact=4]"
    assert ("--exact 4" in out) == (report["verdict"]["best"] != "plain")


def test_trees_are_refused_by_name_and_skipped_among_all(root, capsys, monkeypatch, tmp_path):
    from adaspec_jax import methods

    arguments = ["--methods", "prompt_lookup,n_grammys", "--exact"]
    status, _, errors = benchmark(capsys, monkeypatch, root, *arguments)
    says = "the method n_grammys with --exact: exact decoding is for chains, and NGrammys guesses a tree"
    assert status == 2 and says in errors and errors.count("\n") == 1
    few = {name: methods.METHODS[name] for name in ("plain", "token_recycling")}
    monkeypatch.setattr("adaspec_jax.methods.table.METHODS", few)
    status, out, errors = benchmark(capsys, monkeypatch, root, "--exact")
    assert status == 0 and "token_recycling: skipped, exact decoding is for chains" in out, errors


def test_generate_writes_the_same_with_and_without_guesses(root, capsys, monkeypatch):
    shared = ["--target", root / "target", "--prompt", tiny_pair.TEXTS[0], *SHARED]
    said = []
    for arguments in (["--exact", 3], ["--method", "anpd", "--method.length=3", "--exact"]):
        status, out, errors = command_line(capsys, monkeypatch, "generate", *shared, *arguments)
        assert status == 0, errors
        said.append(out.rpartition("\n[")[0])
    assert said[0] == said[1] != ""


@pytest.mark.parametrize(
    ("program", "arguments", "says"),
    [
        ("generate", ["--exact", "--temperature", "1"], "--exact is for a text at temperature 0"),
        ("generate", ["--exact", "--chat"], "leave --chat or --temperature out"),
        ("generate", ["--method", "anpd", "--exact", "2"], "guesses 8 tokens; exact=2 is too few"),
        ("generate", ["--method", "token_recycling", "--exact"], "TokenRecycling guesses a tree"),
        ("benchmark", ["--exact", "--temperature", "1"], "--exact is for measuring greedy text"),
    ],
)
def test_what_does_not_go_together_is_one_line(root, capsys, monkeypatch, program, arguments, says):
    prompts = ["--prompts", root / "prompts.jsonl"] if program == "benchmark" else ["--prompt", "Tom"]
    status, _, errors = command_line(
        capsys, monkeypatch, program, "--target", root / "target", *prompts, *SHARED, *arguments
    )
    assert status == 2 and says in errors and errors.count("\n") == 1, errors

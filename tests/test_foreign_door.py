"""A draft with another tokenizer on the command lines: refused with the way, or translated where a method says so."""

import json

import jax
import pytest

from adaspec_jax import data, models
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.pair import load_given, notes_on
from tests import tiny_pair
from tests.running import command_line, some

PROMPT = "Tom has 7 apples and eats"
KNOBS = ["--max_new_tokens", 12, "--draft_length", 3]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("foreign")
    sizes = {"max_position_embeddings": 128, "vocab_size": tiny_pair.TOKENS}
    tiny_pair.save(root / "target", tiny_pair.GPT_NEOX | sizes)
    tiny_pair.save(root / "same", tiny_pair.GPT_NEOX | sizes, seed=1)
    other = data.train_bpe(["An apple a day keeps nobody away.", "Every has and eats"] * 9, vocab_size=290)
    for name, tokenizer in (("draft", other), ("bare", None)):
        rows = tiny_pair.LLAMA | sizes | {"vocab_size": 293}
        models.save(models.build(rows, jax.random.key(2)), root / name, tokenizer=tokenizer)
    (root / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in tiny_pair.TEXTS[:3]))
    return root


def given_of(root, draft, **how):
    return load_given(str(root / "target"), [str(root / draft)], **how)[0]


def test_it_is_loaded_only_where_that_is_asked_for(root):
    with pytest.raises(UserError, match="have different tokenizers: .*, or decode with the method tli or slem$"):
        given_of(root, "draft")
    given = given_of(root, "draft", other_tokenizer=True)
    foreign = given.foreign[str(root / "draft")]
    assert not given.drafts and foreign.model.config.num_tokens == data.rows_needed(data.load_tokenizer(root / "draft"))
    assert foreign.context == 128 and foreign.draft_of_V.shape == (tiny_pair.TOKENS,)
    # Every byte, the end of text, and what both have merged.
    merged = [set(data.load_tokenizer(root / name).get_vocab()) for name in ("target", "draft")]
    assert notes_on(given)[-1].endswith(f"draft: {len(merged[0] & merged[1])} of 270 tokens are the draft's too")
    assert foreign.shared > 257


def test_a_draft_with_the_targets_tokenizer_or_none_is_not_translated(root):
    assert not given_of(root, "same", other_tokenizer=True).foreign
    with pytest.raises(UserError, match="--qualifier .*draft has another tokenizer than the target"):
        given_of(root, "same", other_tokenizer=True, qualifier=str(root / "draft"))
    with pytest.raises(UserError, match="no tokenizer that shows whether its tokens are the target's"):
        given_of(root, "bare", other_tokenizer=True)


@pytest.mark.parametrize("method", some(["tli", "slem"], "slem"))
def test_generate_writes_the_targets_text(root, capsys, monkeypatch, method):
    shared = ["--target", root / "target", "--prompt", PROMPT, *KNOBS]
    status, plain, errors = command_line(capsys, monkeypatch, "generate", *shared)
    assert status == 0, errors
    status, ours, errors = command_line(
        capsys, monkeypatch, "generate", *shared, "--draft", root / "draft", "--method", method
    )
    assert status == 0 and "tokens are the draft's too" in errors, errors
    assert ours.splitlines()[:-1] == plain.splitlines()[:-1] and "acceptance" in ours


def test_generate_says_how_a_draft_may_be_used(root, capsys, monkeypatch):
    shared = ["--target", root / "target", "--prompt", PROMPT, *KNOBS, "--draft"]
    status, _, errors = command_line(capsys, monkeypatch, "generate", *shared, root / "draft")
    assert status == 2 and errors.count("\n") == 1 and "or decode with the method tli or slem" in errors
    status, _, errors = command_line(capsys, monkeypatch, "generate", *shared, root / "same", "--method", "tli")
    needs = "error: the method tli needs a draft with a tokenizer of its own (--draft PATH)"
    assert (status, errors) == (2, f"{needs}; given: {root / 'same'} (a draft model)\n")


def test_a_benchmark_measures_them_beside_others(root, capsys, monkeypatch, tmp_path):
    arguments = ["--target", root / "target", "--draft", root / "draft", "--draft", root / "same", *KNOBS]
    arguments += ["--prompts", root / "prompts.jsonl", "--methods", "vanilla,tli", "--json", tmp_path / "b.json"]
    status, out, errors = command_line(capsys, monkeypatch, "benchmark", *arguments)
    assert status == 0, errors
    report = json.loads((tmp_path / "b.json").read_text())
    assert {name: m["identical_to_plain"] for name, m in report["methods"].items()} == {"vanilla": 3, "tli": 3}
    assert all(m["judged"] > 0 for m in report["methods"].values())
    assert sum("tokens are the draft's too" in note for note in report["notes"]) == 1
    best = report["verdict"]["best"]
    draft = {"vanilla": "same", "tli": "draft"}.get(best)
    assert best == "plain" or f"--draft {root / draft} --method {best}" in out


@pytest.mark.slow
def test_evaluate_measures_one(root, capsys, monkeypatch, tmp_path, few_costs):
    arguments = ["--target", root / "target", "--draft", root / "draft", "--method", "tli", *KNOBS]
    arguments += ["--data", root / "prompts.jsonl", "--prompt_column", "prompt", "--max_length", 64]
    status, _, errors = command_line(capsys, monkeypatch, "evaluate", *arguments, "--json", tmp_path / "e.json")
    assert status == 0, errors
    report = json.loads((tmp_path / "e.json").read_text())
    assert report["drafts"]["draft"]["judged"] > 0 and report["speed"]["draft"]["identical_to_plain"] == 3
    assert report["models"]["draft"] == models.load(str(root / "draft")).num_params

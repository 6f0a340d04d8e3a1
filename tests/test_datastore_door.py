"""python -m adaspec_jax.datastore, and the doors that take what it makes."""

import json

import numpy as np
import pytest

from adaspec_jax import data, retrieval
from adaspec_jax.data.contamination import holding
from tests import tiny_pair
from tests.running import command_line


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("datastore")
    tiny_pair.save(root / "target", tiny_pair.GPT_NEOX | {"vocab_size": tiny_pair.TOKENS})
    tiny_pair.save(root / "other", tiny_pair.GPT_NEOX | {"vocab_size": tiny_pair.TOKENS}, with_tokenizer=False)
    data.train_bpe(["quite another text"], vocab_size=264).save_pretrained(root / "other")
    rows = [{"question": text, "answer": "so be it", "number": 3} for text in tiny_pair.TEXTS]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "held.jsonl").write_text(json.dumps({"prompt": tiny_pair.TEXTS[4].upper()}) + "\n")
    return root


def build(capsys, monkeypatch, *arguments):
    return command_line(capsys, monkeypatch, "datastore", "build", *arguments)


def read(root, folder):
    return retrieval.read_store(folder, tokenizer=data.fingerprint(data.load_tokenizer(root / "target")))


def test_rows_become_texts_without_those_that_hold_an_evaluation_prompt(root, capsys, monkeypatch, tmp_path):
    arguments = ["--data", root / "rows.jsonl", "--tokenizer", root / "target", "--out", tmp_path / "s"]
    status, out, errors = build(capsys, monkeypatch, *arguments, "--held_out", root / "held.jsonl")
    assert (status, errors) == (0, "") and "39 texts (1 left out, which hold one of 1 evaluation prompts)" in out
    store, tokenizer = read(root, tmp_path / "s"), data.load_tokenizer(root / "target")
    texts = [f"{text}\nso be it" for number, text in enumerate(tiny_pair.TEXTS) if number != 4]
    expected = [[*tokenizer(text, add_special_tokens=False)["input_ids"], -1] for text in texts]
    assert store.tokens_T.tolist() == [token for text in expected for token in text]
    assert store.about["removed"] == 1 and store.about["source"]["name"] == "rows.jsonl"


def test_columns_a_number_of_rows_and_plain_text(root, capsys, monkeypatch, tmp_path):
    arguments = ["--data", root / "rows.jsonl", "--tokenizer", root / "target", "--out", tmp_path / "a"]
    status, out, errors = build(capsys, monkeypatch, *arguments, "--columns", "answer", "--num", 2)
    assert (
        status == 0
        and "unchecked" in out
        and errors == ("note: no text was checked for evaluation prompts: give --held_out FILE\n")
    )
    tokenizer = data.load_tokenizer(root / "target")
    answer = tokenizer("so be it", add_special_tokens=False)["input_ids"]
    assert read(root, tmp_path / "a").tokens_T.tolist() == [*answer, -1] * 2
    assert read(root, tmp_path / "a").about["texts"] == 2
    (tmp_path / "plain.txt").write_text("one text\nof two lines")
    arguments = ["--data", tmp_path / "plain.txt", "--tokenizer", root / "target", "--out", tmp_path / "b"]
    assert build(capsys, monkeypatch, *arguments)[0] == 0
    assert tokenizer.decode(read(root, tmp_path / "b").tokens_T[:-1]) == "one text\nof two lines"


def test_a_task_is_checked_against_its_other_splits(root, capsys, monkeypatch, tmp_path):
    arguments = ["--task", "word_problems", "--tokenizer", root / "target", "--num", 20, "--out", tmp_path / "s"]
    status, out, errors = build(capsys, monkeypatch, *arguments)
    assert (status, errors) == (0, "") and "of 800 evaluation prompts" in out
    examples = data.load_examples("word_problems", "train", num=20)
    assert np.sum(read(root, tmp_path / "s").tokens_T == -1) == 20
    assert (
        data.load_tokenizer(root / "target")
        .decode(read(root, tmp_path / "s").tokens_T[:200])
        .startswith(examples[0].prompt[:20])
    )


def test_texts_that_hold_a_prompt_are_found_whatever_its_case_and_spaces():
    texts = ["a b c d e f g h", "x A  b\nC d e f g y", "a b c d e f", "", "g", "word one"]
    assert holding(texts, ["a b c d e f g"]) == {0, 1}
    assert holding(texts, ["a b c d e f g", "one"]) == {0, 1, 5}
    assert holding(texts, ["", "  "]) == set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give --data FILE or --task NAME"),
        (["--data", "nowhere.jsonl"], "there is no such file"),
        (["--task", "gsm9k"], '--task is "gsm9k"; did you mean "gsm8k"'),
        (["--task", "gsm8k", "--columns", "a"], "--columns goes with --data"),
        (["--data", "rows.jsonl", "--columns", "anser"], 'no column "anser"; did you mean "answer"'),
        (["--data", "rows.jsonl", "--num", "0"], "must be at least 1"),
        (["--data", "rows.jsonl", "--out", "target"], "is there already"),
        (["--data", "held.jsonl", "--held_out", "held.jsonl"], "all of the 1 texts hold evaluation prompts"),
    ],
)
def test_mistakes_are_one_line(root, capsys, monkeypatch, arguments, says):
    monkeypatch.chdir(root)
    out = [] if "--out" in arguments else ["--out", "made"]
    status, _, errors = build(capsys, monkeypatch, "--tokenizer", "target", *out, *arguments)
    assert status == 2 and says in errors and errors.count("\n") == 1 and not (root / "made").exists()


def test_rest_copies_from_a_store_and_says_what_it_needs(root, capsys, monkeypatch, tmp_path):
    build(capsys, monkeypatch, "--data", root / "rows.jsonl", "--tokenizer", root / "target", "--out", tmp_path / "s")
    shared = ["--target", root / "target", "--prompt", tiny_pair.TEXTS[0], "--max_new_tokens", 8]
    plain = command_line(capsys, monkeypatch, "generate", *shared)[1].splitlines()[0]
    with_rest = [*shared, "--method", "rest", "--method.choices=8"]
    status, out, errors = command_line(capsys, monkeypatch, "generate", *with_rest, "--datastore", tmp_path / "s")
    assert status == 0 and out.splitlines()[0] == plain, errors
    status, _, errors = command_line(capsys, monkeypatch, "generate", *with_rest)
    assert (status, errors) == (2, "error: the method rest needs a datastore (--datastore DIR)\n")
    status, _, errors = command_line(
        capsys, monkeypatch, "generate", *with_rest, "--method.length=60", "--datastore", tmp_path / "s"
    )
    assert status == 2 and "the method rest[choices=8,length=60]: longest and length are 16 and 60" in errors
    build(capsys, monkeypatch, "--data", root / "rows.jsonl", "--tokenizer", root / "other", "--out", tmp_path / "t")
    status, _, errors = command_line(capsys, monkeypatch, "generate", *with_rest, "--datastore", tmp_path / "t")
    assert status == 2 and "another tokenizer than the target's" in errors

"""Each task's text, splits and columns against independent readings of the real files."""

import gzip
import json

import numpy as np
import pytest

from adaspec_jax.data import encode, load_examples, load_tokenizer, without_shared
from adaspec_jax.errors import UserError

GSM8K = "\nAnswer the above question. First think step by step and then answer the final number.\n"
FILES = {
    "gsm8k": ("train", "gsm8k/train.jsonl.gz"),
    "alpaca": ("train", "alpaca/alpaca_subset.jsonl.gz"),
    "mbpp": ("test", "mbpp/mbpp.jsonl.gz"),
    "cnn_dailymail": ("test", "cnn_dailymail/test_1000.jsonl.gz"),
    "xsum": ("test", "xsum/test_first1000.jsonl.gz"),
}


def by_hand(task, row):
    """Prompt and answer, written down a second time."""
    if task == "gsm8k":
        return row["question"] + GSM8K, "The final answer is: ".join(row["answer"].split("####"))
    if task == "alpaca":
        middle = "\n\n### Instruction:\n" + row["instruction"]
        if row["input"] == "":
            begin = "Below is an instruction that describes a task. Write a response"
            return begin + " that appropriately completes the request." + middle + "\n\n### Response:", row["output"]
        begin = "Below is an instruction that describes a task, paired with an input that provides further context. "
        begin += "Write a response that appropriately completes the request."
        return begin + middle + "\n\n### Input:\n" + row["input"] + "\n\n### Response:", row["output"]
    if task == "mbpp":
        code = "\n".join(row["code"].split("\r\n"))
        return row["text"] + "\nWrite a Python function that solves the above problem.\n", code
    end = {"cnn_dailymail": "in a few sentences", "xsum": "in one sentence"}[task]
    return row["document"] + f"\nSummarize the above article {end}.\n", row["summary"]


@pytest.mark.parametrize("task", FILES)
def test_a_hundred_tokenised_rows_equal_an_independent_implementation(task, shared_data):
    split, file = FILES[task]
    tokenizers = pytest.importorskip("tokenizers")
    folder = shared_data("tokenizers", "gpt_neox_20b")
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    with gzip.open(shared_data(*file.split("/")), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if task == "mbpp":
        rows = [row for row in rows if 10 < row["task_id"] <= 510]
    examples = load_examples(task, split, rows="0:100")
    ours, counts = encode(examples, load_tokenizer(folder), max_length=4096, eos_id=0)
    assert counts["dropped"] == 0 and len(ours) == 100
    for encoded, row in zip(ours, rows, strict=False):
        prompt, answer = (theirs.encode(text, add_special_tokens=False).ids for text in by_hand(task, row))
        expected = [*prompt, *answer, 0][:4096]
        assert encoded.prompt_length == len(prompt) and encoded.tokens.tolist() == expected


def test_mbpp_is_split_by_task_id_and_shares_three_prompts(shared_data):
    shared_data("mbpp")
    splits = {split: load_examples("mbpp", split) for split in ("train", "validation", "test", "prompt")}
    assert {split: len(source) for split, source in splits.items()} == {
        "train": 374,
        "validation": 90,
        "test": 500,
        "prompt": 10,
    }
    kept, removed = without_shared(splits["train"], splits["test"])
    assert removed == 3 and len(kept) == 371
    assert not {e.prompt for e in kept} & {e.prompt for e in splits["test"]}
    assert kept.description["examples_sha256"] != splits["train"].description["examples_sha256"]


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_columns_of_another_source_are_taken_under_our_names(tmp_path):
    file = write(tmp_path / "x.jsonl", [{"article": "a", "highlights": "h", "id": "1"}])
    assert load_examples("cnn_dailymail", "test", path=file)[0].answer == "h"
    file = write(tmp_path / "y.jsonl", [{"article": "a", "summry": "h"}])
    with pytest.raises(UserError, match='line 1: no column "summary"; did you mean "summry"'):
        load_examples("cnn_dailymail", "test", path=file)
    file = write(tmp_path / "z.jsonl", [{"title": "a"}])
    with pytest.raises(UserError, match='line 1: no column "document"; known: title'):
        load_examples("xsum", "test", path=file)


def test_an_alpaca_row_needs_no_input(tmp_path):
    rows = [{"instruction": "i", "output": "o"}, {"instruction": "i", "input": "x", "output": "o"}]
    without, given = load_examples("alpaca", "train", path=write(tmp_path / "a.jsonl", rows))
    assert "### Input" not in without.prompt and "### Input:\nx\n" in given.prompt
    with pytest.raises(UserError, match='alpaca has no split "test".*disjoint rows'):
        load_examples("alpaca", "test")


def test_a_split_s_file_may_say_how_much_of_it_there_is(tmp_path, monkeypatch):
    row = {"document": "d", "summary": "s"}
    write(tmp_path / "xsum" / "test_first1000.jsonl", [row])
    monkeypatch.setenv("ADASPEC_DATA", str(tmp_path))
    assert load_examples("xsum", "test").description["name"] == "test_first1000.jsonl"
    with pytest.raises(UserError, match=r"ADASPEC_DATA has no xsum/train.jsonl\[.gz\], only test_first1000.jsonl"):
        load_examples("xsum", "train", via="file")
    write(tmp_path / "xsum" / "test_rest.jsonl", [row])
    with pytest.raises(UserError, match="several files for xsum test: test_first1000.jsonl, test_rest.jsonl"):
        load_examples("xsum", "test")


def test_a_file_of_all_splits_must_tell_them_apart(tmp_path):
    file = write(tmp_path / "mbpp.jsonl", [{"text": "t", "code": "c", "task_id": 11}, {"text": "t", "code": "c"}])
    with pytest.raises(UserError, match='mbpp.jsonl row 2: no number in column "task_id"'):
        load_examples("mbpp", "test", path=file)
    own = write(tmp_path / "mine.jsonl", [{"text": "t", "code": "c"}])
    assert len(load_examples("mbpp", "test", path=own)) == 1


def test_overlap_beyond_a_percent_is_refused(tmp_path):
    def source(name, prompts):
        rows = [{"q": prompt, "a": "x"} for prompt in prompts]
        return load_examples("columns", path=write(tmp_path / name, rows), prompt_column="q", answer_column="a")

    held_out = source("test.jsonl", [f"asked {i}" for i in range(200)])
    train = source("train.jsonl", [f"taught {i}" for i in range(398)] + ["ASKED  7", "asked 7"])
    kept, removed = without_shared(train, held_out)
    assert removed == 2 and len(kept) == 398 == kept.description["rows"]
    with pytest.raises(UserError, match=r"4 of 5 training rows.*contamination=\"allow\""):
        without_shared(source("few.jsonl", [f"asked {i}" for i in range(4)] + ["taught"]), held_out)
    same, none = without_shared(source("other.jsonl", ["taught"]), held_out)
    assert none == 0 and same.description["rows"] == 1


def test_a_story_goes_on_after_its_first_sentences(shared_data):
    with gzip.open(shared_data("tinystories", "tinystories_1000.json.gz"), "rt", encoding="utf-8") as file:
        stories = json.load(file)
    source = load_examples("tinystories", "train", rows="0:900")
    for example, story in zip(source, stories, strict=False):
        assert example.prompt + example.answer == story.replace("\r\n", "\n").strip()
        assert example.answer[0].isspace() or len(story.split()) < 60
    kept, removed = without_shared(source, load_examples("tinystories", "train", rows="900:1000"))
    assert removed == 0 and len(kept) == 900


def test_a_long_prompt_loses_its_middle_and_keeps_its_instruction(shared_data):
    tokenizer = load_tokenizer(shared_data("tokenizers", "gpt_neox_20b"))
    examples = load_examples("cnn_dailymail", "test", rows="0:50")
    whole, _ = encode(examples, tokenizer, max_length=4096, eos_id=0)
    cut, counts = encode(examples, tokenizer, max_length=256, eos_id=0, max_prompt_length=192)
    assert counts["prompts_cut"] == sum(row.prompt_length > 192 for row in whole) > 40 and counts["dropped"] == 0
    for short, long in zip(cut, whole, strict=True):
        if long.prompt_length > 192:
            np.testing.assert_array_equal(short.prompt, np.r_[long.prompt[:160], long.prompt[-32:]])
        answer = long.tokens[long.prompt_length :]
        np.testing.assert_array_equal(short.tokens[short.prompt_length :], answer[: 256 - short.prompt_length])

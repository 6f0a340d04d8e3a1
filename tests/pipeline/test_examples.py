"""Which examples a run trains on and is measured on: a part held out of one file, and several sources together."""

import json
from collections import Counter

import pytest

from adaspec_jax import data
from adaspec_jax.config import Data
from adaspec_jax.data.contamination import plain
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.examples import held_out_of, split, training_and_held_out


def write(path, prompts):
    path.write_text("".join(json.dumps({"q": prompt, "a": "yes"}) + "\n" for prompt in prompts))
    return str(path)


def columns(**keys):
    return Data(**{"prompt_column": "q", "answer_column": "a", "held_out": 5} | keys)


def prompts(source):
    return [example.prompt for example in source]


def test_a_part_of_one_file_is_held_out_by_seed_and_shares_no_prompt_with_the_rest(tmp_path):
    asked = [f"Question {n // 3}{'?' if n % 2 else '? '}" for n in range(120)]  # each prompt three times
    spec = columns(train=write(tmp_path / "a.jsonl", asked))
    train, held_out, removed = training_and_held_out(spec, 0)
    assert (len(held_out), len(train), removed) == (6, 114, 0)  # whole prompts: two of three rows
    assert not {plain(p) for p in prompts(train)} & {plain(p) for p in prompts(held_out)}
    assert sorted(prompts(train) + prompts(held_out)) == sorted(asked)
    again, other = training_and_held_out(spec, 0), training_and_held_out(spec, 1)
    assert prompts(again[1]) == prompts(held_out) != prompts(other[1])
    assert held_out_of({"data": json.loads(json.dumps(vars(spec) | {"chat": {}})), "seed": 0})[1] == held_out
    assert train.description["examples_sha256"] != held_out.description["examples_sha256"]


def test_at_most_a_tenth_is_held_out_and_too_small_a_file_is_refused(tmp_path):
    spec = columns(train=write(tmp_path / "a.jsonl", map(str, range(30))), held_out=200)
    assert [len(part) for part in training_and_held_out(spec, 0)[:2]] == [27, 3]
    few = columns(train=write(tmp_path / "b.jsonl", map(str, range(9))))
    with pytest.raises(UserError, match="9 rows with 9 prompts, too few to hold some of them out: give another file"):
        training_and_held_out(few, 0)
    file = write(tmp_path / "c.jsonl", ["x"] * 50)
    same = data.load_examples("columns", path=file, prompt_column="q", answer_column="a")
    with pytest.raises(UserError, match="50 rows with 1 prompts"):
        split(same, 5, 0)


def test_parts_of_a_mixture_come_as_often_as_their_weights_say(tmp_path):
    one = write(tmp_path / "one.jsonl", (f"one {n}" for n in range(40)))
    two = write(tmp_path / "two.jsonl", (f"two {n}" for n in range(20)))
    spec = columns(mixture=(one, f"{two}*2.5"), held_out=2)
    train, held_out, _ = training_and_held_out(spec, 0)
    counts = Counter(Counter(prompts(train)).values())
    assert len(held_out) == 4 and [p[:3] for p in prompts(held_out)] == ["one", "two", "one", "two"]
    assert counts == {1: 38, 2: 9, 3: 9} and len(train) == 38 + 45
    assert train.description["kind"] == "mixture" and [p["weight"] for p in train.description["parts"]] == [1, 2.5]
    assert held_out_of({"data": json.loads(json.dumps(vars(spec) | {"chat": {}})), "seed": 0})[1] == held_out


def test_tasks_with_their_own_splits_are_mixed_with_conversations(tmp_path):
    talks = data.load_examples("word_problem_chats", num=30, seed=3)
    file = tmp_path / "chat.jsonl"
    file.write_text("".join(json.dumps({"messages": [dict(t) for t in talk.messages]}) + "\n" for talk in talks))
    spec = Data(task="chat", mixture=("word_problems", str(file)), num_train=50, num_evaluation=10, held_out=3)
    train, held_out, removed = training_and_held_out(spec, 0)
    kinds = Counter(type(example).__name__ for example in train)
    assert kinds == {"Example": 50, "Conversation": 27} and len(held_out) == 13 and removed == 0
    tokenizer = data.train_bpe((t for e in train for t in e.texts), vocab_size=600, chat_template=data.chat.CHATML)
    rows, counts = data.encode(train, tokenizer, max_length=512, eos_id=tokenizer.eos_token_id)
    assert len(rows) == counts["examples"] == 77
    assert [row.labels is None for row in rows] == [isinstance(example, data.Example) for example in train]


@pytest.mark.parametrize("part", ["one*", "one*x", "one*0", "one*-1", "one*inf", "one*nan"])
def test_a_weight_that_is_none_is_said(part):
    with pytest.raises(UserError, match="has no weight above 0"):
        training_and_held_out(columns(mixture=(part,)), 0)

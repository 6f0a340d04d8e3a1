"""Batches hold what a plain loop would put in them, visit every row once an epoch, and resume exactly."""

import json
from collections import Counter

import numpy as np
import pytest

from adaspec_jax.data import (
    Encoded,
    Example,
    encode,
    load_examples,
    load_tokenizer,
    num_steps,
    prompt_batches,
    train_batches,
    train_bpe,
)
from adaspec_jax.errors import UserError

PAD = 99_999  # outside every vocabulary here
KNOBS = {"batch_size": 4, "epochs": 3, "seed": 0, "buckets": (8, 16, 32), "pad_id": PAD}


def rows_of(count, *, longest=32, seed=0):
    """Rows whose first token is their number, so that a batch tells which rows it holds."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        length = int(random.integers(2, longest + 1))
        tokens = np.concatenate([[i], random.integers(1, 100, length - 1)]).astype(np.int32)
        rows.append(Encoded(tokens, int(random.integers(1, length))))
    return rows


def numbers(batches):
    return [int(number) for batch in batches for number in batch["tokens_BT"][:, 0]]


def test_masks_and_tokens_equal_a_plain_loop_on_real_gsm8k(shared_data):
    from tokenizers import Tokenizer

    source = load_examples("gsm8k", "train", path=shared_data("gsm8k", "train.jsonl.gz"), rows="0:100")
    tokenizer = load_tokenizer(shared_data("tokenizers", "gpt_neox_20b"))
    encoded, counts = encode(source, tokenizer, max_length=256, eos_id=0)
    assert (counts["examples"], counts["dropped"]) == (100, 0)

    raw = Tokenizer.from_file(str(shared_data("tokenizers", "gpt_neox_20b", "tokenizer.json")))
    expected = {}
    for example in source:
        prompt, answer = raw.encode(example.prompt).ids, raw.encode(example.answer).ids
        tokens = (prompt + answer + [0])[:256]
        labels = ([0] * len(prompt) + [1] * (len(answer) + 1))[:256]
        expected[tuple(tokens)] = labels
    assert counts["supervised_tokens"] == sum(map(sum, expected.values()))

    seen = 0
    for batch in train_batches(encoded, **KNOBS | {"epochs": 1, "buckets": (128, 192, 256)}):
        assert batch["tokens_BT"].dtype == np.int32 and batch["loss_mask_BT"].dtype == bool
        longest = 0
        for tokens_T, mask_T in zip(batch["tokens_BT"], batch["loss_mask_BT"], strict=True):
            row = [int(token) for token in tokens_T if token != PAD]
            assert [int(label) for label in mask_T] == expected[tuple(row)] + [0] * (len(tokens_T) - len(row))
            longest, seen = max(longest, len(row)), seen + 1
        assert batch["tokens_BT"].shape[1] == min(bucket for bucket in (128, 192, 256) if bucket >= longest)
    assert seen == 100


@pytest.fixture(scope="module")
def small():
    return train_bpe(["one two three four", "one two"] * 3, vocab_size=280)


def test_prompt_and_answer_are_tokenised_apart_and_ended(small):
    ((row,), counts) = encode([Example("one two", "two three")], small, max_length=64, eos_id=7)
    prompt, answer = (small(text)["input_ids"] for text in ("one two", "two three"))
    assert row.tokens.tolist() == [*prompt, *answer, 7] and row.tokens.dtype == np.int32
    assert row.prompt.tolist() == prompt and row.prompt_length == len(prompt)
    assert counts == {
        "examples": 1,
        "dropped": 0,
        "truncated": 0,
        "prompts_cut": 0,
        "tokens": len(row.tokens),
        "supervised_tokens": len(answer) + 1,
    }


def test_long_answers_are_cut_and_long_prompts_dropped(small):
    examples = [Example("a" * 3, "b" * 4), Example("a" * 3, "b" * 5), Example("a" * 7, "b"), Example("a" * 8, "b")]
    rows, counts = encode(examples, small, max_length=8, eos_id=0)
    assert [len(row.tokens) for row in rows] == [8, 8, 8]
    assert [row.tokens[-1] == 0 for row in rows] == [True, False, False]
    assert (counts["dropped"], counts["truncated"], counts["supervised_tokens"]) == (1, 2, 5 + 5 + 1)
    with pytest.raises(UserError, match="none of 4 examples has a prompt shorter than max_length=3"):
        encode(examples, small, max_length=3, eos_id=0)


def test_an_overlong_text_gives_no_warning(shared_data, capfd):
    tokenizer = load_tokenizer(shared_data("tokenizers", "gpt_neox_20b"))
    encode([Example("q", "a b" * 3000)], tokenizer, max_length=32, eos_id=0)
    assert capfd.readouterr() == ("", "")


def test_each_epoch_visits_every_row_once_in_its_own_order():
    order = numbers(train_batches(rows_of(40), **KNOBS))
    epochs = [order[start : start + 40] for start in range(0, 120, 40)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = numbers(train_batches(rows_of(40), **KNOBS | {"seed": 1}))
    assert other[:40] not in epochs and other[40:80] not in epochs
    assert order == numbers(train_batches(rows_of(40), **KNOBS))


@pytest.mark.parametrize("epochs", [1, 2, 3, 0.5, 2.5, 7.5])
@pytest.mark.parametrize("count", [1, 3, 4, 10, 41])
def test_epochs_flow_into_one_another_and_only_the_last_partial_batch_is_dropped(count, epochs):
    steps = num_steps(count, 4, epochs)
    if steps == 0:
        with pytest.raises(UserError, match="do not fill one batch of 4"):
            train_batches(rows_of(count), **KNOBS | {"epochs": epochs})
        return
    batches = list(train_batches(rows_of(count), **KNOBS | {"epochs": epochs}))
    order = numbers(batches)
    assert len(batches) == steps == round(epochs * count) // 4
    whole = len(order) // count * count
    assert set(Counter(order[:whole]).values()) <= {len(order) // count}
    assert set(Counter(order[whole:]).values()) <= {1}


def test_official_and_paper_budgets_take_as_many_steps():
    assert num_steps(7473, 40, 7.5) == num_steps(7473, 16, 3) == 1401
    assert num_steps(7473, 40, 75) == num_steps(7473, 16, 30) == 14011


@pytest.mark.parametrize("stop", [0, 1, 7, 29])
def test_a_resumed_run_equals_an_uninterrupted_one(stop):
    rows = rows_of(40)
    whole = list(train_batches(rows, **KNOBS))
    first = train_batches(rows, **KNOBS)
    for _ in range(stop):
        next(first)
    state = json.loads(json.dumps(first.get_state()))
    assert len(json.dumps(state)) < 100
    resumed = train_batches(rows, **KNOBS)
    next(resumed)
    resumed.set_state(state)
    rest = list(resumed)
    assert len(rest) == 30 - stop
    for left, right in zip(whole[stop:], rest, strict=True):
        np.testing.assert_equal(left, right)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_processes_batches_together_equal_one_process_batch(processes):
    rows = rows_of(41)
    one = list(train_batches(rows, **KNOBS | {"batch_size": 8}))
    shares = [
        list(train_batches(rows, **KNOBS | {"batch_size": 8}, process_index=i, process_count=processes))
        for i in range(processes)
    ]
    assert len(one) == num_steps(41, 8, 3)
    for whole, *parts in zip(one, *shares, strict=True):
        for name, array in whole.items():
            assert {part[name].shape for part in parts} == {(8 // processes, array.shape[1])}
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)


def test_each_batch_has_the_smallest_bucket_that_holds_it():
    shapes = Counter()
    for batch in train_batches(rows_of(200), **KNOBS | {"buckets": (32, 8, 16, 8)}):
        longest = int((batch["tokens_BT"] != PAD).sum(1).max())
        width = batch["tokens_BT"].shape[1]
        assert width == (8 if longest <= 8 else 16 if longest <= 16 else 32)
        assert not batch["loss_mask_BT"][batch["tokens_BT"] == PAD].any() and batch["loss_mask_BT"].any(1).all()
        shapes[width] += 1
    assert set(shapes) <= {8, 16, 32} and len(shapes) > 1


@pytest.mark.parametrize(
    ("knobs", "complaint"),
    [
        ({"buckets": (8, 16)}, r"a row of 32 tokens fits no bucket of \(8, 16\)"),
        ({"buckets": ()}, "buckets must be positive"),
        ({"buckets": (0, 32)}, "buckets must be positive"),
        ({"batch_size": 6, "process_count": 4}, "batch_size 6 does not divide over 4 processes"),
        ({"batch_size": 1000}, "3 epochs of 200 examples do not fill one batch of 1000; lower batch_size"),
        ({"seed": -1}, "the data seed must lie between"),
    ],
)
def test_a_mistake_is_one_line(knobs, complaint):
    with pytest.raises(UserError, match=complaint):
        train_batches(rows_of(200), **KNOBS | knobs)


def test_prompt_batches_keep_the_order_and_say_how_many_rows_count():
    rows = rows_of(11)
    batches = list(prompt_batches(rows, 4, buckets=(8, 32), pad_id=PAD))
    assert [batch["valid"] for batch in batches] == [4, 4, 3]
    np.testing.assert_array_equal(batches[-1]["tokens_BT"][3], batches[-1]["tokens_BT"][2])
    prompts = [
        tokens_T[:length].tolist()
        for batch in batches
        for tokens_T, length in list(zip(batch["tokens_BT"], batch["lengths_B"], strict=True))[: batch["valid"]]
    ]
    assert prompts == [row.prompt.tolist() for row in rows]
    for batch in batches:
        assert batch["tokens_BT"].shape == (4, 8 if batch["lengths_B"].max() <= 8 else 32)
        padding = np.arange(batch["tokens_BT"].shape[1]) >= batch["lengths_B"][:, None]
        assert (batch["tokens_BT"][padding] == PAD).all() and batch["lengths_B"].dtype == np.int32
    with pytest.raises(UserError, match="fits no bucket"):
        next(prompt_batches(rows, 4, buckets=(4,)))
    assert list(prompt_batches([], 4, buckets=(4,))) == []


def test_a_length_window_saves_padding_and_loses_no_row():
    rng = np.random.default_rng(0)
    rows = [Encoded(np.arange(n, dtype=np.int32) + 1, 1) for n in rng.integers(2, 65, size=96)]
    knobs = {"batch_size": 8, "epochs": 2, "seed": 3, "buckets": range(8, 65, 8), "pad_id": 0}
    plain = list(train_batches(rows, **knobs))
    grouped = list(train_batches(rows, **knobs, length_window=6))
    lengths = lambda batches: sorted(int((row > 0).sum()) for batch in batches for row in batch["tokens_BT"])  # noqa: E731
    assert lengths(grouped) == lengths(plain)
    assert sum(b["tokens_BT"].size for b in grouped) < 0.75 * sum(b["tokens_BT"].size for b in plain)
    widths = [b["tokens_BT"].shape[1] for b in grouped]
    assert widths[:6] != sorted(widths[:6])  # not from short to long

    iterator = iter(train_batches(rows, **knobs, length_window=6))
    for _ in range(9):
        next(iterator)
    resumed = train_batches(rows, **knobs, length_window=6)
    resumed.set_state(iterator.get_state())
    for ours, theirs in zip(resumed, grouped[9:], strict=True):
        np.testing.assert_array_equal(ours["tokens_BT"], theirs["tokens_BT"])

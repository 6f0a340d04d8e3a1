"""Conversations as rows: what is cut, left out and counted, and refused beyond a hundredth."""

import datetime

import numpy as np
import pytest

from adaspec_jax import data
from adaspec_jax.data.chat import CHATML, Chat, Labels, read_row, rows_of_answers, template_of
from adaspec_jax.errors import UserError
from tests.data.chat import forms

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


@pytest.fixture(scope="module")
def tokenizer():
    return forms.tokenizer_of("chatml")


def encode(examples, tokenizer, **knobs):
    settings = {"max_length": 4096, "eos_id": tokenizer.eos_token_id} | knobs
    return data.encode(examples, tokenizer, **settings)


def rows_of(number, *bad):
    good = [read_row({"messages": TURNS}, f"F line {n}") for n in range(1, number + 1)]
    return good + [read_row(row, f"F line {number + n}") for n, row in enumerate(bad, 1)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"messages": TURNS[:1]}, "no turn of the assistant's"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": "  "}]}, r"turn 2 \(assistant\) is empty"),
        ({"messages": [{"role": "user", "content": ""}, TURNS[1]]}, r"turn 1 \(user\) is empty"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": "", "name": "x"}]}, r"turn 2 \(assistant\) is empty"),
        ({"messages": [TURNS[0] | {"content": "Hi " * 3000}, TURNS[1]]}, "no label within 4096 tokens"),
    ],
)
def test_what_cannot_be_learnt_is_counted_by_reason_and_refused_past_a_hundredth(tokenizer, bad, reason):
    rows, counts = encode(rows_of(199, bad), tokenizer)
    assert len(rows) == 199 and counts["dropped"] == 1 and list(counts["left_out"].values()) == [1]
    with pytest.raises(UserError, match=f"F line 151: {reason}.*; 2 of 152 conversations cannot be used"):
        encode(rows_of(150, bad, bad), tokenizer)


def test_rows_beyond_a_hundredth_are_named_all_with_how_to_mend_them(tokenizer):
    empty = {"messages": [TURNS[0], {"role": "assistant", "content": ""}]}
    long = {"messages": [TURNS[0] | {"content": "Hi " * 3000}, TURNS[1]]}
    with pytest.raises(UserError) as raised:
        encode(rows_of(50, empty, long, empty), tokenizer)
    said = "3 of 53 conversations cannot be used, for 2 reasons, 2 for this one, and more than 1 % is refused"
    assert str(raised.value).endswith(f"is empty; {said}; mend them, or take them out: F lines 51, 52, 53")


def test_an_answer_that_the_target_gives_itself_may_be_empty_in_the_file(tokenizer):
    bad = {"messages": [*TURNS, TURNS[0], {"role": "assistant", "content": None}, TURNS[0]]}
    rows, counts = data.encode_for_prompts(rows_of(3, bad), tokenizer, max_length=64, eos_id=tokenizer.eos_token_id)
    assert len(rows) == 4 and counts["dropped"] == 0


def test_what_the_template_refuses_is_a_reason_with_its_own_words():
    llama = forms.tokenizer_of("llama2")
    twice = {"messages": [TURNS[0], TURNS[0], TURNS[1]]}
    with pytest.raises(UserError, match="F line 3: .*roles must alternate"):
        encode(rows_of(2, twice), llama)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{% for m in messages %}{{ m.content }}", "no Jinja template: line 1"),
        ("{{ raise_exception('no') }}", "F line 1: no; 3 of 3"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "it calls itself without end"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}"
            "{% endfor %}",
            "F line 1: the chat template does not come to an end",
        ),
        ("{% for m in messages %}{{ m.role ~ m.content }}{% endfor %}", "with an end of text"),
    ],
)
def test_a_template_that_fails_or_never_ends_is_one_line(tmp_path, monkeypatch, tokenizer, source, complaint):
    if "end" in complaint and "range" in source:
        monkeypatch.setattr("adaspec_jax.data.chat.template._SECONDS", 0.5)
    file = tmp_path / "t.jinja"
    file.write_text(source)
    with pytest.raises(UserError, match=complaint) as raised:
        encode(rows_of(3), tokenizer, chat=Chat(template_of(tokenizer, file)))
    assert "\n" not in str(raised.value)


def test_a_tokenizer_without_a_template_asks_for_one(tmp_path):
    plain = data.train_bpe(["one two"] * 3, vocab_size=280)
    with pytest.raises(UserError, match="no chat template: give one as a file"):
        encode(rows_of(1), plain)
    with pytest.raises(UserError, match="cannot be read"):
        template_of(plain, tmp_path / "missing.jinja")
    with pytest.raises(UserError, match="data.chat.options is not JSON"):
        template_of(forms.tokenizer_of("qwen3"), options="{")


def test_a_row_is_cut_and_said_so(tokenizer):
    [row], counts = encode(rows_of(1), tokenizer)
    [cut], cut_counts = encode(rows_of(1), tokenizer, max_length=len(row.tokens) - 2)
    assert counts["truncated"] == 0 and cut_counts["truncated"] == 1
    assert cut.tokens.tolist() == row.tokens.tolist()[:-2] and cut.labels.tolist() == row.labels.tolist()[:-2]


def test_rows_that_are_tokens_already_are_taken_as_they_are(tokenizer):
    row = read_row({"input_ids": [5, 6, 7, 8, 9], "loss_mask": [1, 0, 1, 0, 1]}, "F line 1")
    [encoded], counts = encode([row], tokenizer)
    assert encoded.tokens.tolist() == [5, 6, 7, 8, 9] and encoded.labels.tolist() == [False, False, True, False, True]
    assert encoded.prompt.tolist() == [5, 6] and counts["supervised_tokens"] == 2
    [asked], _ = data.encode_for_prompts([row], tokenizer, max_length=64, eos_id=0)
    assert asked.prompt.tolist() == [5, 6]
    for made in (encode, lambda rows, tokenizer: data.encode_for_prompts(rows, tokenizer, max_length=64, eos_id=0)):
        with pytest.raises(UserError, match="F line 7: the id 99999 is none of the tokenizer's"):
            made([read_row({"input_ids": [1, 99999], "loss_mask": [0, 1]}, "F line 7")], tokenizer)


def test_the_padded_batch_and_the_stores_entries_lie_where_the_labels_are(tokenizer, tmp_path):
    rows, _ = encode(forms.conversations(6), tokenizer)
    length = max(len(row.tokens) for row in rows)
    [(_, batch)] = data.row_batches(rows, range(6), 6, buckets=[length], pad_id=0)
    store = data.TokenStore(tmp_path / "store", rows)
    [block] = store.begin("place", shape=(), dtype=np.int32, origin={})
    store.write("place", block, [np.arange(row.num_labels) + 1 for row in (rows[i] for i in store.blocks[block])])
    place_BT = store.padded(range(6), length)["place"]
    for b, row in enumerate(rows):
        mask_T = batch["loss_mask_BT"][b]
        assert mask_T[: len(row.tokens)].tolist() == row.labels_T.tolist() and not mask_T[len(row.tokens) :].any()
        np.testing.assert_array_equal(place_BT[b, :-1][mask_T[1:]], np.arange(row.num_labels) + 1)
        assert not place_BT[b, :-1][~mask_T[1:]].any()


def test_own_answers_become_one_row_while_each_prompt_goes_on_from_the_last(tokenizer):
    chat = Chat(template_of(tokenizer))
    ends = {9}
    [row] = rows_of_answers([([1, 2], [3, 9]), ([1, 2, 3, 9, 4], [5, 9])], chat, max_length=99, ends=ends)
    assert row.tokens.tolist() == [1, 2, 3, 9, 4, 5, 9] and np.flatnonzero(row.labels).tolist() == [2, 3, 5, 6]
    rows = rows_of_answers([([1, 2], [3, 9]), ([1, 2, 4], [5, 9])], chat, max_length=99, ends=ends)
    assert [row.tokens.tolist() for row in rows] == [[1, 2, 3, 9], [1, 2, 4, 5, 9]]
    for labels, places in (
        (Labels(turns="last"), [[5, 6]]),
        (Labels(turns="each"), [[2, 3], [5, 6]]),
        (Labels(end_of_turn=False), [[2, 5]]),
    ):
        turns = [([1, 2], [3, 9]), ([1, 2, 3, 9, 4], [5, 9])]
        made = rows_of_answers(turns, Chat(chat.template, labels), max_length=99, ends=ends)
        assert [np.flatnonzero(row.labels).tolist() for row in made] == places


def test_a_tokenizer_trained_on_conversations_has_their_marks_and_ends_turns():
    texts = [text for talk in forms.conversations(20) for text in talk.texts]
    made = data.train_bpe(texts, vocab_size=400, chat_template=CHATML)
    assert made.eos_token == "<|im_end|>" and len(made("<|im_start|>")["input_ids"]) == 1
    assert list(data.ends_of_text(made).ids) == [made.convert_tokens_to_ids("<|im_end|>")]
    examples = forms.conversations(10)
    rows, _ = encode(examples, made)
    for row, example in zip(rows, examples, strict=True):
        answers = (turn["content"] for turn in example.messages if turn["role"] == "assistant")
        assert made.decode(row.tokens[row.labels_T]) == "".join(f"{answer}<|im_end|>" for answer in answers)


def test_tokens_know_whose_words_they_are(tokenizer):
    [row], _ = encode([read_row({"messages": [{"role": "system", "content": "S"}, *TURNS]})], tokenizer)
    said = {}
    for token, role in zip(row.tokens, row.roles, strict=True):
        said.setdefault(data.chat.ROLES[role] if role >= 0 else None, []).append(int(token))
    words = {role: tokenizer.decode(ids) for role, ids in said.items()}
    assert words["system"] == "S" and words["user"] == "Hi" and words["assistant"] == "Yo<|im_end|>"


def test_a_template_that_writes_the_date_is_told_the_day_it_is_given(tokenizer, tmp_path):

    file = tmp_path / "t.jinja"
    file.write_text("{{- 'Today: ' + strftime_now('%d %b %Y') + '\\n' }}" + CHATML)
    turns = [{"role": "user", "content": "Hi"}]
    day = datetime.date(2024, 2, 29)
    assert template_of(tokenizer, file, date=day).text(turns).startswith("Today: 29 Feb 2024\n<|im_start|>user")
    today = datetime.date.today().strftime("%Y")
    assert today in template_of(tokenizer, file).text(turns)


def test_a_model_whose_text_does_not_end_where_turns_do_is_said(tokenizer):
    template = template_of(tokenizer)
    assert data.chat.notes_on(template, {tokenizer.eos_token_id}) == []
    [note] = data.chat.notes_on(template, {0})
    assert "closes turns with <|im_end|> (2)" in note


def test_text_that_is_none_is_a_reason_wherever_it_stands():
    qwen, thought = forms.tokenizer_of("qwen3"), {"reasoning_content": "\ud800"}
    with pytest.raises(UserError, match="F line 3: it holds half of a surrogate pair"):
        encode(rows_of(2, {"messages": [TURNS[0], TURNS[1] | thought]}), qwen)


def test_a_tool_call_that_the_template_does_not_show_is_no_answer(tokenizer, tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text(CHATML)  # knows no tools
    call = {"function": {"name": "add", "arguments": {}}}
    calling = {"messages": [TURNS[0], {"role": "assistant", "content": None, "tool_calls": [call]}]}
    with pytest.raises(UserError, match="F line 3: the template shows nothing of a turn.*tool calls"):
        encode(rows_of(2, calling), tokenizer, chat=Chat(template_of(tokenizer, file)))
    rows, _ = encode(rows_of(2, calling), tokenizer)  # by one that does
    assert "add" in tokenizer.decode(rows[-1].tokens[rows[-1].labels_T])


def test_marks_that_make_several_runs_of_a_turn_are_one_turn(tokenizer, tmp_path):
    file = tmp_path / "t.jinja"
    closing = "{{- '<|im_end|>' }}{% endgeneration %}"
    apart = "{% endgeneration %}{{- ' ' }}{% generation %}" + closing
    file.write_text(forms.template("chatml").replace(closing, apart))
    template = template_of(tokenizer, file)
    assert template.marks_answers and data.chat.notes_on(template, {tokenizer.eos_token_id}) == []
    for turns, said in (("every", "Yo<|im_end|>No<|im_end|>"), ("last", "No<|im_end|>")):
        talk = read_row({"messages": [*TURNS, TURNS[0], {"role": "assistant", "content": "No"}]})
        [row], _ = encode([talk], tokenizer, chat=Chat(template, Labels(turns=turns)))
        assert tokenizer.decode(row.tokens[row.labels_T]) == said


def test_only_reasoning_within_a_turn_of_the_assistants_is_left_unlabelled():
    qwen = forms.tokenizer_of("qwen3")
    asked = {"role": "user", "content": "What is <think> for?"}
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nB"}
    talk = read_row({"messages": [asked, TURNS[1], TURNS[0], thought]})
    [row], _ = encode([talk], qwen, chat=Chat(template_of(qwen), Labels(reasoning="unlabelled")))
    assert qwen.decode(row.tokens[row.labels_T]) == "Yo<|im_end|>B<|im_end|>"


def test_kinds_that_alternate_are_each_counted_as_a_whole(tokenizer):
    texts = [data.Example("a" * (5 if n else 500), "b") for n in range(150)]
    mixed = [example for pair in zip(texts, rows_of(150), strict=True) for example in pair]
    rows, counts = data.encode_for_prompts(mixed, tokenizer, max_length=100, eos_id=0)
    assert (len(rows), counts["dropped"], counts["examples"]) == (299, 1, 300)
    assert [row.roles is None for row in rows[:5]] == [False, True, False, True, False]


def test_each_turn_counts_with_its_conversation(tokenizer):
    long = read_row({"messages": [*TURNS, TURNS[0] | {"content": "Hi " * 3000}, TURNS[1]]}, "F line 1")
    rows, counts = encode([long], tokenizer, chat=Chat(template_of(tokenizer), Labels(turns="each")))
    assert len(rows) == 1 and counts["dropped"] == 0


def test_a_tokenizer_of_several_templates_is_written_with_all(tokenizer, tmp_path):
    from adaspec_jax import models

    several = forms.tokenizer_of("chatml")
    several.chat_template = {"default": CHATML, "tool_use": "T" + CHATML}
    models.write_tokenizer(several, tmp_path)
    again = data.load_tokenizer(tmp_path)
    for tools in ((), ({"type": "function", "function": {"name": "add"}},)):
        assert template_of(again).jinja(tools) == template_of(several).jinja(tools)
    several.chat_template = {"a": CHATML, "b": CHATML}
    with pytest.raises(UserError, match="none can be chosen"):
        template_of(several)

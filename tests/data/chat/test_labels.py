"""Labels of conversations: those of transformers' own mask by a template with marks, whether ours has marks or not."""

import dataclasses

import numpy as np
import pytest

from adaspec_jax import data
from adaspec_jax.data.chat import Chat, Labels, Refused, template_of
from adaspec_jax.data.chat.labels import labels_of, rendered
from tests.data.chat import forms

PLAIN = Labels()
CASES = [pytest.param(name, id=name) for name in forms.FORMS]


def by_transformers(name, conversation, **options):
    tokenizer = forms.tokenizer_of(name, marks=True)
    found = tokenizer.apply_chat_template(
        [dict(turn) for turn in conversation.messages],
        tools=list(conversation.tools) or None,
        return_dict=True,
        return_assistant_tokens_mask=True,
        **options,
    )
    return found["input_ids"], found["assistant_masks"]


def ours(tokenizer, conversation, labels=PLAIN, options=None):
    chat = Chat(template_of(tokenizer, options=options), labels)
    ends = {tokenizer.eos_token_id}
    whole = rendered(conversation, chat.template, labels, special=chat.special_ids(ends))
    return whole.ids, labels_of(whole, labels).astype(int).tolist()


def made_for(name, number=200):
    *_, tools = forms.FORMS[name]
    return forms.conversations(number, tools=tools, reasoning=name == "qwen3")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("marks", [False, True], ids=["stock", "with marks"])
def test_ids_and_labels_are_those_of_transformers_row_by_row(name, marks):
    tokenizer, compared = forms.tokenizer_of(name, marks=marks), 0
    for conversation in made_for(name):
        ids, mask = by_transformers(name, conversation)
        assert ours(tokenizer, conversation) == (ids, mask), (conversation, tokenizer.decode(ids))
        compared += sum(mask) > 0
    assert compared == 200


def test_thinking_switched_off_is_part_of_the_prompt():
    tokenizer, empty = forms.tokenizer_of("qwen3"), "<think>\n\n</think>\n\n"
    for conversation in forms.conversations(40):
        ids, mask = ours(tokenizer, conversation, options={"enable_thinking": False})
        first_last = [i for i, label in enumerate(mask) if label and not mask[i - 1]][-1]
        assert tokenizer.decode(ids[:first_last]).endswith(empty) and sum(mask)
        thinking_ids, thinking_mask = ours(tokenizer, conversation)
        assert ids == thinking_ids and sum(thinking_mask) > sum(mask)


@pytest.mark.parametrize("name", CASES)
def test_the_last_turn_alone_and_a_row_for_each_turn(name):
    tokenizer = forms.tokenizer_of(name)
    chat = Chat(template_of(tokenizer), Labels(turns="each"))
    examples = made_for(name, 40)
    rows, counts = data.chat.numbered_rows(examples, chat, max_length=4096, ends=forms.ends_of(tokenizer, name))
    assert counts["examples"] == 40
    assert [number for number, _ in rows] == [n for n, e in enumerate(examples) for _ in e.answered()]
    rows = iter(row for _, row in rows)
    for example in examples:
        ids, every = ours(tokenizer, example)
        assert ours(tokenizer, example, Labels(turns="last"))[0] == ids
        for place in example.answered():
            row = next(rows)
            beginning = dataclasses.replace(example, messages=example.messages[: place + 1])
            prompt = chat.template.prompt_ids(beginning.messages[:-1], example.tools)
            assert row.prompt.tolist() == prompt
            last_ids, last = ours(tokenizer, beginning, Labels(turns="last"))
            assert (row.tokens.tolist(), row.labels_T.astype(int).tolist()) == (last_ids, last)
            runs = np.flatnonzero(np.diff([0, *last, 0]))
            assert len(runs) == 2 and every  # one turn


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("marks", [False, True], ids=["stock", "with marks"])
def test_the_mark_that_closes_a_turn_can_be_left_out(name, marks):
    tokenizer = forms.tokenizer_of(name, marks=marks)
    closing = tokenizer.decode([*forms.ends_of(tokenizer, name)])
    for conversation in made_for(name, 16):
        ids, mask = ours(tokenizer, conversation)
        same, without = ours(tokenizer, conversation, Labels(end_of_turn=False))
        dropped = [tokenizer.decode([ids[i]]) for i in range(len(ids)) if mask[i] and not without[i]]
        assert same == ids and set(dropped) == {closing} and sum(without) == sum(mask) - len(dropped)
        assert len(dropped) == len(conversation.answered())


def test_reasoning_is_kept_dropped_or_left_unlabelled():
    tokenizer = forms.tokenizer_of("qwen3")
    answer = {"role": "assistant", "content": "<think>\nhm\n</think>\n\n4"}
    conversation = data.chat.read_row({"messages": [{"role": "user", "content": "2 + 2?"}, answer]})

    def shown(reasoning):
        ids, mask = ours(tokenizer, conversation, Labels(reasoning=reasoning))
        return tokenizer.decode(ids), tokenizer.decode([i for i, label in zip(ids, mask, strict=True) if label])

    asked = "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    assert shown("keep") == (f"{asked}<think>\nhm\n</think>\n\n4<|im_end|>\n", "<think>\nhm\n</think>\n\n4<|im_end|>")
    assert shown("unlabelled") == (f"{asked}<think>\nhm\n</think>\n\n4<|im_end|>\n", "4<|im_end|>")
    assert shown("drop") == (f"{asked}<think>\n\n</think>\n\n4<|im_end|>\n", "<think>\n\n</think>\n\n4<|im_end|>")


def test_a_mask_of_zeros_is_not_believed():
    tokenizer = forms.tokenizer_of("chatml")
    # Marks that are there for turns of a role that nobody has.
    tokenizer.chat_template = forms.stock(forms.template("chatml")) + (
        "{%- if messages[0].role == 'nobody' %}{% generation %}{{- 'x' }}{% endgeneration %}{%- endif %}"
    )
    assert template_of(tokenizer).marks_answers
    for conversation in forms.conversations(8):
        assert ours(tokenizer, conversation) == by_transformers("chatml", conversation)


def test_a_template_that_rewrites_its_turns_is_refused():
    tokenizer = forms.tokenizer_of("chatml")
    numbered = "{%- for m in messages %}{{- messages|length ~ m.role ~ m.content ~ '<|im_end|>' }}{%- endfor %}"
    tokenizer.chat_template = numbered
    with pytest.raises(Refused, match="a conversation's beginning otherwise"):
        ours(tokenizer, forms.conversations(2)[1])
    loud = "{{- m.role ~ (m.content if loop.last else m.content|upper) ~ '<|im_end|>' }}"
    asking = "{%- if add_generation_prompt %}{{- 'assistant' }}{%- endif %}"
    tokenizer.chat_template = "{%- for m in messages %}" + loud + "{%- endfor %}" + asking
    with pytest.raises(Refused, match="otherwise"):
        ours(tokenizer, forms.conversations(2)[1])

"""Rows of chat data in the forms that files have them in; what no conversation can hold is said with file and line."""

import gzip
import json

import pytest

from adaspec_jax.data import CHAT, load_examples
from adaspec_jax.data.chat import Conversation, Tokenised, read_row
from adaspec_jax.errors import UserError

ASK = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Yo"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_openai_and_sharegpt_rows_are_the_same_conversation():
    openai = read_row({"messages": [{"role": "system", "content": "Be brief."}, ASK, ANSWER]})
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    assert read_row({"conversations": [{"from": "system", "value": "Be brief."}, *turns]}) == openai
    assert read_row({"conversations": turns, "system": "Be brief."}) == openai
    assert read_row({"conversations": openai.messages}) == openai
    assert read_row({"messages": [ANSWER, ASK, ANSWER]}).prompt == "Yo\nHi"  # greetings are alike
    assert openai.prompt == "Be brief.\nHi" and openai.texts == ("Be brief.", "Hi", "Yo")


@pytest.mark.parametrize(
    ("role", "counts"), [("assistant", True), ("gpt", True), ("model", True), ("bot", True), ("user", False)]
)
def test_roles_that_count_as_the_assistants_are_a_choice(role, counts):
    row = {"messages": [ASK, {"role": role, "content": "Yo"}]}
    assert bool(read_row(row, assistants=("bot",)).answered()) == counts
    if role == "bot":
        with pytest.raises(UserError, match=r'messages\[1\] has the role "bot".*data.chat.assistant_roles'):
            read_row(row)


def test_parts_of_text_are_joined_and_other_parts_refused_by_name():
    parts = [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]
    assert read_row({"messages": [{"role": "user", "content": parts}]}).messages[0]["content"] == "One\ntwo"
    image = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
    with pytest.raises(UserError, match=r'F line 3: messages\[0\] holds a part of type "image_url"; only text'):
        read_row({"messages": [{"role": "user", "content": [*parts, image]}]}, "F line 3")


def test_tools_and_their_calls_come_as_objects_whether_the_file_has_text_or_not():
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    for arguments in ({"a": 1}, '{"a": 1}'):
        call = {"id": "x", "type": "function", "function": {"name": "add", "arguments": arguments}}
        calling = {"role": "assistant", "content": None, "tool_calls": [call]}
        turns = [ASK, calling, {"role": "tool", "content": "2"}, ANSWER]
        for tools in ([tool], json.dumps([tool])):
            read = read_row({"messages": turns, "tools": tools})
            assert read.messages[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
            assert read.tools == (tool,) and read.messages[1]["content"] == ""
    assert read.answered() == [1, 3] and read.awaited() == [3]  # what follows a tool's word is to be answered


def test_answers_are_awaited_where_the_file_has_them_in_words_or_goes_on_without():
    assert read_row({"messages": [ASK, ANSWER, ASK]}).awaited() == [1, 3]
    questions = read_row({"question_id": 81, "category": "writing", "turns": ["One?", "Two?"]})
    assert questions.awaited() == [1, 2] and (questions.id, questions.category) == (81, "writing")
    assert read_row({"messages": [ANSWER, ASK, ANSWER]}).awaited() == [2]  # a greeting answers nobody
    assert read_row({"messages": [ANSWER, ASK, ANSWER]}).answered() == [2]
    between = {"role": "system", "content": "Be brief."}
    assert read_row({"messages": [ASK, between, ANSWER]}).awaited() == [2]
    assert read_row({"messages": [ASK, ANSWER, ANSWER, ASK]}).awaited() == [1, 4]  # one answer in two


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"text": "x"}, 'no column "messages", "conversations", "turns" or "input_ids"'),
        ({"message": []}, 'the row has the columns "message"'),
        ({"messages": []}, "must be a list of turns, and not an empty one"),
        ({"messages": "Hi"}, "must be a list of turns"),
        ({"messages": ["Hi"]}, r'messages\[0\] must be an object with "role"'),
        ({"messages": [{"content": "Hi"}]}, "does not say whose turn it is"),
        ({"messages": [{"role": "asistant", "content": "Hi"}]}, 'the role "asistant"; did you mean "assistant"'),
        ({"messages": [{"role": "user", "content": 3}]}, r"messages\[0\] holds a part of type int"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half of a surrogate pair"),
        ({"messages": [ASK, ANSWER | {"tool_calls": [{"function": {}}]}]}, "a tool call without"),
        (
            {"messages": [ASK, ANSWER | {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            'the "arguments" of the tool call f is not JSON',
        ),
        ({"messages": [ASK, ANSWER], "tools": "["}, 'column "tools" is not JSON'),
        ({"messages": [ASK, ANSWER], "tools": ["x"]}, "must be a list of objects"),
        ({"input_ids": [1, 2], "loss_mask": [0]}, '"input_ids" has 2 entries and "loss_mask" 1'),
        ({"input_ids": [1, 2]}, 'column "loss_mask" must be a list of whole numbers'),
        ({"input_ids": [1, 2.5], "loss_mask": [0, 1]}, 'column "input_ids" must be a list of whole numbers'),
        ({"input_ids": [1, -2], "loss_mask": [0, 1]}, "none below 0"),
        ({"input_ids": [1, 2], "loss_mask": [0, 2]}, "must hold 0 and 1 alone"),
    ],
)
def test_what_no_conversation_holds_is_said_with_file_and_line(tmp_path, row, complaint):
    good = {"input_ids": [1, 2], "loss_mask": [0, 1]} if "input_ids" in row else {"messages": [ASK, ANSWER]}
    file = write(tmp_path / "chat.jsonl", good, row)
    with pytest.raises(UserError, match=f"chat.jsonl line 2.*{complaint}"):
        load_examples(CHAT, path=file)


def test_a_file_has_one_form_and_says_where_it_changes(tmp_path):
    tokens = {"input_ids": [1, 2], "loss_mask": [0, 1]}
    with pytest.raises(UserError, match='line 3: this row has "input_ids" and those before it "messages"'):
        load_examples(CHAT, path=write(tmp_path / "a.jsonl", {"messages": [ASK]}, {"messages": [ASK]}, tokens))
    [read] = load_examples(CHAT, path=write(tmp_path / "b.jsonl", tokens))
    assert isinstance(read, Tokenised) and read.ids.tolist() == [1, 2] and read.labels.tolist() == [False, True]


def test_any_file_form_and_the_hub_give_conversations(tmp_path, monkeypatch):
    import sys

    from adaspec_jax.data import network

    rows = [{"messages": [ASK, ANSWER]}] * 3
    (tmp_path / "c.json").write_text(json.dumps(rows))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"\n".join(json.dumps(row).encode() for row in rows)))
    expected = [read_row(rows[0])] * 3

    class Datasets:
        config = type("config", (), {"HF_HUB_OFFLINE": False})

        @staticmethod
        def load_dataset(name, config, *, split):
            return {("a/b", None, "train"): rows, ("a/b", "x", "test"): rows[:1]}[name, config, split]

    monkeypatch.setitem(sys.modules, "datasets", Datasets)
    monkeypatch.setattr(network, "hub_reachable", lambda: False)
    for path in (tmp_path / "c.json", tmp_path / "c.jsonl.gz", "hf:a/b:train"):
        assert list(load_examples(CHAT, path=path)) == expected
    source = load_examples(CHAT, path="hf:a/b:x:test")
    assert len(source) == 1 and source.description["name"] == "a/b:x:test" and isinstance(source[0], Conversation)
    for name, complaint in (("hf:a/b", "write hf:NAME:SPLIT"), ("hf:a/c:train", "no data from hf:a/c:train.*KeyError")):
        with pytest.raises(UserError, match=complaint):
            load_examples(CHAT, path=name)

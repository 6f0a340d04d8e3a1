"""Conversations at the doors: generate --chat, evaluate and benchmark on every turn, and the handle in Python."""

import json

import jax
import numpy as np
import pytest

from adaspec_jax import data, methods, models
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.own_turns import own_turns, turn_prompts
from adaspec_jax.measuring.pair import load_given
from adaspec_jax.measuring.talk import Talk
from tests import tiny_pair
from tests.running import command_line

NEW, WIDTH = 8, 256
SIZES = {"vocab_size": 300, "max_position_embeddings": WIDTH}
QUESTIONS = ["Tom has 3 apples.", "How many does he eat?", "And then?"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("chat")
    made = data.train_bpe(tiny_pair.TEXTS, vocab_size=300, chat_template=data.chat.CHATML)
    ends = {"eos_token_id": made.eos_token_id, "bos_token_id": None}
    for seed, (name, inside) in enumerate({"target": 64, "draft": 32}.items()):
        model = models.build(tiny_pair.GPT_NEOX | SIZES | ends | {"intermediate_size": inside}, jax.random.key(seed))
        models.save(model, root / name, tokenizer=made)
    rows = [{"question_id": 80 + n, "category": "ab"[n % 2], "turns": QUESTIONS[: 1 + n % 3]} for n in range(5)]
    (root / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(scope="module")
def pair(root):
    return load_given(str(root / "target"), [str(root / "draft")], draft_length=3)


def whole(target, tokens, ends, *, temperature=0.0, key=None):
    """What decoding the whole conversation from its start gives."""
    prompt_1S = np.zeros((1, WIDTH - NEW), np.int32)
    prompt_1S[0, : len(tokens)] = tokens
    knobs = {"max_new_tokens": NEW, "sampling": Sampling(temperature), "eos_id": ends}
    prompt = Context(prompt_1S, np.array([len(tokens)]))
    made = generate(target, NoDraft(), prompt, jax.random.key(0) if key is None else key, **knobs)
    return made.tokens_BS[0, len(tokens) : int(made.lengths_B[0])].tolist()


@pytest.mark.parametrize("method", ["plain", "vanilla"])
def test_a_handle_says_what_reading_the_whole_conversation_would_and_reads_less(pair, method):
    given, ends = pair
    template = data.chat.template_of(given.tokenizer)
    talk = Talk(given, methods.find(method), template, ends, system="Be brief.", max_new_tokens=NEW)
    turns = [{"role": "system", "content": "Be brief."}]
    before = 0
    for question in QUESTIONS:
        answer = talk.say(question)
        turns.append({"role": "user", "content": question})
        tokens = template.prompt_ids(turns)
        expected = whole(given.target, tokens, ends)
        said = given.tokenizer.decode(expected, skip_special_tokens=True)
        assert answer.text == said and answer.new_tokens == len(expected)
        turns.append({"role": "assistant", "content": said})
        assert talk.messages == turns
        assert answer.read <= len(tokens) - before  # a random model's bytes may read otherwise as text
        before = len(tokens)
    with pytest.raises(UserError, match="context of 256 tokens.*begin a new conversation"):
        talk.say("apples " * 200)
    assert talk.messages == turns  # as if it had not been said


def test_generate_converses_by_options_or_lines(root, capsys, monkeypatch):
    import io

    asked = ["--target", root / "target", "--chat", "--max_new_tokens", NEW, "--system", "Be brief."]
    turns = [part for question in QUESTIONS[:2] for part in ("--prompt", question)]
    status, plain, errors = command_line(capsys, monkeypatch, "generate", *asked, *turns)
    assert status == 0 and plain.count("user: ") == plain.count("\nassistant: ") == 2, errors
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(QUESTIONS[:2]) + "\n\n"))
    status, lines, _ = command_line(capsys, monkeypatch, "generate", *asked)
    assert (status, lines) == (0, plain)
    status, drafted, _ = command_line(capsys, monkeypatch, "generate", *asked, *turns, "--draft", root / "draft")

    def texts(out):
        return [line for line in out.splitlines() if not line.startswith("[")]

    assert status == 0 and texts(drafted) == texts(plain) and "acceptance" in drafted


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--prompt", "a", "--prompt", "b"], "several are the turns of a conversation, with --chat"),
        (["--prompt", "a", "--system", "b"], "--system goes with --chat"),
        (["--prompt", "a", "--chat_template", "b"], "--chat_template goes with --chat"),
        (["--prompt", " ", "--chat"], "--prompt is empty"),
        (["--prompt", "a", "--chat", "--chat_template", "missing.jinja"], "missing.jinja cannot be read"),
        (["--prompt", "a", "--chat", "--template_options", "{"], "is not JSON"),
    ],
)
def test_mistakes_of_a_conversation_are_one_line(root, capsys, monkeypatch, options, complaint):
    status, _, errors = command_line(capsys, monkeypatch, "generate", "--target", root / "target", *options)
    assert status == 2 and complaint in errors and errors.count("\n") == 1


def test_a_models_own_turns_are_those_of_a_conversation_with_it(root, pair):
    given, ends = pair
    chat = data.chat.Chat(data.chat.template_of(given.tokenizer))
    talks = data.load_examples("chat", path=root / "questions.jsonl").examples
    how = {"max_new_tokens": NEW, "longest": WIDTH - NEW, "sampling": Sampling(0.0), "ends": ends}
    found = own_turns(given.target, talks, chat, rows=8, key=jax.random.key(0), **how)
    for talk, turns in zip(talks, found, strict=True):
        said = []
        for message, turn in zip(talk.messages, turns, strict=True):
            said.append(message)
            assert turn.prompt == chat.template.prompt_ids(said)
            assert turn.answer == whole(given.target, turn.prompt, ends)
            said.append({"role": "assistant", "content": given.tokenizer.decode(turn.answer, skip_special_tokens=True)})
    prompts = turn_prompts(given.target, talks, chat, batch_size=2, key=jax.random.key(0), **how)
    assert [(p.conversation, p.turn, p.tokens) for p in prompts] == [
        (i, n, turn.prompt) for i, turns in enumerate(found) for n, turn in enumerate(turns, 1)
    ]
    short = how | {"longest": len(found[0][0].prompt)}
    cut = own_turns(given.target, talks, chat, rows=8, key=jax.random.key(0), **short)
    assert [len(turns) for turns in cut] == [1] * 5
    silent = data.chat.read_row({"turns": ["Hi", " "]}, "F line 9"), data.chat.read_row({"turns": [" "]}, "F line 8")
    with pytest.raises(UserError, match=r"F line 8: turn 1 \(user\) is empty; 1 of 1"):
        turn_prompts(given.target, silent[1:], chat, batch_size=2, key=jax.random.key(0), **how)
    with pytest.raises(UserError, match="none of 5 conversations has a first turn"):
        turn_prompts(given.target, talks, chat, batch_size=2, key=jax.random.key(0), **how | {"longest": 3})


def test_evaluate_measures_every_turn_and_says_each(root, tmp_path, capsys, monkeypatch):
    out = tmp_path / "o.json"
    status, _, errors = command_line(
        capsys,
        monkeypatch,
        "evaluate",
        *("--target", root / "target", "--draft", root / "draft", "--task", "chat", "--draft_length", 3),
        *("--data", root / "questions.jsonl", "--max_length", WIDTH - NEW, "--max_new_tokens", NEW, "--json", out),
    )
    assert status == 0, errors
    report = json.loads(out.read_text())
    assert {turn: found["prompts"] for turn, found in report["turns"].items()} == {"1": 5, "2": 3, "3": 1}
    whole, parts = report["drafts"]["draft"], report["turns"].values()
    for count in ("accepted", "judged", "rounds"):
        assert sum(part[count] for part in parts) == whole[count]
    assert report["data"]["evaluation"]["turns"] == report["speed"]["draft"]["identical_to_plain"] == 9


def test_benchmark_makes_every_turn_a_request(root, tmp_path, capsys, monkeypatch):
    out = tmp_path / "b.json"
    shared = ("--target", root / "target", "--draft", root / "draft", "--draft_length", 3, "--max_new_tokens", NEW)
    asked = (*shared, "--prompts", root / "questions.jsonl", "--json", out)
    status, _, errors = command_line(capsys, monkeypatch, "benchmark", *asked, "--chat", "--methods", "vanilla")
    assert status == 0, errors
    found = json.loads(out.read_text())["methods"]["vanilla"]
    assert [(row["id"], row["turn"]) for row in found["requests"]][:5] == [(80, 1), (81, 1), (81, 2), (82, 1), (82, 2)]
    assert found["turns"]["1"]["prompts"] == 5 and found["turns"]["3"]["prompts"] == 1
    assert found["identical_to_plain"] == found["prompts"] == 9
    (root / "tokens.jsonl").write_text('{"input_ids": [1, 2], "loss_mask": [0, 1]}\n')
    for options, complaint in (
        (("--task", "gsm8k", "--chat"), "--chat reads conversations from --prompts FILE"),
        (("--prompts", root / "tokens.jsonl", "--chat"), "tokens already"),
        (("--prompts", root / "questions.jsonl", "--chat_template", "x"), "--chat_template goes with --chat"),
    ):
        status, _, errors = command_line(capsys, monkeypatch, "benchmark", *shared, *options, "--methods", "vanilla")
        assert status == 2 and complaint in errors

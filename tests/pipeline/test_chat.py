"""Conversations through the whole run: whose answers are learnt; a stop while they are sampled costs nothing."""

import contextlib
import io
import json
import shlex
import shutil

import jax
import numpy as np
import pytest

from adaspec_jax import data, models, parity, pipeline
from adaspec_jax.config import Answers
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.errors import Stopped, UserError
from adaspec_jax.pipeline import answers
from adaspec_jax.pipeline.workdir import Workdir
from tests.pipeline.test_arms import short
from tests.running import CHECKOUT, command_line

DOC = (CHECKOUT / "docs" / "chat.md").read_text()
ANSWERS = {"max_new_tokens": 12, "temperature": 0.0}


def experiment(**data_keys):
    config = short(answers=Answers(source="target", **ANSWERS))
    config.data.task, config.data.num_train = "word_problem_chats", 32
    config.data.max_length, config.data.buckets = 448, (192, 448)
    config.target.architecture.num_hidden_layers = 3
    for model in (config.target, config.draft):
        model.architecture.max_position_embeddings = 512
    for key, value in data_keys.items():
        setattr(config.data, key, value)
    return config


@pytest.fixture(scope="module")
def finished(few_costs_throughout, tmp_path_factory):
    directory, said = tmp_path_factory.mktemp("chat") / "run", io.StringIO()
    with contextlib.redirect_stdout(said):
        report = pipeline.run(experiment(preview=1), directory)
    (directory / "said").write_text(said.getvalue())
    return directory, report


def sampled_turns(directory):
    """(prompt, answer) of every turn the run has sampled."""
    for file in sorted((directory / "answers").glob("*.npz")):
        with np.load(file) as kept:
            place = 0
            for prompt, answer in zip(kept["prompts"], kept["answers"], strict=True):
                yield kept["tokens"][place : place + prompt], kept["tokens"][place + prompt : place + prompt + answer]
                place += prompt + answer


def test_every_answer_is_the_targets_own_to_the_whole_conversation(finished):
    directory, report = finished
    tokenizer = data.load_tokenizer(directory / "tokenizer")
    target = models.load(directory / "target").with_vocabulary(data.rows_needed(tokenizer))
    assert tokenizer.eos_token == "<|im_end|>" and report["settings"]["eos_id"] == tokenizer.eos_token_id
    turns = list(sampled_turns(directory))
    talks = data.load_examples("word_problem_chats", num=32).examples
    said = report["data"]["answers"]
    assert len(turns) == said["turns"] == said["turns_asked"] == sum(len(talk.awaited()) for talk in talks)
    assert said["rows"] == 32
    for prompt, answer in turns[::3]:
        knobs = {"max_new_tokens": 12, "sampling": Sampling(temperature=0.0), "eos_id": tokenizer.eos_token_id}
        width = 384  # one program for all
        tokens = np.zeros((1, width), np.int32)
        tokens[0, : len(prompt)] = prompt
        made = generate(target, NoDraft(), Context(tokens, np.array([len(prompt)])), jax.random.key(0), **knobs)
        expected = made.tokens_BS[0, len(prompt) : int(made.lengths_B[0])]
        np.testing.assert_array_equal(answer, expected)
    later = [tokenizer.decode(prompt) for prompt, _ in turns if tokenizer.decode(prompt).count("<|im_start|>user") == 2]
    said = [tokenizer.decode(answer).removesuffix("<|im_end|>") for _, answer in turns]
    assert later and all(any(f"assistant\n{words}<|im_end|>" in prompt for words in said) for prompt in later)


def test_a_run_stopped_while_it_samples_goes_on_to_the_same_bits(finished, tmp_path, monkeypatch):
    directory, _ = finished
    resumed = tmp_path / "run"
    shutil.copytree(directory, resumed)
    for name in ("reference", "draft", "answers"):
        shutil.rmtree(resumed / name)
    for file in ("report.json", "report.html"):
        (resumed / file).unlink()
    write, written = answers._write, []

    def stopped(file, **arrays):
        write(file, **arrays)
        written.append(file)
        if len(written) == 2:
            raise Stopped("here")

    monkeypatch.setattr(answers, "_write", stopped)
    with pytest.raises(Stopped):
        pipeline.run(experiment(), resumed)
    monkeypatch.setattr(answers, "_write", lambda file, **arrays: (written.append(file), write(file, **arrays)))
    pipeline.run(experiment(), resumed)
    files = sorted((directory / "answers").glob("*.npz"))
    assert [file.name for file in written] == [file.name for file in files] and len(files) > 2
    for file in files:
        with np.load(file) as one, np.load(resumed / "answers" / file.name) as other:
            assert all(np.array_equal(one[name], other[name]) for name in one)
    for stage in ("reference", "draft"):
        weights = (run / stage / "model.safetensors" for run in (directory, resumed))
        assert len({file.read_bytes() for file in weights}) == 1


def test_the_report_shows_roles_and_the_run_its_first_row(finished):
    directory, _ = finished
    page, said = (directory / "report.html").read_text(), (directory / "said").read_text()
    assert '<div class="prompt">&lt;|im_start|&gt;' in page and " tokens are labels." in page
    assert "&lt;|im_start|&gt;assistant" in page  # whose words come next, as the template has it
    asked, answered = data.load_examples("word_problem_chats", num=32)[0].messages
    begin = f"user\n{asked['content']}<|im_end|>\n<|im_start|>assistant\n⟦"
    assert f"{begin}{answered['content']}<|im_end|>⟧" in said and said.count(begin) == 2  # then the target's own


def test_the_certificate_holds_for_conversations_and_an_export_renders_alike(finished, tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch")
    directory, _ = finished
    found = parity.certificate(directory, num_prompts=2)
    assert found["passed"] and found["identical"]["answers"] == 2 if "identical" in found else found["passed"]
    out = tmp_path / "out"
    status, _, errors = command_line(
        capsys, monkeypatch, "export", "--workdir", directory, "--stage", "draft", "--out", out
    )
    assert status == 0, errors
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(out)
    talk = data.load_examples("word_problem_chats", num=3)[2]
    ours = data.chat.template_of(data.load_tokenizer(directory / "tokenizer"))
    rendered = theirs.apply_chat_template([dict(turn) for turn in talk.messages], tokenize=False)
    assert rendered == ours.text(talk.messages) and rendered.count("<|im_start|>") == 6


@pytest.fixture(scope="module")
def chat_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "chat.jsonl"
    talks = data.load_examples("word_problem_chats", num=60, seed=1)
    file.write_text("".join(json.dumps({"messages": [dict(turn) for turn in talk.messages]}) + "\n" for talk in talks))
    return file


def test_the_three_lines_of_the_page_are_all_that_is_needed(finished, chat_file, tmp_path, capsys, monkeypatch):
    directory, _ = finished
    lines = [
        line.split("python -m adaspec_jax.")[1]
        for line in DOC.splitlines()
        if line.startswith("python -m") and "runs/chat" in line
    ]
    assert [line.split()[0] for line in lines] == ["train", "evaluate", "generate"]
    small = {
        "train": "--config.data.max_length=448 --config.data.buckets=(448,) --config.answers.max_new_tokens=8 "
        "--config.reference.epochs=0.3 --config.draft.epochs=0.2 --config.evaluation.max_new_tokens=8 "
        "--config.evaluation.num_prompts=4 --config.evaluation.resamples=20 --config.teacher=hidden",
        "evaluate": "--max_length=448 --max_new_tokens=8",
        "generate": "--max_new_tokens=8",
    }
    names = {"runs/chat": "run", "chat.jsonl": chat_file, "questions.jsonl": tmp_path / "questions.jsonl"}
    (tmp_path / "questions.jsonl").write_text('{"turns": ["Tom has 3 apples.", "How many are left?"]}\n')
    said = {}
    for line in lines:
        for old, new in (names | {"MODEL": directory / "target"}).items():
            line = line.replace(old, str(new))
        module, *arguments = shlex.split(line.replace("configs/", f"{CHECKOUT}/configs/"))
        monkeypatch.chdir(tmp_path)
        status, out, errors = command_line(capsys, monkeypatch, module, *arguments, *small[module].split())
        assert status == 0, errors
        said[module] = out
    assert "data: 6 of 60 rows are held out, by seed; 200 were asked for, and a tenth is the most" in said["train"]
    assert "user: What does a draft do?" in said["generate"]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["data"]["evaluation"]["rows"] == 6 and report["data"]["train"]["rows"] == 54
    assert report["drafts"]["draft"]["prompts"] == 4 and report["models"]["draft"] < report["models"]["target"]
    assert set(json.loads((tmp_path / "chat.json").read_text())["turns"]) == {"1", "2"}
    # What is held out is found again.
    assert len(parity.held_out(report, data.load_tokenizer(tmp_path / "run" / "tokenizer"))) == 4


def test_bad_chat_data_is_one_line_and_loses_nothing(finished, chat_file, tmp_path, capsys, monkeypatch):
    directory, _ = finished
    bad = tmp_path / "bad.jsonl"
    bad.write_text(chat_file.read_text() + '{"messages": [{"role": "narrator", "content": "x"}]}\n')
    status, _, errors = command_line(
        capsys,
        monkeypatch,
        "train",
        *("--config", CHECKOUT / "configs" / "chat.py", "--workdir", tmp_path / "run"),
        *(f"--config.target.init={directory / 'target'}", f"--config.data.train={bad}"),
    )
    assert status == 2 and errors.count("\n") == 1
    assert f'{bad} line 61: messages[0] has the role "narrator"' in errors


def test_rows_that_are_tokens_already_train_as_the_same_rows_from_text(finished, tmp_path):
    directory, _ = finished
    tokenizer = data.load_tokenizer(directory / "tokenizer")
    knobs = {"max_length": 384, "eos_id": tokenizer.eos_token_id}
    rows, _ = data.encode(data.load_examples("word_problem_chats", num=32), tokenizer, **knobs)
    file = tmp_path / "tokens.jsonl"
    lines = ({"input_ids": row.tokens.tolist(), "loss_mask": row.labels_T.astype(int).tolist()} for row in rows)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again, _ = data.encode(data.load_examples("chat", path=file), tokenizer, **knobs)
    for one, other in zip(rows, again, strict=True):
        assert (one.prompt_length, one.tokens.tolist()) == (other.prompt_length, other.tokens.tolist())
        assert one.labels_T.tolist() == other.labels_T.tolist()
    config = experiment(task="chat", train=str(file), held_out=2)
    config.tokenizer.init, config.target.epochs = str(directory / "tokenizer"), 0
    config.target.init = str(directory / "target")
    with pytest.raises(UserError, match="tokens already, of several turns"):
        pipeline.run(config, tmp_path / "run")


def answered(directory, rows, file):
    """(The config, and prompts with answers) of a run on rows whose questions alone are read."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config, out = experiment(task="chat", train=str(file), held_out=3), file.with_suffix("")
    config.tokenizer.init, config.evaluation.num_prompts = "target", 2
    config.target.init, config.target.epochs = str(directory / "target"), 0
    config.reference.epochs = config.draft.epochs = 0.3
    report = pipeline.run(config, out)
    assert report["data"]["answers"]["turns_refused"] == 0 and report["data"]["train"]["supervised_tokens"] == 0
    return config, sorted((prompt.tolist(), answer.tolist()) for prompt, answer in sampled_turns(out))


def spoken(num):
    talks = data.load_examples("word_problem_chats", num=num, seed=9).examples
    return [[dict(turn) for turn in talk.messages if turn["role"] != "system"] for talk in talks]


def only_questions(talks):
    return [{"turns": [turn["content"] for turn in turns if turn["role"] == "user"]} for turns in talks]


@pytest.mark.slow
def test_nothing_is_read_of_answers_where_the_target_answers(finished, tmp_path):
    directory, talks = finished[0], spoken(30)
    _, with_answers = answered(directory, [{"messages": turns} for turns in talks], tmp_path / "messages.jsonl")
    assert answered(directory, only_questions(talks), tmp_path / "turns.jsonl")[1] == with_answers


def test_questions_are_enough_where_the_target_answers_them(finished, tmp_path):
    config, sampled = answered(finished[0], only_questions(spoken(30)), tmp_path / "turns.jsonl")
    assert len(sampled) > 20
    config.answers.source = "dataset"
    with pytest.raises(UserError, match="turns.jsonl line 1: no turn of the assistant's.*answers.source=target"):
        pipeline.run(config, tmp_path / "dataset")


def test_prompts_alone_are_enough_where_the_target_answers_them(finished, tmp_path):
    directory, _ = finished
    rows = [{"q": talk.messages[0]["content"]} for talk in data.load_examples("word_problem_chats", num=20)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = experiment(task="columns", train=str(tmp_path / "p.jsonl"), prompt_column="q", held_out=2)
    config.tokenizer.init, config.evaluation.num_prompts = "target", 2
    config.target.init, config.target.epochs = str(directory / "target"), 0
    config.reference.epochs = config.draft.epochs = 1
    report = pipeline.run(config, tmp_path / "run")
    assert report["data"]["answers"]["rows"] == 18 and report["data"]["answers"]["supervised_tokens"] >= 18
    config.answers.max_new_tokens = 500
    with pytest.raises(UserError, match="target has a context of 512 tokens.*lower answers.max_new_tokens"):
        pipeline.run(config, tmp_path / "long")


def test_turns_that_the_template_refuses_are_told_from_those_that_are_too_long(finished, tmp_path, capsys):
    directory, _ = finished
    talks = data.load_examples("word_problem_chats", num=40, seed=3).examples
    longest = max(len(talk.awaited()) for talk in talks)
    file, template = tmp_path / "c.jsonl", tmp_path / "t.jinja"
    rows = ({"messages": [dict(turn) for turn in talk.messages]} for talk in talks)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    limit = "{% if messages | length > 2 %}{{ raise_exception('too many turns') }}{% endif %}"
    template.write_text(limit + data.chat.CHATML)
    config = experiment(task="chat", train=str(file), held_out=3, chat_template=str(template))
    config.tokenizer.init, config.evaluation.num_prompts = "target", 2
    config.target.init, config.target.epochs = str(directory / "target"), 0
    config.reference.epochs = config.draft.epochs = 0.3
    found = pipeline.run(config, tmp_path / "run")["data"]["answers"]
    assert longest > 1 and found["turns_refused"] == found["turns_asked"] - found["turns"] > 0
    said = capsys.readouterr().out
    assert f"{found['turns_refused']} of {found['turns_asked']} turns are not asked: the chat template" in said
    assert "c.jsonl line" in said and "too many turns" in said and "longer than data.max_length" not in said


def test_a_finished_run_is_looked_at_again_where_a_file_of_it_changed(finished, tmp_path):
    directory, _ = finished
    files = {name: tmp_path / name for name in ("one.jsonl", "two.jsonl", "t.jinja")}
    for name, seed in (("one.jsonl", 4), ("two.jsonl", 5)):
        talks = data.load_examples("word_problem_chats", num=20, seed=seed)
        lines = (json.dumps({"messages": [dict(turn) for turn in talk.messages]}) for talk in talks)
        files[name].write_text("".join(line + "\n" for line in lines))
    files["t.jinja"].write_text(data.chat.CHATML)
    config = experiment(task="chat", mixture=(str(files["one.jsonl"]), f"{files['two.jsonl']}*2"), held_out=2)
    config.data.chat_template = str(files["t.jinja"])
    config.answers.source, config.tokenizer.init = "dataset", "target"
    config.target.init, config.target.epochs, config.evaluation.num_prompts = str(directory / "target"), 0, 2
    config.reference.epochs = config.draft.epochs = 0.3
    pipeline.run(config, tmp_path / "run")
    run = Workdir(tmp_path / "run")

    def kept():
        return run.finished_report(config.evaluation, config.data, ("target", "reference", "draft"))

    assert kept() is not None
    for file in files.values():
        before = file.read_text()
        file.write_text(before + "\n")
        assert kept() is None, file
        file.write_text(before)
        assert kept() is not None

"""The command that answers questions from passages: its report, going on where it stopped, and mistakes in one line."""

import importlib.util
import json

import pytest

from tests import tiny_pair
from tests.running import command_line

SIZES = {"vocab_size": tiny_pair.TOKENS, "max_position_embeddings": 512}
SHORT = {"draft": "{passages} {question}", "plain": "{passages} {question}", "judged": "{question}"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("rag")
    for seed, name in enumerate(("target", "draft")):
        tiny_pair.save(root / name, tiny_pair.LLAMA | SIZES, seed=seed)
    rows = [{"question": f"What of {n}?", "answers": ["e"], "passages": tiny_pair.TEXTS[n : n + 3]} for n in range(3)]
    (root / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "bare.jsonl").write_text(json.dumps({"question": "zebra?"}) + "\n")
    (root / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in tiny_pair.TEXTS))
    (root / "empty.jsonl").write_text("")
    (root / "short.json").write_text(json.dumps(SHORT))
    return root


def run(capsys, monkeypatch, root, report, *arguments):
    shared = ["--target", root / "target", "--draft", root / "draft", "--questions", root / "questions.jsonl"]
    shared += ["--prompts", root / "short.json", "--max_new_tokens", 4, "--drafts", 2, "--per_draft", 1]
    return command_line(capsys, monkeypatch, "rag", *shared, "--json", report, *arguments)


def test_a_report_is_written_and_gone_on_with(root, capsys, monkeypatch, tmp_path):
    report, journal = tmp_path / "report.json", tmp_path / "report.rows.jsonl"
    status, out, errors = run(capsys, monkeypatch, root, report, "--num_questions", 2)
    assert status == 0, errors
    assert out.startswith("speculative RAG: ") and "over 2 questions with known answers" in out
    first = json.loads(report.read_text())
    assert first["lossless"] is False and first["compile_seconds"] > 0 and len(first["questions"]) == 2
    assert all(one["passages"] != other["passages"] for one, other in (row["drafts"] for row in first["questions"]))
    assert first["summary"]["scored"] == 2 and first["summary"]["speculative_rag"]["seconds"] > 0
    journal.write_text(journal.read_text() + '{"id": 3, "ques')  # cut short
    status, _, errors = run(capsys, monkeypatch, root, report)
    assert status == 0, errors
    second = json.loads(report.read_text())
    assert second["questions"][:2] == first["questions"] and len(second["questions"]) == 3  # their seconds too
    assert second["questions"] == [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    status, _, errors = run(capsys, monkeypatch, root, report, "--seed", 1)
    assert status == 2 and "report.rows.jsonl is of another run (seed); delete it" in errors and errors.count("\n") == 1
    renamed = (json.loads(line) for line in (root / "questions.jsonl").read_text().splitlines())
    rows = [json.dumps(row | {"why": row["question"][::-1]}) + "\n" for row in renamed]
    (tmp_path / "two.jsonl").write_text("".join(rows))
    two = ["--questions", tmp_path / "two.jsonl", "--num_questions", 1]
    status, _, errors = run(capsys, monkeypatch, root, tmp_path / "a.v1", *two)
    assert status == 0 and (tmp_path / "a.v1.rows.jsonl").is_file(), errors
    status, _, errors = run(capsys, monkeypatch, root, tmp_path / "a.v1", *two, "--question_column", "why")
    assert status == 2 and "a.v1.rows.jsonl is of another run (question_column)" in errors


def test_passages_are_found_in_a_corpus(root, capsys, monkeypatch, tmp_path):
    pytest.importorskip("bm25s", reason="bm25s is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    corpus = ["--corpus", root / "corpus.jsonl", "--passages", 4]
    (tmp_path / "asked.jsonl").write_text(json.dumps({"question": "Who eats 18 of 37 apples?"}) + "\n")
    asked = [*corpus, "--questions", tmp_path / "asked.jsonl", "--per_draft", 2]
    status, out, errors = run(capsys, monkeypatch, root, tmp_path / "r.json", *asked)
    assert status == 0 and "right answers" not in out, errors
    [row] = json.loads((tmp_path / "r.json").read_text())["questions"]
    assert row["passages"][0] == tiny_pair.TEXTS[37] and len(row["passages"]) == 4
    assert all(len(each["passages"]) == 2 for each in row["drafts"])


MISTAKES = {
    "no file": (["--questions", "{root}/nowhere.jsonl"], "--questions {root}/nowhere.jsonl: there is no such file"),
    "no question": (["--question_column", "q"], 'questions.jsonl line 1: no column "q"'),
    "no passages": (["--questions", "{root}/bare.jsonl"], 'bare.jsonl line 1: 0 passages for "zebra?"'),
    "too few": (["--per_draft", 4], "line 1: 3 passages for"),
    "no drafts": (["--drafts", 0], "--drafts is 0; it must be at least 1"),
    "no factor": (["--factors", "beauty"], '--factors is "beauty"; give some of draft,consistency,reflection'),
    "no template": (["--prompts", "{root}/questions.jsonl"], "is not valid JSON"),
    "no chat": (["--chat"], "the tokenizer has no chat template"),
    "template alone": (["--chat_template", "x"], "--chat_template goes with --chat"),
    "too long": (["--max_new_tokens", 500], "line 1: the draft has a context of 512 tokens"),
    "empty corpus": (["--corpus", "{root}/empty.jsonl"], "empty.jsonl: no rows in it"),
    "nothing found": (
        ["--corpus", "{root}/corpus.jsonl", "--questions", "{root}/bare.jsonl"],
        "ask for what the corpus",
    ),
    "no directory": (["--json", "{root}/nowhere/r.json"], "there is no such directory"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(root, capsys, monkeypatch, tmp_path, mistake):
    arguments, says = MISTAKES[mistake]
    arguments, says = [str(part).format(root=root) for part in arguments], says.format(root=root)
    if "--corpus" in arguments:
        pytest.importorskip("bm25s", reason="bm25s is not installed")
    if mistake == "too few":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    status, _, errors = run(capsys, monkeypatch, root, tmp_path / "r.json", *arguments)
    assert status == 2 and says in errors and errors.count("\n") == 1 and not list(tmp_path.iterdir())


def test_what_it_cannot_do_without_is_named(root, capsys, monkeypatch, tmp_path):
    found, missing = importlib.util.find_spec, ("bm25s", "sklearn")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in missing else found(name))
    arguments = ["--corpus", root / "corpus.jsonl", "--per_draft", 2]
    status, _, errors = run(capsys, monkeypatch, root, tmp_path / "r.json", *arguments)
    words = "passages are found and sorted by scikit-learn and bm25s"
    assert (status, errors) == (2, f"error: {words}: pip install scikit-learn bm25s\n")

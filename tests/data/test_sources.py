"""Examples come from the first place that has them, in the task's exact format, and say where they came from."""

import dataclasses
import json
import subprocess
import sys

import pytest

from adaspec_jax.data import TASKS, Example, columns_task, load_examples, network, sources
from adaspec_jax.errors import UserError

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)


@pytest.fixture
def no_data(monkeypatch):
    monkeypatch.delenv("ADASPEC_DATA", raising=False)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(sources, "reachable", lambda url: False)
    monkeypatch.setattr(network, "hub_reachable", lambda: False)
    monkeypatch.setitem(sys.modules, "datasets", None)


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_gsm8k_has_the_strings_of_the_released_code(shared_data):
    source = load_examples("gsm8k", "train", path=shared_data("gsm8k", "train.jsonl.gz"))
    assert len(source) == 7473
    assert source[0] == Example(
        prompt=QUESTION + "\nAnswer the above question. First think step by step and then answer the final number.\n",
        answer="Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = <<48+24=72>>72 clips altogether "
        "in April and May.\nThe final answer is:  72",
    )
    assert not any("####" in example.answer for example in source)


def test_a_source_says_where_it_came_from(shared_data):
    source = load_examples("gsm8k", "test", path=shared_data("gsm8k", "test.jsonl.gz"), rows="0:800")
    description = dict(source.description)
    assert len(description.pop("examples_sha256")) == 64
    assert description == {
        "task": "gsm8k",
        "split": "test",
        "kind": "file",
        "name": "test.jsonl.gz",
        "rows": 800,
        "rows_available": 1319,
        "slice": "0:800",
        "seed": None,
        "content_sha256": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
    }
    json.dumps(source.description)


def test_word_problems_need_no_data_and_share_gsm8k_s_format(no_data):
    source = load_examples("word_problems", "validation", num=30, seed=5)
    assert len(source) == 30 and source.description["kind"] == "generated" and source.description["seed"] == 5
    for example in source:
        assert example.prompt.endswith("?\nAnswer the above question. First think step by step and then answer the "
                                       "final number.\n")  # fmt: skip
        assert "\nThe final answer is:  " in example.answer and "####" not in example.answer


def test_a_path_comes_before_the_generator_and_a_file_before_the_network(tmp_path, monkeypatch, no_network):
    row = {"question": "q", "answer": "a"}
    file = write(tmp_path / "mine.jsonl", [row])
    assert load_examples("word_problems", "train", path=file).description["kind"] == "file"
    write(tmp_path / "data" / "gsm8k" / "test.jsonl", [row, row])
    monkeypatch.setenv("ADASPEC_DATA", str(tmp_path / "data"))
    assert len(load_examples("gsm8k", "test")) == 2
    with pytest.raises(UserError, match=r"ADASPEC_DATA has no gsm8k/train.jsonl"):
        load_examples("gsm8k", "train")


def test_a_directory_holds_a_file_per_split(tmp_path):
    write(tmp_path / "train.jsonl", [{"question": "q", "answer": "a"}])
    assert len(load_examples("gsm8k", "train", path=tmp_path)) == 1
    with pytest.raises(UserError, match=r"has no test.jsonl \(or .jsonl.gz, .json\); it has: train.jsonl"):
        load_examples("gsm8k", "test", path=tmp_path)


def test_two_column_names_make_any_file_a_task(tmp_path):
    file = write(tmp_path / "mine.jsonl", [{"in": "1 #### 2", "out": "3 #### 4", "id": 7}])
    source = load_examples("gsm8k", "train", path=file, prompt_column="in", answer_column="out")
    assert list(source) == [Example("1 #### 2", "3 #### 4")]
    assert list(load_examples(columns_task("in", "out"), path=str(file))) == list(source)
    with pytest.raises(UserError, match=r'mine.jsonl line 1: no column "output"; did you mean "out"'):
        load_examples("gsm8k", path=file, prompt_column="in", answer_column="output")
    assert list(load_examples("gsm8k", path=file, prompt_column="in")) == [Example("1 #### 2", "")]
    with pytest.raises(UserError, match="answer_column needs a prompt_column"):
        load_examples("gsm8k", path=file, answer_column="out")
    with pytest.raises(UserError, match="needs a data file"):
        load_examples("gsm8k", prompt_column="in", answer_column="out")


@pytest.mark.parametrize(
    ("rows", "num", "kept"),
    [
        (None, None, range(0, 10)),
        ("2:5", None, range(2, 5)),
        ("7:", None, range(7, 10)),
        (":3", None, range(0, 3)),
        ("8:99", None, range(8, 10)),
        (None, 4, range(0, 4)),
        ("3:", 2, range(3, 5)),
    ],
)
def test_a_slice_and_a_number_keep_part_of_the_rows(tmp_path, rows, num, kept):
    file = write(tmp_path / "mine.jsonl", [{"question": f"q{i}", "answer": "a"} for i in range(10)])
    source = load_examples(columns_task("question", "answer"), path=file, rows=rows, num=num)
    assert [example.prompt for example in source] == [f"q{i}" for i in kept]
    assert source.description["rows"] == len(kept) and source.description["rows_available"] == 10


@pytest.mark.parametrize("rows", ["0:8", "5:8", ":8"])
def test_a_slice_of_a_generated_task_is_a_slice_of_one_sequence(rows):
    first, last = (int(bound or 0) for bound in rows.split(":"))
    assert (
        list(load_examples("word_problems", "test", rows=rows))
        == list(load_examples("word_problems", "test", num=20))[first:last]
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"task": "gsm8"}, 'there is no task "gsm8"; did you mean "gsm8k"'),
        ({"task": "word_problems", "split": "tests"}, 'no split "tests"; did you mean "test"'),
        ({"task": "gsm8k", "split": "validation"}, 'gsm8k has no split "validation"'),
        ({"task": "gsm8k", "path": "nowhere.jsonl"}, "there is no data file nowhere.jsonl"),
        ({"task": "word_problems", "rows": "0-8"}, r'rows="0-8" is not a slice'),
        ({"task": "word_problems", "rows": "5:5"}, "keeps nothing of the 5 rows"),
        ({"task": "word_problems", "num": 0}, "num must be at least 1"),
        ({"task": "word_problems", "via": "tdfs"}, 'did you mean "tfds"'),
        ({"task": "word_problems", "via": "tfds"}, "no data for word_problems train: it has no tfds source"),
        ({"task": "word_problems", "via": "hf", "path": "x.jsonl"}, "does not read a path"),
    ],
)
def test_a_mistake_is_one_line(arguments, complaint, no_network):
    with pytest.raises(UserError, match=complaint) as error:
        load_examples(**arguments)
    assert "\n" not in str(error.value)


def test_a_malformed_file_is_an_error_and_not_a_reason_to_look_elsewhere(tmp_path, monkeypatch, no_network):
    write(tmp_path / "gsm8k" / "test.jsonl", [{"question": "q"}])
    monkeypatch.setenv("ADASPEC_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r'test.jsonl line 1: no column "answer"'):
        load_examples("gsm8k", "test")


def test_where_nothing_has_the_data_one_line_says_what_was_tried_and_how_to_mend_it(no_data, no_network):
    with pytest.raises(UserError) as error:
        load_examples("gsm8k", "train")
    message = str(error.value)
    for tried in (
        "ADASPEC_DATA is not set",
        "tensorflow-datasets gsm8k failed",
        "cannot be reached",
        "pip install datasets",
        "Mend it",
    ):
        assert tried in message
    assert "\n" not in message


def test_hugging_face_rows_are_read_and_checked(monkeypatch, no_data):
    class Datasets:
        config = type("config", (), {"HF_HUB_OFFLINE": False})
        rows = [{"question": "q", "answer": "a #### 1", "extra": 3}]

        @classmethod
        def load_dataset(cls, name, config, *, split):
            assert (name, config, split) == ("openai/gsm8k", "main", "test") and cls.config.HF_HUB_OFFLINE
            return cls.rows

    monkeypatch.setitem(sys.modules, "datasets", Datasets)
    monkeypatch.setattr(network, "hub_reachable", lambda: False)
    source = load_examples("gsm8k", "test", via="hf")
    assert source[0].answer == "a The final answer is:  1"
    assert (source.description["kind"], source.description["name"]) == ("hf", "openai/gsm8k")
    assert not Datasets.config.HF_HUB_OFFLINE
    Datasets.rows = [{"question": "q", "answer": None}]
    with pytest.raises(UserError, match='gsm8k row 1: column "answer" must be text, not null'):
        load_examples("gsm8k", "test", via="hf")


def test_a_task_is_one_table_row():
    for name, task in TASKS.items():
        assert task.name == name and bool(task.columns) != bool(task.form_of) and bool(task.splits) == (name != "chat")
    other = dataclasses.replace(TASKS["gsm8k"], name="other", files=("{split}_500",))
    assert sources._file_names(other, "test")[:2] == ["test_500.jsonl", "test_500.jsonl.gz"]


def test_importing_the_room_imports_no_heavy_library():
    heavy = ["jax", "grain", "transformers", "tokenizers", "tensorflow_datasets", "datasets", "tensorflow"]
    code = f"import sys, adaspec_jax.data; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

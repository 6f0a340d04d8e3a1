"""A malformed file is refused with its name, the line and the column."""

import gzip
import hashlib
import json

import pytest

from adaspec_jax import files
from adaspec_jax.data import load_examples
from adaspec_jax.data.rows import read_rows
from adaspec_jax.errors import UserError

GOOD = b'{"question": "q", "answer": "a"}\n'
COLUMNS = ("question", "answer")


def write(folder, content: bytes, name: str = "rows.jsonl"):
    file = folder / name
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (b'{"question": "q", "answer": }\n', "line 3: not JSON (Expecting value at character 29)"),
        (b'{"question": "q", "ans', "line 3: not JSON"),
        (b"[1, 2]\n", "line 3: a row must be a JSON object, not a list"),
        (b"null\n", "line 3: a row must be a JSON object, not null"),
        (b'{"question": "q", "anwser": "a"}\n', 'line 3: no column "answer"; did you mean "anwser"?'),
        (b"{}\n", 'line 3: no column "question"'),
        (b'{"question": "q", "answer": 72}\n', 'line 3: column "answer" must be text, not a number'),
        (b'{"question": null, "answer": "a"}\n', 'line 3: column "question" must be text, not null'),
        (b'{"question": ["q"], "answer": "a"}\n', 'line 3: column "question" must be text, not a list'),
        (b'{"question": {"q": 1}, "answer": "a"}\n', 'line 3: column "question" must be text, not an object'),
        (b'{"question": "q", "answer": true}\n', 'line 3: column "answer" must be text, not true or false'),
        (b'{"question": "q", "answer": ""}\n', 'line 3: column "answer" is empty'),
        (b'{"question": " \\n", "answer": "a"}\n', 'line 3: column "question" is empty'),
        (b'{"question": "caf\xe9", "answer": "a"}\n', "line 3: not UTF-8 (byte 18"),
        (b'{"question": "\\ud83d", "answer": "a"}\n', 'line 3: column "question" holds half of a surrogate pair'),
        (b"[" * 100_000 + b"\n", "line 3: not JSON"),
        (b'{"question": "q", "answer": ' + b"9" * 5000 + b"}\n", "line 3: not JSON that can be read"),
    ],
)
def test_a_bad_line_is_named_with_file_line_and_column(tmp_path, bad, complaint):
    file = write(tmp_path, GOOD * 2 + bad + GOOD)
    with pytest.raises(UserError) as error:
        read_rows(file, COLUMNS)
    assert str(error.value).startswith(f"{file} ") and complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_all_bad_lines_are_named_at_once(tmp_path):
    bad = [b"{\n", b'{"question": "q"}\n', b'{"question": "caf\xe9", "answer": "a"}\n', b"7\n"]
    file = write(tmp_path, GOOD + GOOD.join(bad))
    with pytest.raises(
        UserError, match=f"^{file} line 2: not JSON .*; 4 rows cannot be read: {file} lines 2, 4, 6, 8$"
    ):
        read_rows(file, COLUMNS)
    with pytest.raises(UserError, match=r"lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 20 more$"):
        read_rows(write(tmp_path, b"{\n" * 30 + GOOD), COLUMNS)
    with pytest.raises(UserError, match="1000 rows and maybe more cannot be read"):
        read_rows(write(tmp_path, GOOD + b"{\n" * 3000), COLUMNS)
    with pytest.raises(UserError, match="line 1: not JSON .*; nor can any other row be read$"):
        read_rows(write(tmp_path, b"{\n" * 3000), COLUMNS)


def test_conversations_that_are_taken_for_columns_are_known_for_what_they_are(tmp_path):
    with pytest.raises(UserError, match='no column "question"; the row has "messages": the task chat reads'):
        read_rows(write(tmp_path, b'{"messages": []}\n' * 2), COLUMNS)


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl"])
def test_a_truncated_gzip_is_named(tmp_path, name):
    packed = gzip.compress(b"".join(b'{"question": "q%d", "answer": "a"}\n' % i for i in range(5000)))
    file = write(tmp_path, packed[: len(packed) // 2], name)
    with pytest.raises(UserError, match=r"rows.jsonl.* line \d+: the gzip file is cut short or damaged"):
        read_rows(file, COLUMNS)


def test_a_damaged_gzip_is_named(tmp_path):
    packed = bytearray(gzip.compress(GOOD * 1000))
    packed[20:30] = b"\xff" * 10
    with pytest.raises(UserError, match="cut short or damaged"):
        read_rows(write(tmp_path, bytes(packed), "rows.jsonl.gz"), COLUMNS)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("rows.jsonl", b"", "no rows in it"),
        ("rows.jsonl", b"\n \n\n", "no rows in it"),
        ("rows.jsonl.gz", gzip.compress(b"", mtime=0), "no rows in it"),
        ("rows.json", b"[]", "no rows in it"),
        ("rows.json", b"", "no rows in it"),
        ("rows.json", b'{"question": "q"}', "must hold one list of rows, not an object; or name it .jsonl"),
        ("rows.json", b'[{"question": "q", "answer": "a"},\n {"question": "q"}]', 'row 2: no column "answer"'),
        ("rows.json", b'[{"question": "q",\n "answer": x}]', "not JSON (Expecting value at line 2 character 12)"),
        ("rows.csv", b"question,answer\n", "must end in one of .jsonl"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, complaint):
    with pytest.raises(UserError) as error:
        read_rows(write(tmp_path, content, name), COLUMNS)
    assert name in str(error.value) and complaint in str(error.value)


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UserError, match="folder.jsonl: cannot be read"):
        read_rows(tmp_path / "folder.jsonl", COLUMNS)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_rows_and_digest_do_not_depend_on_packing_nor_on_what_the_name_says_of_it(tmp_path, name, pack):
    file = write(tmp_path, pack(GOOD), name)
    rows, sha256 = read_rows(file, COLUMNS)
    assert rows == [json.loads(GOOD)]
    assert sha256 == files.sha256(file, unpacked=True) == hashlib.sha256(GOOD).hexdigest()


def test_what_editors_and_other_systems_write_is_read(tmp_path):
    row = '{"question": "caf\u00e9 \\u2028 \u2028 x", "answer": "\u6f22", "more": 1}'
    content = b"\xef\xbb\xbf" + f"{row}\r\n\r\n{row}".encode()
    rows, sha256 = read_rows(write(tmp_path, content), COLUMNS)
    assert rows == [json.loads(row)] * 2
    assert sha256 == hashlib.sha256(content).hexdigest()


def test_packed_and_plain_and_list_hold_the_same_examples(tmp_path):
    lines = [{"question": f"q{i}", "answer": f"a #### {i}"} for i in range(20)]
    plain = "".join(json.dumps(line) + "\n" for line in lines).encode()
    files = [
        write(tmp_path, plain),
        write(tmp_path, gzip.compress(plain), "rows.jsonl.gz"),
        write(tmp_path, json.dumps(lines).encode(), "rows.json"),
        write(tmp_path, gzip.compress(json.dumps(lines).encode()), "rows.json.gz"),
    ]
    sources = [load_examples("gsm8k", "train", path=file) for file in files]
    assert len({source.description["examples_sha256"] for source in sources}) == 1
    assert sources[0].description["content_sha256"] == sources[1].description["content_sha256"]
    assert sources[0].description["content_sha256"] == hashlib.sha256(plain).hexdigest()


@pytest.mark.parametrize("listed", [0.5, True, "assert f()", {"a": 1}, [1]])
def test_tests_of_a_program_that_are_no_list_of_texts_are_refused(tmp_path, listed):
    row = {"text": "Add.", "code": "def f(): return 2", "test_list": listed, "task_id": 700}
    file = write(tmp_path, json.dumps(row).encode() + b"\n")
    with pytest.raises(UserError, match=r"line 1: test_setup_code must be text, and test_list a list of texts"):
        load_examples("mbpp", path=file)

"""Questions are read in each of their forms, and what is wrong with one is said with its line."""

import json

import pytest

from adaspec_jax.data.questions import Question, read_questions
from adaspec_jax.errors import UserError


def written(tmp_path, *rows):
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_columns_and_turns_are_read_alike(tmp_path):
    rows = [
        {"question": "Who?", "passages": ["One.", "Two.", "One."], "answers": ["Ada", "A. L."], "id": "q"},
        {"question": " Where? ", "answer": "Here"},
    ]
    file = written(tmp_path, *rows)
    first, second = read_questions(file)
    assert first == Question("q", "Who?", ("One.", "Two."), ("Ada", "A. L."), f"{file} line 1")
    assert second == Question(2, "Where?", (), ("Here",), f"{file} line 2")
    assert read_questions(file, 1) == [first]
    rows = [
        {"question_id": 7, "category": "qa", "turns": ["What else?"]},
        {
            "question_id": "q",
            "category": "rag",
            "turns": ["One.\nTwo. \n\nOne.\nWho?"],
            "reference": [["Ada", "A. L."]],
        },
    ]
    [of_turn] = read_questions(written(tmp_path, *rows), 1)
    assert of_turn == first._replace(where=f"{file} line 2")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"questoin": "Who?"}, 'line 1: no column "question"; did you mean "questoin"'),
        ({"question": " "}, 'column "question" is empty'),
        ({"question": "Who?", "passages": "One."}, 'column "passages" must be a list of texts'),
        ({"question": "Who?", "passages": ["One.", ""]}, 'column "passages" must be a list of texts'),
        ({"question": "Who?", "answers": [3]}, "answers must be text, or a list of texts"),
        ({"question": "Who?", "id": 1.5}, "an id must be text or a number"),
        ({"turns": ["Who?"], "category": "rag"}, "passages, a line each, and the question in its last line"),
        ({"turns": ["a\nWho?", "b"], "category": "rag"}, "passages, a line each, and the question in its last line"),
        ({"turns": ["a\nWho?"], "category": "qa"}, 'no row is of the category "rag"'),
    ],
)
def test_what_is_no_question_is_refused(tmp_path, row, says):
    with pytest.raises(UserError, match=says):
        read_questions(written(tmp_path, row))


def test_spec_bench_has_eighty_with_five_passages_each(shared_data):
    found = read_questions(shared_data("spec_bench", "question.jsonl.gz"))
    assert len(found) == 80 and all(each.answers and each.text.endswith("?") for each in found)
    assert {len(each.passages) for each in found} <= {4, 5}
    assert found[1].text == "Who sings got my mind set on you?" and "James Ray" in found[1].answers

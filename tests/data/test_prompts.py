"""A file of prompts is read in our form and in Spec-Bench's; what is no prompt is said with its row."""

import json

import pytest

from adaspec_jax.data.prompts import Prompt, read_prompts
from adaspec_jax.errors import UserError


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_both_forms_are_read_in_order(tmp_path):
    spec_bench = {
        "question_id": 81,
        "category": "writing",
        "turns": ["Compose a post.", "Rewrite it."],
        "reference": [],
    }
    rows = {"prompt": "Hello"}, {"id": "a7", "prompt": "Bye", "category": "c"}, spec_bench
    expected = [Prompt(1, "Hello"), Prompt("a7", "Bye", "c"), Prompt(81, "Compose a post.", "writing")]
    assert read_prompts(written(tmp_path / "p.jsonl", *rows)) == expected
    assert read_prompts(tmp_path / "p.jsonl", 2) == expected[:2]


def test_mt_benchs_categories_are_one_where_a_file_is_spec_benchs(tmp_path):
    kinds = ["writing", "stem", "qa", "math", "math_reasoning"]
    rows = [{"question_id": n, "category": kind, "turns": ["Say so."]} for n, kind in enumerate(kinds)]
    spec_bench = written(tmp_path / "s.jsonl", *rows)
    found = [prompt.category for prompt in read_prompts(spec_bench)]
    assert found == ["multi_turn", "multi_turn", "qa", "multi_turn", "math_reasoning"]
    assert [prompt.category for prompt in read_prompts(spec_bench, 2)] == ["multi_turn"] * 2  # the file decides
    mt_bench = written(tmp_path / "m.jsonl", *(row for row in rows if row["category"] in ("writing", "stem", "math")))
    assert [prompt.category for prompt in read_prompts(mt_bench)] == ["writing", "stem", "math"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"promt": "x"}, 'row 2: no column "prompt"; did you mean "promt"'),
        ({"prompt": " "}, 'row 2: column "prompt" is empty'),
        ({"turns": [3]}, 'row 2: column "prompt" must be text, not a number'),
        ({"turns": []}, 'row 2: no column "prompt"'),
        ({"prompt": "x", "category": 3}, "row 2: an id must be text or a number, and a category text"),
    ],
)
def test_what_is_no_prompt_is_said_with_its_row(tmp_path, row, says):
    with pytest.raises(UserError, match=says):
        read_prompts(written(tmp_path / "p.jsonl", {"prompt": "x"}, row))

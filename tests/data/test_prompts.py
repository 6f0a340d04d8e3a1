"""A file of prompts is read in our form and in those of benchmarks; what is no prompt is said with its row."""

import json
import os
import sys
from types import SimpleNamespace

import pytest

from adaspec_jax import data
from adaspec_jax.data.prompts import Prompt, first_and_spread, read_prompts
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


SPEED_BENCH = [
    {"question_id": f"q{n}", "category": kind, "sub_category": None, "turns": ["Say so.", "Again."]}
    for n, kind in enumerate(["coding", "qa", "rag", "summarization", "multilingual"])
]
AS_PROMPTS = [Prompt(row["question_id"], "Say so.", row["category"]) for row in SPEED_BENCH]


def test_speed_benchs_parquet_file_keeps_its_own_categories(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    path = tmp_path / "test-00000-of-00001.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(SPEED_BENCH), path)
    assert read_prompts(path) == AS_PROMPTS
    talks = data.load_examples(data.CHAT, path=path).examples
    assert [(talk.id, talk.category, len(talk.messages)) for talk in talks] == [
        (prompt.id, prompt.category, 2) for prompt in AS_PROMPTS
    ]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="parquet: no Parquet file, or a damaged one"):
        read_prompts(path)


def test_prompts_come_from_the_hub_too(monkeypatch):
    asked = []

    def load_dataset(*names, split):
        asked.append((*names, split))
        return SPEED_BENCH

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr("adaspec_jax.data.hub.offline_unless_reachable", lambda: open(os.devnull))
    assert read_prompts("hf:nvidia/SPEED-Bench:qualitative:test", 4) == AS_PROMPTS[:4]
    assert asked == [("nvidia/SPEED-Bench", "qualitative", "test")]


@pytest.mark.parametrize("read", [read_prompts, lambda path: data.load_examples(data.CHAT, path=path)])
def test_questions_that_speed_bench_withholds_are_no_prompts(tmp_path, read):
    withheld = "FULL BENCHMARK DATA SHOULD BE FETCHED FROM THE SOURCE USING SPECDEC_BENCH"
    path = written(tmp_path / "q.jsonl", SPEED_BENCH[0], SPEED_BENCH[1] | {"turns": [withheld]})
    with pytest.raises(UserError, match="(row|line) 2.*do not hold this question; fetch all of them with its own"):
        read(path)


def test_prompts_that_are_held_back_stand_over_all_of_the_rest(tmp_path):
    rows = [{"prompt": f"{kind} {n}", "category": kind} for kind in "abcd" for n in range(10)]
    rows[25] = {"prompt": ""}  # passed over: it is not among those that were asked for
    file = written(tmp_path / "p.jsonl", *rows)
    first, held_back = first_and_spread(file, 10, 3)
    assert [prompt.category for prompt in first] == ["a"] * 10
    assert [prompt.category for prompt in held_back] == ["b", "d"]
    first, held_back = first_and_spread(file, 20, 100)
    assert [prompt.id for prompt in held_back] == [n for n in range(21, 41) if n != 26]
    with pytest.raises(UserError, match="row 26"):
        first_and_spread(file, 26, 0)
    assert first_and_spread(written(tmp_path / "q.jsonl", rows[0]), 1, 3)[1] == []

"""A program is taken out of an answer, run with limits, and judged by its task's tests."""

import os
import time

import pytest

from adaspec_jax import data
from adaspec_jax.measuring.run_code import passes_tests, program_in
from adaspec_jax.measuring.scores import score_of

TESTS = "assert add(1, 2) == 3\nassert add(list([1]), [2]) == [1, 2]"


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("def add(a, b):\n    return a + b\n", 1.0),
        ("Here you are:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds. def", 1.0),
        ("import os\ndef helper(a):\n    return a\ndef plus(a, b):\n    return helper(a) + b", 1.0),  # its own name
        ("def add(a, b):\n    return a + b\nThis function adds, and", 1.0),  # goes on in words
        ("def add(a, b):\n    return a - b\n", 0.0),
        ("I do not know.", 0.0),
        ("def add(a, b):\n    raise SystemExit(0)\n", 0.0),
        ("import sys\nsys.exit(0)\ndef add(a, b):\n    return a", 0.0),
        ("", 0.0),
        ("```bash\npip install x\n```\n  ```python3\n  def add(a, b):\n      return a + b\n  ```\n", 1.0),
        ("def helper(x):\n    return x\nadd = lambda a, b: helper(a) + helper(b)", 1.0),
        ("def plus(a, b):\n    return a + b\ndef main():\n    print(plus(1, 2))", 1.0),
        ("from what I see, it adds:\ndef add(a, b):\n    return a + b", 1.0),
    ],
)
def test_a_program_in_an_answer_is_held_against_the_tests(said, score):
    assert passes_tests(said, TESTS) == score


def test_only_lines_of_python_are_a_program():
    assert program_in("Sure:\ndef f():\n    return 1\nand so on (") == "def f():\n    return 1"
    assert program_in("definitely not") == ""
    assert passes_tests("def anything():\n    pass", "def f(a):\n  return a") == 0.0  # nothing is asserted


def test_a_program_ends_writes_nothing_and_sees_no_environment(tmp_path, monkeypatch):
    monkeypatch.setattr("adaspec_jax.measuring.run_code.SECONDS", 1)
    monkeypatch.setenv("TOKEN", "secret")
    began, child = time.monotonic(), tmp_path / "child"
    for endless in ("import time\ntime.sleep(999)", "import time\nwhile True: pass"):
        assert passes_tests(endless, "assert True") == 0.0
    assert time.monotonic() - began < 300  # both were ended
    forked = f"import os, time\nif os.fork() == 0:\n    time.sleep(1)\n    os.mkdir({str(child)!r})\n"
    assert passes_tests(forked, "assert True") == 1.0
    written = f"def f():\n    open({str(tmp_path / 'x')!r}, 'w').write('x')\n"
    assert passes_tests(written, "f()\nassert True") == 1.0 and os.path.getsize(tmp_path / "x") == 0
    assert passes_tests("import os\nassert 'TOKEN' not in os.environ and not os.listdir()", "assert True") == 1.0
    assert passes_tests("x = bytearray(2**31)\nimport os", "assert True") == 0.0
    time.sleep(1)
    assert not child.exists()


def test_code_runs_only_where_it_is_asked_for():
    assert score_of("mbpp") == (None, ["mbpp is scored by running its answers: --run_code"])
    assert score_of("mbpp", run_code=True) == (passes_tests, [])


def test_mbpps_own_answers_pass_their_tests(shared_data):
    examples = data.load_examples("mbpp", "test", path=shared_data("mbpp", "mbpp.jsonl.gz"), num=20).examples
    assert all(each.tests.count("assert") >= 3 for each in examples)
    assert [passes_tests(each.answer, each.tests) for each in examples] == [1.0] * 20
    assert passes_tests(examples[0].answer, examples[1].tests) == 0.0

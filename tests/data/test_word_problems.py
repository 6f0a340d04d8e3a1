"""The embedded task is right, whole, varied, the same everywhere, and its splits never meet."""

import ast
import operator
import re
from collections import Counter
from fractions import Fraction

import pytest

from adaspec_jax.data import load_examples
from adaspec_jax.data.word_problems import SPLITS, generate, templates
from adaspec_jax.errors import UserError

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@pytest.fixture(scope="module")
def problems():
    return generate(4000, seed=0, split="train")


def value_of(expression: str) -> Fraction:
    """The expression by Python's own precedence, in exact fractions."""

    def visit(node):
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](visit(node.left), visit(node.right))
        return Fraction(node.value)

    return visit(ast.parse(expression, mode="eval").body)


def test_every_annotation_is_right_and_whole_and_the_last_one_is_the_answer(problems):
    for row in problems:
        *steps, last = row["answer"].split("\n")
        assert 2 <= len(steps) <= 6
        for step in steps:
            (shown, expression, result, after) = re.fullmatch(
                r".*?([\d][\d x*/+-]*) = \$?<<([-+*/\d]+)=(\d+)>>(\d+).*", step
            ).groups()
            assert re.sub(" ", "", shown).replace("x", "*") == expression
            assert value_of(expression) == int(result) == int(after) >= 2
        assert last == f"#### {result}"


def test_each_step_uses_only_numbers_of_the_question_or_of_earlier_steps(problems):
    in_words = {"half": 2, "third": 3, "quarter": 4, "fifth": 5, "twice": 2, "three times": 3, "four times": 4}
    in_words |= {"five times": 5, "%": 100}
    for row in problems:
        known = {int(number) for number in re.findall(r"\d+", row["question"])}
        known |= {number for word, number in in_words.items() if word in row["question"]}
        for expression, result in re.findall(r"<<([-+*/\d]+)=(\d+)>>", row["answer"]):
            assert {int(number) for number in re.findall(r"\d+", expression)} <= known
            known.add(int(result))


def test_text_is_clean(problems):
    for row in problems:
        for text in row.values():
            assert not re.search(r"[\[\]{}|]|  | [.,?]|^[a-z]|[.?] [a-z]|\bNone\b", text), text
        assert row["question"].endswith("?")


def test_every_template_occurs_and_phrasing_varies(problems):
    for group in (templates.COUNTS, templates.MONEY, templates.WHOLE):
        assert len(group) >= 7
    shape = Counter(re.sub(r"\d+|\b[A-Z][a-z]+\b", "_", row["question"]) for row in problems)
    assert len(shape) > 1500 and max(shape.values()) < 60
    assert {row["answer"].count("\n") for row in problems} == {2, 3, 4, 5}


def test_splits_never_share_a_question_whatever_the_seeds():
    questions = {split: set() for split in SPLITS}
    for split in SPLITS:
        for seed in (0, 1, 7):
            rows = generate(400, seed=seed, split=split)
            assert len({row["question"] for row in rows}) == 400
            questions[split] |= {row["question"] for row in rows}
    assert not questions["train"] & questions["test"]
    assert not questions["train"] & questions["validation"]
    assert not questions["validation"] & questions["test"]


def test_the_first_problems_do_not_depend_on_how_many_are_asked_for():
    assert generate(50, seed=3, split="train")[:10] == generate(10, seed=3, split="train")
    assert generate(10, seed=3, split="train") != generate(10, seed=4, split="train")


def test_the_first_problems_are_the_same_on_every_machine():
    # Changes only with the templates: results in reports are about this data, so change it knowingly.
    digest = load_examples("word_problems", "train", num=50).description["examples_sha256"]
    assert digest == "f5a23c6ea9650df582fb70932740b3a7ad793bd779e3428dcd04f9a2b5aee1cc"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"num": 5, "seed": 0, "split": "tset"}, 'did you mean "test"'),
        ({"num": 0, "seed": 0, "split": "test"}, "at least 1 problem"),
        ({"num": 5, "seed": -1, "split": "test"}, "a seed of at least 0"),
    ],
)
def test_a_mistake_is_one_line(arguments, complaint):
    with pytest.raises(UserError, match=complaint):
        generate(**arguments)

"""An answer is found in what is said as a reader would find it, and not inside other words."""

import pytest

from adaspec_jax.measuring.scores import holds_an_answer


@pytest.mark.parametrize(
    ("said", "answers", "found"),
    [
        ("It was sung by George Harrison.", ["James Ray", "George Harrison"], 1.0),
        ("It is UNICEF's global programing", ["UNICEF 's global programing"], 1.0),
        ("the Italian   campaign,", ["An Italian Campaign"], 1.0),
        ("914 mbar (hPa)", ["914 mbar ( hPa )"], 1.0),
        ("He began to start", ["art"], 0.0),
        ("1.5", ["15", "1.5"], 1.0),
        ("James", ["James Ray"], 0.0),
        ("anything", ["the", "..."], 0.0),
        ("", ["x"], 0.0),
    ],
)
def test_an_answer_is_found_word_for_word(said, answers, found):
    assert holds_an_answer(said, answers) == found

"""Synthetic sounds are mu-law codes that come back, the same from a seed, and text that its tokenizer takes whole."""

import numpy as np
import pytest

from adaspec_jax import data
from adaspec_jax.config import Data, Target, Tokenizer
from adaspec_jax.data import load_examples, signals, train_characters
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.text import read_text
from adaspec_jax.pipeline.workdir import Workdir


def test_every_code_stands_for_a_sample_and_that_sample_for_the_code():
    codes_T = np.arange(signals.CODES, dtype=np.uint8)
    samples_T = signals.samples_of(codes_T)
    np.testing.assert_array_equal(signals.codes_of(samples_T), codes_T)
    np.testing.assert_allclose(samples_T, -samples_T[::-1], atol=1e-15)
    np.testing.assert_allclose(samples_T[[0, -1]], [-1, 1], rtol=1e-12)
    assert np.all(np.diff(samples_T) > 0)


def test_codes_are_finer_where_it_is_quiet():
    """By the curve's slope for mu = 255: a step at 0 is 1 / 46 of one of 256 even steps, and at 1 it is 5.6 of it."""
    steps_T = np.diff(signals.samples_of(np.arange(signals.CODES))) / (2 / 255)
    np.testing.assert_allclose([steps_T[127], steps_T[-1]], [np.log(256) / 255, np.log(256) * 256 / 255], rtol=0.03)


def test_codes_are_text_and_text_is_codes():
    codes_T = np.arange(signals.CODES, dtype=np.uint8)
    text = signals.text_of(codes_T)
    np.testing.assert_array_equal(signals.codes_in(text), codes_T)
    with pytest.raises(UserError, match=r"character 2, 'x', is no code"):
        signals.codes_in(text[:1] + "x")


def test_sounds_are_the_same_from_a_seed_and_differ_between_splits():
    few, more = (signals.generate(num, seed=3, split="train") for num in (3, 5))
    assert more[:3] == few
    sounds = [signals.generate(5, seed=seed, split=split) for split in signals.SPLITS for seed in (3, 4)]
    assert len({row["rest"] for rows in sounds for row in rows}) == 30


def test_a_sound_repeats_at_its_pitch():
    """Its autocorrelation, a pitch period apart, is what makes the codes predictable."""
    for row in signals.generate(8, seed=0, split="train"):
        samples_T = signals.samples_of(signals.codes_in(row["opening"] + row["rest"]))
        assert len(samples_T) == signals.PROMPT + signals.ANSWER
        lags = range(signals.RATE // 200, signals.RATE // 80)
        assert max(np.corrcoef(samples_T[lag:], samples_T[:-lag])[0, 1] for lag in lags) > 0.5


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"num": 1, "seed": 0, "split": "tset"}, 'no split "tset".*"test"'),
        ({"num": 0, "seed": 0, "split": "test"}, "at least 1 sound"),
        ({"num": 1, "seed": -1, "split": "test"}, "a seed of at least 0"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(how, says):
    with pytest.raises(UserError, match=says):
        signals.generate(**how)


def test_a_tokenizer_of_characters_has_one_for_each_and_spells_others_in_bytes():
    examples = load_examples("signals", num=200)
    texts = [text for example in examples for text in example.texts]
    tokenizer = train_characters(texts)
    letters = sorted(set("".join(texts)))
    assert len(tokenizer) == 257 + len(letters) <= 513
    for text in (*texts[:20], "caf\u00e9 \u6f22 12\n", " a  b "):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        if text in texts:
            assert [letters[i - 257] for i in ids] == list(text)
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 0


def test_a_run_on_sounds_has_a_token_a_code(tmp_path):
    spec, origins = Data(task="signals", num_train=40, num_evaluation=4, max_length=264), {"target": Target()}
    text = read_text(spec, Tokenizer(init="characters"), origins, workdir=Workdir(tmp_path / "run"), seed=0)
    assert {len(row.tokens) for row in text.train} == {signals.PROMPT + signals.ANSWER + 1}
    assert {row.num_labels for row in text.train} == {signals.ANSWER + 1}
    reread = data.load_tokenizer(tmp_path / "run" / "tokenizer")
    rest = reread.decode(text.train[0].tokens[signals.PROMPT : -1])
    assert rest == signals.generate(1, seed=0, split="train")[0]["rest"]


def test_a_tokenizer_of_characters_is_refused_for_conversations(tmp_path):
    spec, origins = Data(task="word_problem_chats", num_train=4, num_evaluation=2), {"target": Target()}
    with pytest.raises(UserError, match=r'tokenizer.init is "characters", which has no marks of a conversation'):
        read_text(spec, Tokenizer(init="characters"), origins, workdir=Workdir(tmp_path / "run"), seed=0)

"""What prompts have in common, what is new in them, and answers that go round: on rows written by hand."""

import numpy as np
import pytest

from adaspec_jax.diagnosis.curves import curve_of
from adaspec_jax.diagnosis.texts import frame_of, framed, goes_round, has_frame, new_pairs, unigram_nats

END = [9, 8, 7, 6, 5]


def _prompts(count=60):
    return [np.array([*np.random.default_rng(i).integers(10, 90, 6 + i % 4), *END], np.int32) for i in range(count)]


def test_a_frame_is_what_nearly_all_prompts_end_with():
    prompts = _prompts()
    assert frame_of(prompts, end=True).tolist() == END and not len(frame_of(prompts, end=False))
    odd = [*prompts, np.array([1, 2, 3, 4, 5, 6, 7], np.int32)]
    assert frame_of(odd, end=True).tolist() == END  # one among sixty-one does not count
    assert not len(frame_of([*prompts, *odd[-1:] * 9], end=True))
    turned = [prompt[::-1] for prompt in prompts]
    assert frame_of(turned, end=False).tolist() == END[::-1]


def test_a_prompt_is_given_the_frame_that_it_lacks():
    frame = np.array(END, np.int32)
    bare = np.array([1, 2, 3], np.int32)
    assert not has_frame(bare, frame, end=True)
    whole = framed(bare, frame, end=True)
    assert whole.tolist() == [1, 2, 3, *END] and framed(whole, frame, end=True) is whole
    assert has_frame(np.array([1, 99, *END[1:]]), frame, end=True)  # another mark before what is asked
    assert framed(bare, frame, end=False).tolist() == [*END, 1, 2, 3]


def test_new_pairs_are_those_that_no_known_prompt_has():
    known = [np.array([1, 2, 3])]
    assert new_pairs([np.array([1, 2, 3])], known) == 0 and new_pairs([np.array([3, 2, 1])], known) == 1
    assert new_pairs([np.array([2, 3, 4])], known) == 0.5


@pytest.mark.parametrize(
    "answer, circles",
    [([4] * 30, True), ([*range(50)], False), ([*range(20), *[1, 2, 3] * 9], True), ([*range(20), *[1, 2] * 5], False)],
)
def test_an_answer_goes_round_where_its_end_says_the_same_again_and_again(answer, circles):
    assert goes_round(np.array(answer)) is circles


def test_nats_of_a_text_by_its_own_shares():
    assert unigram_nats([np.array([1, 1]), np.array([2, 2])]) == pytest.approx(np.log(2))
    assert unigram_nats([np.array([3, 3])]) == 0


def test_a_curve_has_the_means_about_its_middle_and_at_its_end():
    lines = [{"step": i, "loss": 10.0 - i, "agreement": i / 10, "grad_norm": 2.0 - i / 5} for i in range(10)]
    curve = curve_of(lines, epochs=2, schedule="cosine", clip_norm=1.0)
    assert (curve.steps, curve.loss_half, curve.loss_end) == (10, 5.0, 1.0)
    assert (curve.agreement_half, curve.agreement_end, curve.clipped) == (0.5, 0.9, 0.5)
    assert curve_of(lines[:3], epochs=2, schedule="cosine", clip_norm=1.0) is None
    without = [{"step": 1, "loss": None}] * 4  # nothing finite was recorded
    assert curve_of(without, epochs=1, schedule="constant", clip_norm=0).agreement_end is None

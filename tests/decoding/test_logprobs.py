"""Log-probabilities of what was written are those of the target along the text, however it was decoded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import (
    PROMPT,
    ChainDrafter,
    Confident,
    Dialogue,
    Logprobs,
    NoDraft,
    Sampling,
    TreeDrafter,
    generate,
    generate_from_queue,
    stream,
)
from tests.decoding.bag_model import next_logits
from tests.decoding.enumeration import processed
from tests.decoding.test_engine import KEY, decode, pair, ragged_prompt  # noqa: F401
from tests.decoding.test_processors import ALL, NEW, SMALL, Two, theirs, two  # noqa: F401
from tests.decoding.test_processors import PROMPT as PROMPTS
from tests.running import slow

GREEDY, SAMPLED = Sampling(0.0, **SMALL), Sampling(0.8, top_k=6, **SMALL)


def decoded(target, draft, way, sampling, logprobs):
    """A generation by each of the ways, on the host."""
    knobs = {"max_new_tokens": 15, "sampling": sampling, "eos_id": 7, "logprobs": logprobs}
    prompt, chain = ragged_prompt(5), ChainDrafter(draft, 3)
    if way == "queue":
        return jax.device_get(generate_from_queue(target, chain, prompt, KEY, rows=2, **knobs))
    if way == "stream":
        *_, made = stream(target, chain, prompt, KEY, **knobs)
        return jax.device_get(made)
    if way == "dialogue":
        return jax.device_get(Dialogue(target, chain, **knobs).turn(prompt, KEY))
    drafter = {
        "plain": NoDraft(),
        "chain": chain,
        "tree": TreeDrafter(draft, (2, 1, 2)),
        "stopping": ChainDrafter(draft, 4, Confident(0.5), (2,)),
    }[way]
    return jax.device_get(generate(target, drafter, prompt, KEY, **knobs))


def law(target, before, sampling, logprobs):
    """The log-probabilities after a text, in NumPy."""
    logits = next_logits(target, before)
    if logprobs.processed:
        logits = processed(logits, before, sampling)
        if not sampling.greedy:
            logits = logits / sampling.temperature
            logits = np.where(logits < np.sort(logits)[-sampling.top_k], -np.inf, logits)
    return logits - np.log(np.sum(np.exp(logits)))


EVERY = [(way, s) for way in ("plain", "chain", "tree", "stopping", "queue", "stream", "dialogue") for s in "gs"]
QUICK = {("plain", "g"), ("chain", "s"), ("tree", "g"), ("stopping", "s"), ("queue", "s"), ("stream", "s")}


@pytest.mark.parametrize("way, temperature", [each if each in QUICK else slow(*each) for each in EVERY])
def test_they_are_the_targets_along_the_text(pair, way, temperature):  # noqa: F811
    target, draft = pair
    sampling = GREEDY if temperature == "g" else SAMPLED
    asked = Logprobs(top=3, processed=way in ("tree", "queue", "chain"))
    made = decoded(target, draft, way, sampling, asked)
    found, counted = made.logprobs, 0
    for row, length in enumerate(made.lengths_B):
        text = made.tokens_BS[row].tolist()
        new = (made.origin_BS[row] != PROMPT) & (np.arange(len(text)) < length)
        assert not found.chosen_BS[row, ~new].any() and not found.of_top_BSK[row, ~new].any()
        for at in np.flatnonzero(new):
            expected = law(target, text[:at], sampling, asked)
            np.testing.assert_allclose(found.chosen_BS[row, at], expected[text[at]], atol=1e-5)
            np.testing.assert_allclose(found.of_top_BSK[row, at], np.sort(expected)[::-1][:3], atol=1e-5)
            np.testing.assert_allclose(expected[found.top_BSK[row, at]], found.of_top_BSK[row, at], atol=1e-5)
            counted += 1
    assert counted > 30
    plain_shape = (5, ragged_prompt(5).tokens_BS.shape[1] + 15)
    assert found.chosen_BS.shape == plain_shape and found.top_BSK.shape == (*plain_shape, 3)


SCORES = [(way, which) for way in ("plain", "chain", "tree", "queue") for which in ("output_logits", "output_scores")]
SCORES_QUICK = {("plain", "output_logits"), ("chain", "output_scores"), ("tree", "output_logits")}


@pytest.mark.parametrize("way, which", [each if each in SCORES_QUICK else slow(*each) for each in SCORES])
def test_they_are_transformers_transition_scores(two, way, which):  # noqa: F811
    sampling, torch = Sampling(0.0, **ALL), two.torch
    knobs = {"max_new_tokens": NEW, "sampling": sampling, "eos_id": -1}
    knobs["logprobs"] = Logprobs(top=2, processed=which == "output_scores")
    if way == "queue":
        made = generate_from_queue(two.target, ChainDrafter(two.draft, 4), PROMPTS, KEY, rows=2, **knobs)
    else:
        drafter = {"plain": NoDraft(), "chain": ChainDrafter(two.draft, 4), "tree": TreeDrafter(two.draft, (3, 1, 2))}
        made = generate(two.target, drafter[way], PROMPTS, KEY, **knobs)
    for row, length in enumerate(PROMPTS.lengths_B):
        ids = torch.tensor(PROMPTS.tokens_BS[row : row + 1, :length])
        how = theirs(sampling) | {"max_new_tokens": NEW, "pad_token_id": 0, which: True}
        asked = {"attention_mask": torch.ones_like(ids), "return_dict_in_generate": True}
        out = two.theirs.generate(ids, **asked, **how)
        scores = getattr(out, which.removeprefix("output_"))
        expected = two.theirs.compute_transition_scores(out.sequences, scores, normalize_logits=True)
        new = slice(length, length + NEW)
        assert made.tokens_BS[row, new].tolist() == out.sequences[0, length:].tolist()
        np.testing.assert_allclose(made.logprobs.chosen_BS[row, new], expected[0].numpy(), atol=1e-4)
        best = torch.stack([torch.log_softmax(score[0], dim=-1) for score in scores]).topk(2)
        np.testing.assert_allclose(made.logprobs.of_top_BSK[row, new], best.values.numpy(), atol=1e-4)


def test_without_them_nothing_is_kept_and_text_is_the_same(pair):  # noqa: F811
    target, draft = pair
    without = decode(target, ChainDrafter(draft, 3), ragged_prompt(), sampling=SAMPLED)
    given = decode(target, ChainDrafter(draft, 3), ragged_prompt(), sampling=SAMPLED, logprobs=Logprobs())
    assert without.logprobs is None and given.logprobs.top_BSK.shape[-1] == 0
    np.testing.assert_array_equal(without.tokens_BS, given.tokens_BS)
    assert (given.logprobs.chosen_BS <= 0).all() and np.isfinite(given.logprobs.chosen_BS).all()
    ruled_out = decode(target, NoDraft(), ragged_prompt(), sampling=SAMPLED, logprobs=Logprobs(11, processed=True))
    assert np.isneginf(ruled_out.logprobs.of_top_BSK).any() and np.isfinite(ruled_out.logprobs.chosen_BS).all()


def test_bfloat16_logits_are_summed_in_float32(pair):  # noqa: F811
    low = jax.tree.map(lambda table: table.astype(jnp.bfloat16), pair[0])
    made = decode(low, NoDraft(), ragged_prompt(), logprobs=Logprobs(1))
    assert made.logprobs.chosen_BS.dtype == np.float32
    np.testing.assert_array_equal(made.logprobs.chosen_BS, made.logprobs.of_top_BSK[..., 0])


def test_more_than_there_are_is_refused(pair):  # noqa: F811
    with pytest.raises(ValueError, match="asked for 12 tokens, and the vocabulary has 11"):
        decode(pair[0], NoDraft(), ragged_prompt(1), logprobs=Logprobs(12))
    with pytest.raises(ValueError, match="logprobs must be 0"):
        Logprobs(-1)

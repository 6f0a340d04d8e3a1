"""Speculation over caches whose layers keep a window: the target's own text, across the edges of their rings."""

import dataclasses

import jax
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import (
    ChainDrafter,
    Context,
    Dialogue,
    NoDraft,
    Sampling,
    TreeDrafter,
    generate,
    generate_from_queue,
)
from adaspec_jax.decoding.drafters.models.cascade import Cascade
from adaspec_jax.decoding.drafters.target.early_exit import EarlyExitDrafter
from adaspec_jax.decoding.drafters.target.swift import SwiftDrafter
from adaspec_jax.decoding.drafters.text.copying import PromptLookup
from adaspec_jax.decoding.drafters.text.fill import Jacobi
from adaspec_jax.decoding.drafters.text.lookahead import Lookahead
from adaspec_jax.decoding.drafters.text.recycling import TokenRecycling
from adaspec_jax.devices import sharding
from adaspec_jax.errors import UserError
from adaspec_jax.models.ring import ring_size
from tests.decoding.test_engine import KEY
from tests.models.conftest import TINY_OF, shaken
from tests.running import slow

GREEDY = Sampling(temperature=0.0)
RING = ring_size(5, 10_000)
FAMILIES = ("gemma3_text", slow("gemma2"), slow("mistral"))


def made(family, **keys):
    """A target, and a draft that agrees with it often: the same, a little shaken."""
    hf = TINY_OF[family] | {"max_position_embeddings": 1024, "vocab_size": 29, "tie_word_embeddings": False} | keys
    model = models.build(hf, jax.random.key(1))
    target = dataclasses.replace(model, params=shaken(model.params, 1))
    noise = jax.tree.map(lambda x, y: x + 0.15 * (y - x), target.params, shaken(target.params, 2))
    return target, dataclasses.replace(target, params=noise)


@pytest.fixture(scope="module")
def pair_of():
    known = {}
    return lambda family: known[family] if family in known else known.setdefault(family, made(family))


def prompts(lengths, seed=0, vocab=29):
    rng, width = np.random.default_rng(seed), max(lengths)
    tokens_BS = rng.integers(3, vocab, (len(lengths), width))
    return Context(np.where(np.arange(width) < np.array(lengths)[:, None], tokens_BS, 0), np.array(lengths))


def decode(target, drafter, prompt, **knobs):
    knobs = {"max_new_tokens": 50, "sampling": GREEDY, "eos_id": 2} | knobs
    return jax.device_get(generate(target, drafter, prompt, KEY, **knobs))


def same_text(ours, plain):
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    np.testing.assert_array_equal(ours.lengths_B, plain.lengths_B)


# Answers that begin before a ring is full, at its edge and past it, and short prompts beside long ones.
RAGGED = [RING - 20, RING - 2, RING - 1, RING, RING + 1, 1, 9, 190]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_is_plain_decodings_and_transformers(pair_of, tmp_path, family):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    target, draft = pair_of(family)
    plain = decode(target, NoDraft(), prompts(RAGGED))
    drafters = [ChainDrafter(draft, length=5), TreeDrafter(draft, branching=(2, 2, 1))]
    for drafter in drafters:
        ours = decode(target, drafter, prompts(RAGGED))
        same_text(ours, plain)
        assert ours.accepted_BN.sum() > 0 and ours.judged_BN.sum() > ours.accepted_BN.sum()  # some kept, some refused
    alone = prompts([RING - 3], seed=4)
    assert len(np.unique(plain.tokens_BS)) > 15  # no text that a model falls into whatever it sees
    same_text(decode(target, drafters[0], alone), decode(target, NoDraft(), alone))
    models.save(target, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    for row, length in enumerate(RAGGED):
        tokens = torch.tensor(plain.tokens_BS[row, :length][None])
        knobs = {"do_sample": False, "max_new_tokens": 50, "eos_token_id": 2, "pad_token_id": 0}
        expected = theirs.generate(tokens, attention_mask=torch.ones_like(tokens), **knobs)[0].tolist()
        assert plain.tokens_BS[row, : plain.lengths_B[row]].tolist() == expected


OTHERS = {
    "lookup": lambda target, draft: PromptLookup(ngram=1),
    "jacobi": lambda target, draft: Jacobi(length=5),
    "lookahead": lambda target, draft: Lookahead(ngram=3, window=4, guesses=4),
    "recycling": lambda target, draft: TokenRecycling(29),  # 80 guesses a round: a ring with more room
    "early exit": lambda target, draft: EarlyExitDrafter(target, 1, length=4),
    "swift": lambda target, draft: SwiftDrafter(target, length=6, siblings=4, window=8),
    "cascade": lambda target, draft: Cascade(PromptLookup(ngram=1), draft, length=4),
}


@pytest.mark.parametrize("kind", [x if x in ("recycling", "early exit", "cascade") else slow(x) for x in OTHERS])
def test_whatever_guesses_the_text_is_plain_decodings(pair_of, kind):
    target, draft = made("gemma3_text", num_hidden_layers=4) if kind == "swift" else pair_of("gemma3_text")
    plain = decode(target, NoDraft(), prompts(RAGGED))
    same_text(decode(target, OTHERS[kind](target, draft), prompts(RAGGED)), plain)


@pytest.mark.parametrize("seed", [0, *map(slow, range(1, 12))])
def test_any_window_draft_length_and_prompt_give_plain_decodings_text(seed):
    rng = np.random.default_rng(seed)
    family = ["gemma3_text", "mistral", "gemma2", "phi3", "smollm3", "qwen2"][seed % 6]
    window = int(rng.choice([1, 2, 3, 17, 64, 100]))
    keys = {"use_sliding_window": True, "max_window_layers": 1} if family in ("qwen2", "smollm3") else {}
    target, draft = made(family, sliding_window=window, **keys)
    edge = ring_size(window, 10_000)
    lengths = [1, *rng.integers(1, edge + 30, 2).tolist(), edge + int(rng.integers(-6, 6)), edge + 2]
    plain = decode(target, NoDraft(), prompts(lengths, seed))
    drafter = ChainDrafter(draft, length=int(rng.choice([1, 2, 7, 40])))
    same_text(decode(target, drafter, prompts(lengths, seed)), plain)
    widths = tuple(int(x) for x in rng.integers(1, 3, rng.integers(1, 5)))
    same_text(decode(target, TreeDrafter(draft, branching=widths), prompts(lengths, seed)), plain)


@pytest.mark.parametrize("shape", [slow((8, 1, 1)), (2, 2, 2)])
@pytest.mark.parametrize("family", [slow("gemma3_text"), "mistral"])
def test_eight_devices_decode_the_tokens_of_one(pair_of, family, shape):
    (target, draft), prompt, mesh = pair_of(family), prompts(RAGGED), sharding.make_mesh(*shape)
    one = decode(target, ChainDrafter(draft, 5), prompt)
    assert 0 < one.accepted_BN.sum() < one.judged_BN.sum()
    rows = Context(*(sharding.shard_rows(x, mesh) for x in (prompt.tokens_BS, prompt.lengths_B)))
    many = decode(sharding.shard(target, mesh), ChainDrafter(sharding.shard(draft, mesh), 5), rows)
    same_text(many, one)
    np.testing.assert_array_equal(many.accepted_BN, one.accepted_BN)


@pytest.mark.parametrize("family", ["mistral", slow("gemma3_text")])
def test_a_queue_keeps_the_text(pair_of, family):
    target, draft = pair_of(family)
    drafter, asked = ChainDrafter(draft, length=5), prompts(RAGGED)
    knobs = {"max_new_tokens": 50, "sampling": GREEDY, "eos_id": 2}
    queued = jax.device_get(generate_from_queue(target, drafter, asked, KEY, rows=3, refill=1, **knobs))
    same_text(queued, decode(target, drafter, asked))


def test_turns_of_a_dialogue_keep_the_text_and_a_beginning_written_anew_is_read_anew(pair_of):
    target, draft = pair_of("gemma3_text")
    knobs = {"max_new_tokens": 20, "sampling": GREEDY, "eos_id": 2}
    talk, rng, asked = (
        Dialogue(target, ChainDrafter(draft, length=3), **knobs),
        np.random.default_rng(5),
        prompts([9, 150]),
    )
    texts, read = [list(row[:length]) for row, length in zip(asked.tokens_BS, asked.lengths_B, strict=True)], []
    for turn in range(3):
        prompt = prompts(list(map(len, texts)))
        for row, text in enumerate(texts):
            prompt.tokens_BS[row, : len(text)] = text
        ours = jax.device_get(talk.turn(prompt, KEY))
        same_text(ours, decode(target, NoDraft(), prompt, **knobs))
        read.append([int(n) < len(text) for n, text in zip(talk.read_B, texts, strict=True)])
        texts = [row[:length].tolist() for row, length in zip(ours.tokens_BS, ours.lengths_B, strict=True)]
        texts = [row + rng.integers(3, 29, 90).tolist() for row in texts]
        if turn == 1:
            texts[1][20:24] = [5, 6, 5, 6]
    assert read == [[False, False], [True, True], [True, False]]


def test_more_guesses_than_a_ring_takes_back_are_refused(pair_of):
    target, draft = pair_of("gemma3_text")
    with pytest.raises(UserError, match="64 guesses a round are too many where a draft's layers .* at most 63"):
        decode(target, ChainDrafter(draft, length=64), prompts(RAGGED))
    decode(target, ChainDrafter(draft, length=64), prompts([9]), max_new_tokens=10)  # no ring is full there

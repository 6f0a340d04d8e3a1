"""The processors of transformers along the draft path: plain and speculative text are those of its `generate`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import (
    ChainDrafter,
    Confident,
    Context,
    Dialogue,
    GrowthDrafter,
    NoDraft,
    Sampling,
    TreeDrafter,
    block_verification,
    generate,
    generate_from_queue,
    k_sequential,
    match_sample,
    rejection_sample,
    stream,
)
from adaspec_jax.decoding.drafters.target.early_exit import EarlyExitDrafter
from adaspec_jax.decoding.drafters.target.swift import SwiftDrafter
from adaspec_jax.decoding.drafters.text.fill import Jacobi
from adaspec_jax.decoding.present import present
from tests.decoding.bag_model import BagModel, next_logits
from tests.decoding.enumeration import largest_error, last_test_first, processed
from tests.decoding.test_engine import KEY, decode, pair, ragged_prompt  # noqa: F401
from tests.running import slow

VOCAB, NEW = 61, 24
HF = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
HF |= {"vocab_size": VOCAB, "max_position_embeddings": 128, "initializer_range": 0.3, "eos_token_id": None}
ALL = {"repetition_penalty": 1.3, "logit_bias": {3: 2.5, 7: -4.0}, "suppress_tokens": (5, 11)}
SMALL = {"repetition_penalty": 1.5, "logit_bias": {3: 1.5, 7: -1.0}, "suppress_tokens": (5,)}
PROCESSORS = {
    "penalty": {"repetition_penalty": 1.8},
    "reward": {"repetition_penalty": 0.7},
    "bias": {"logit_bias": {3: 6.0, 9: 5.0, 20: -8.0}},
    "suppressed": {"suppress_tokens": tuple(range(0, VOCAB, 3))},
    "all": ALL,
}
LAW = Sampling(0.8, min_p=0.1, repetition_penalty=1.6, logit_bias={0: 0.7}, suppress_tokens=(2,))
PENALTY = Sampling(repetition_penalty=2.5)


def theirs(sampling):
    """The same settings, by transformers' names."""
    bias = [[[token], value] for token, value in sampling.logit_bias]
    asked = {"repetition_penalty": sampling.repetition_penalty, "sequence_bias": bias or None}
    asked["suppress_tokens"] = list(sampling.suppress_tokens) or None
    if not sampling.greedy:
        asked |= {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        asked["min_p"] = sampling.min_p or None
    return asked | {"do_sample": not sampling.greedy}


class Two:
    """A model here and in transformers, and a draft that agrees with it in most places."""

    def __init__(self, root, hf):
        self.torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
        self.target = models.build(hf | HF, jax.random.key(0))
        noise = models.build(hf | HF, jax.random.key(1)).params
        self.draft = models.CausalLM(
            jax.tree.map(lambda a, b: a + 0.05 * b, self.target.params, noise), self.target.config
        )
        models.save(self.target, root)
        self.theirs = transformers.AutoModelForCausalLM.from_pretrained(root).eval()
        self.asked = {}

    def text(self, prompt, name):
        """What transformers writes, a row at a time."""
        if name not in self.asked:
            rows, how = [], theirs(Sampling(0.0, **PROCESSORS[name]))
            for tokens, length in zip(prompt.tokens_BS, prompt.lengths_B, strict=True):
                ids = self.torch.tensor(tokens[None, :length])
                mask = self.torch.ones_like(ids)
                made = self.theirs.generate(ids, attention_mask=mask, max_new_tokens=NEW, pad_token_id=0, **how)
                rows.append(made[0].tolist())
            self.asked[name] = rows
        return self.asked[name]


@pytest.fixture(scope="module", params=["llama", slow("gpt_neox")])
def two(request, tmp_path_factory):
    return Two(tmp_path_factory.mktemp("two"), {"model_type": request.param})


PROMPT = ragged_prompt(3, longest=9, vocab=VOCAB)


def written(made):
    return [row[:length].tolist() for row, length in zip(made.tokens_BS, made.lengths_B, strict=True)]


DRAFTERS = {
    "plain": lambda two: NoDraft(),
    "chain": lambda two: ChainDrafter(two.draft, 4),
    "tree": lambda two: TreeDrafter(two.draft, (3, 1, 2)),
    "stopping": lambda two: ChainDrafter(two.draft, 5, Confident(0.3), (2,)),
    "jacobi": lambda two: Jacobi(4),
    "exit": lambda two: EarlyExitDrafter(two.target, 1, 3),
    "swift": lambda two: SwiftDrafter(two.target, (2,), length=3, siblings=2, window=4),
}
GRID = [(kind, name) for kind in DRAFTERS for name in PROCESSORS]
QUICK = {("plain", "penalty"), ("plain", "all"), ("chain", "all"), ("tree", "all")}


@pytest.mark.parametrize("kind, name", [way if way in QUICK else slow(*way) for way in GRID])
def test_greedy_text_is_transformers(two, kind, name):
    made = decode(
        two.target, DRAFTERS[kind](two), PROMPT, sampling=Sampling(0.0, **PROCESSORS[name]), max_new_tokens=NEW
    )
    assert written(made) == two.text(PROMPT, name)
    if kind == "plain":
        assert written(made) != written(decode(two.target, NoDraft(), PROMPT, max_new_tokens=NEW))
    elif kind != "jacobi":
        assert made.accepted_BN.sum() > 0


@pytest.mark.parametrize("way", ["queue", "stream", "dialogue"])
def test_all_ways_to_decode_write_one_text(pair, way):  # noqa: F811
    target, chain = pair[0], ChainDrafter(pair[1], 3)
    knobs = {"max_new_tokens": 23, "sampling": Sampling(0.0, **SMALL), "eos_id": 7}
    prompt = ragged_prompt(5)
    expected = jax.device_get(generate(target, NoDraft(), prompt, KEY, **knobs))
    if way == "queue":
        made = generate_from_queue(target, chain, prompt, KEY, rows=2, **knobs)
    elif way == "stream":
        *_, made = stream(target, chain, prompt, KEY, **knobs)
    else:
        talk = Dialogue(target, chain, **knobs)
        assert written(jax.device_get(talk.turn(prompt, KEY))) == written(expected)
        prompt = Context(expected.tokens_BS, expected.lengths_B)
        made, expected = talk.turn(prompt, KEY), jax.device_get(generate(target, NoDraft(), prompt, KEY, **knobs))
    assert written(jax.device_get(made)) == written(expected)


SAMPLED = {
    "penalty": Sampling(0.7, repetition_penalty=1.4),
    "min_p": Sampling(1.2, min_p=0.08),
    "all": Sampling(0.9, top_k=30, top_p=0.95, min_p=0.02, **ALL),
    "suppressed beyond top-k": Sampling(1.0, top_k=55, suppress_tokens=range(0, VOCAB, 2)),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_logits_are_those_of_transformers_processors(two, name):
    sampling, rng = SAMPLED[name], np.random.default_rng(0)
    logits_BV = rng.normal(size=(6, VOCAB)).astype(np.float32) * 3
    tokens_BS = rng.integers(0, VOCAB, (6, 12))
    config = two.theirs.generation_config.__class__(**theirs(sampling))
    processors = two.theirs._get_logits_processor(config, input_ids_seq_length=12, device="cpu")
    expected = processors(two.torch.tensor(tokens_BS), two.torch.tensor(logits_BV)).numpy()
    lengths_B = jnp.full((6,), 12)
    found = sampling.filtered(sampling.processed(logits_BV, present(jnp.asarray(tokens_BS), lengths_B, VOCAB)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
    assert (np.isfinite(expected).sum(axis=1) > 1).all()


def chain(length):
    return ChainDrafter(BagModel.random(1, vocab=4), length)


def tree(*branching, **how):
    return TreeDrafter(BagModel.random(1, vocab=4), branching, **how)


EXACT = {
    "chain": (rejection_sample, chain(2), {"horizon": 3}),
    "chain, a penalty alone": (rejection_sample, chain(2), {"sampling": PENALTY}),
    "tree": (rejection_sample, tree(2, 1), {}),
    "siblings that differ": (rejection_sample, tree(2, 1, replacement=False), {}),
    "block": (block_verification, chain(2), {"order": last_test_first(2)}),
    "k-seq": (k_sequential, tree(2, 1), {"eos": 0}),
    "match": (match_sample, tree(2, 1), {}),
}


@pytest.mark.parametrize("case", [case if case in ("chain", "tree") else slow(case) for case in EXACT])
def test_the_processed_law_is_kept_exactly(case):
    accept, drafter, knobs = EXACT[case]
    assert largest_error(BagModel.random(0, vocab=4), drafter, accept, **{"sampling": LAW} | knobs) < 1e-6


def test_a_penalty_that_forgets_the_path_fails_the_enumeration(monkeypatch):
    from adaspec_jax.decoding import rounds

    def forgetful(present_BV, tokens_BN, ancestors_BNN):
        return jnp.broadcast_to(present_BV[:, None], (len(tokens_BN), tokens_BN.shape[1] + 1, present_BV.shape[1]))

    monkeypatch.setattr(rounds, "present_in_tree", forgetful)
    assert largest_error(BagModel.random(0, vocab=4), chain(2), rejection_sample, sampling=PENALTY) > 1e-3


def test_plain_decoding_equals_a_loop_in_numpy(pair):  # noqa: F811
    target, _ = pair
    prompt, sampling = ragged_prompt(3), Sampling(0.0, repetition_penalty=1.7, logit_bias={4: 1.0}, suppress_tokens=[2])
    ours = decode(target, NoDraft(), prompt, sampling=sampling, max_new_tokens=12)
    for row in range(3):
        text = prompt.tokens_BS[row, : prompt.lengths_B[row]].tolist()
        for _ in range(12):
            text.append(int(np.argmax(processed(next_logits(target, text), text, sampling))))
        assert ours.tokens_BS[row, : len(text)].tolist() == text


@pytest.mark.parametrize("kind", ["chain", slow("stopping"), "tree", "grown", "shared noise"])
def test_the_draft_is_processed_along_its_path_too(pair, kind):  # noqa: F811
    """A draft that is the target is never refused."""
    target, shared = pair[0], kind == "shared noise"
    sampling = Sampling(0.9 if shared else 0.0, repetition_penalty=1.9, suppress_tokens=(1,), shared_noise=shared)
    drafter = {
        "stopping": ChainDrafter(target, 3, Confident(0.0)),
        "tree": TreeDrafter(target, (1, 2, 1)),
        "grown": GrowthDrafter(target, budget=3, beams=1, branch=1, depth=3),
    }.get(kind, ChainDrafter(target, 3))
    made = decode(target, drafter, ragged_prompt(), sampling=sampling, max_new_tokens=20)
    np.testing.assert_array_equal(made.rounds_B, 5)
    plain = decode(target, NoDraft(), ragged_prompt(), sampling=sampling, max_new_tokens=20)
    np.testing.assert_array_equal(made.tokens_BS, plain.tokens_BS)


def test_no_processor_leaves_the_logits_as_they_are():
    logits_BV = jnp.zeros((2, 3), jnp.bfloat16)
    assert Sampling(0.5, top_k=2, min_p=0.1).processed(logits_BV, None) is logits_BV
    assert Sampling(logit_bias={2: 1, 0: -1}) == Sampling(logit_bias=((0, -1.0), (2, 1.0)), suppress_tokens=[])
    assert len({Sampling(suppress_tokens=[3, 1]), Sampling(suppress_tokens=(1, 3, 3))}) == 1


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"min_p": 1.5}, r"min_p must be in \[0, 1\]"),
        ({"repetition_penalty": 0}, "repetition_penalty must be positive"),
        ({"logit_bias": {3: float("inf")}}, "logit_bias must be finite"),
        ({"logit_bias": [(3, 1.0), (3, 2.0)]}, "logit_bias has a token twice"),
        ({"suppress_tokens": [-1]}, "suppress_tokens names tokens by their ids"),
        ({"logit_bias": {11: 1.0}}, "logit_bias names token 11; the vocabulary has ids below 11"),
        ({"suppress_tokens": range(11)}, "suppress_tokens leaves no token"),
    ],
)
def test_what_no_vocabulary_can_do_is_said(pair, wrong, says):  # noqa: F811
    with pytest.raises(ValueError, match=says):
        decode(pair[0], NoDraft(), ragged_prompt(1), sampling=Sampling(**wrong))

"""A trained Llama of 260 thousand parameters writes what it writes in transformers, and knows its stories."""

import gzip
import json

import jax
import numpy as np
import pytest

from adaspec_jax import data, models
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate

WEIGHTS = "stories260K-hf"


def test_greedy_text_equals_transformers_over_200_tokens(shared_weights):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    directory = shared_weights(WEIGHTS)
    prompt = [1, *data.load_tokenizer(directory)("Once upon a time", add_special_tokens=False)["input_ids"]]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
    theirs.generation_config.eos_token_id = None
    expected = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=200)[0].numpy()
    out = generate(
        models.load(directory),
        NoDraft(),
        Context(np.array([prompt]), np.array([len(prompt)])),
        jax.random.key(0),
        max_new_tokens=200,
        sampling=Sampling(temperature=0.0),
        eos_id=-1,
    )
    assert len(expected) == len(prompt) + 200
    np.testing.assert_array_equal(out.tokens_BS[0, : len(expected)], expected)


def test_real_stories_cost_the_nats_they_should(shared_weights, shared_data):
    stories = json.loads(gzip.open(shared_data("tinystories", "tinystories_1000.json.gz"), "rt").read())[:100]
    directory = shared_weights(WEIGHTS)
    tokenizer = data.load_tokenizer(directory)
    rows = [[1, *tokenizer(story, add_special_tokens=False)["input_ids"]][:512] for story in stories]
    tokens_BT = np.array([row + [0] * (512 - len(row)) for row in rows])
    labels_BT = np.arange(1, 512)[None] < np.array([[len(row)] for row in rows])

    @jax.jit
    def losses(model, tokens_BT):
        log_probs_BTV = jax.nn.log_softmax(model(tokens_BT)[0][:, :-1])
        return -jax.numpy.take_along_axis(log_probs_BTV, tokens_BT[:, 1:, None], axis=-1)[..., 0]

    model = models.load(directory)
    loss_BT = np.concatenate([losses(model, tokens_BT[start : start + 25]) for start in range(0, 100, 25)])
    assert loss_BT[labels_BT].mean() == pytest.approx(1.66, abs=0.01)

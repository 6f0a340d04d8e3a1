"""One training step of Amphista's slots against a reading in PyTorch of what `amphista.py` says; it shares no code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.models import heads
from adaspec_jax.models.heads.amphista import InSlots
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.objectives import distill_head
from tests.models.conftest import shaken

torch = pytest.importorskip("torch", reason="torch is not installed (the `test` extra has it)")

SIZE, HEADS, PAIRS, VOCABULARY, LENGTH, SLOTS = 16, 4, 2, 24, 11, 3
LLAMA = {"model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": SIZE, "intermediate_size": 24}
LLAMA |= {"num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": PAIRS, "initializer_range": 0.3}


class Slots:
    """Every place t on its own: both stages on the text up to t, then the slots, one query after another."""

    def __init__(self, params, embeddings, eps):
        self.params, self.embeddings, self.eps = params, embeddings, eps

    def norm(self, weights, x):
        return x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * weights["scale"]

    def turned(self, x_THK):
        size = SIZE // HEADS
        angles = torch.arange(len(x_THK))[:, None, None] * 1e4 ** -(torch.arange(0, size, 2) / size)
        a, b = x_THK.chunk(2, -1)
        return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)

    def layer(self, weights, x_TD, *, causal):
        y = self.norm(weights["attention_norm"], x_TD)
        query, key, value = (
            (y @ weights["attention"][name]["kernel"]).unflatten(-1, (-1, SIZE // HEADS)) for name in "qkv"
        )
        if causal:  # along a text; slots are not rotated
            query, key = self.turned(query), self.turned(key)
        rows = []
        for t in range(len(x_TD)):
            seen, mixed = slice(0, t + 1 if causal else None), []
            for i in range(HEADS):
                pair = i // (HEADS // PAIRS)
                share = torch.softmax(key[seen, pair] @ query[t, i] / (SIZE // HEADS) ** 0.5, 0)
                mixed.append(share @ value[seen, pair])
            rows.append(torch.cat(mixed))
        x_TD = x_TD + torch.stack(rows) @ weights["attention"]["out"]["kernel"]
        y = self.norm(weights["mlp_norm"], x_TD)
        inner = torch.nn.functional.silu(y @ weights["mlp"]["gate"]["kernel"]) * (y @ weights["mlp"]["up"]["kernel"])
        return x_TD + inner @ weights["mlp"]["down"]["kernel"]

    def laws(self, tokens_T, hidden_TD):
        """Log-probabilities [K, V] of the tokens from t + 2 on, of states to t and tokens to t + 1."""
        adapted = self.layer(self.params["first"], hidden_TD, causal=True)
        joint = torch.cat([adapted, self.embeddings[tokens_T[1:]]], -1) @ self.params["fc"]["kernel"]
        adapted, slots = self.layer(self.params["second"], joint, causal=True)[-1], []
        for i in range(SLOTS):
            block = self.params[f"head_{i}"]["block_0"]
            inner = torch.nn.functional.silu(adapted @ block["kernel"] + block["bias"])
            slots.append(adapted + inner + self.params["place"]["embedding"][i])
        made = self.layer(self.params["among"], torch.stack(slots), causal=False)
        return torch.log_softmax(made @ self.params["head"]["kernel"], -1)

    def loss(self, tokens_BT, labels_BT, hidden_BTD, law_BTV):
        per_slot = [[] for _ in range(SLOTS)]
        for tokens, labels, hidden, law in zip(tokens_BT, labels_BT, hidden_BTD, law_BTV, strict=True):
            for t in range(LENGTH - 2):
                laws = self.laws(tokens[: t + 2], hidden[: t + 1])
                for k in range(SLOTS):
                    if (label := t + 2 + k) < LENGTH and labels[label]:
                        p = law[label - 1]
                        per_slot[k].append((p.exp() * (p - laws[k])).sum())
        return sum(0.8**k * torch.stack(x).mean() for k, x in enumerate(per_slot))


@pytest.fixture(scope="module")
def step():
    target = models.build(LLAMA, jax.random.key(0))
    kind = heads.made_for("amphista", {"heads": SLOTS}, heads.Sizes.of(target.config))
    params = shaken(heads.new(kind, target, jax.random.key(1), np.zeros(VOCABULARY)).params, 1)
    tokens_BT = jax.random.randint(jax.random.key(2), (2, LENGTH), 0, VOCABULARY)
    labels_BT = np.arange(LENGTH)[None] >= np.asarray([[3], [1]])
    return target, heads.Head(params, kind), Batch(tokens_BT, jnp.asarray(labels_BT))


def test_loss_and_gradient_of_a_step_are_those_of_a_reading_in_pytorch(step):
    target, head, batch = step

    def ours(params):
        return distill_head()(heads.Head(params, head.config), Frozen(target=target), batch)[0]

    loss, gradient = jax.jit(jax.value_and_grad(ours))(head.params)
    theirs = jax.tree.map(lambda x: torch.tensor(np.asarray(x), dtype=torch.float64).requires_grad_(), head.params)
    last = target.features(batch.tokens_BT)[0]
    law = jax.nn.log_softmax(target.unembed(last))
    given = (torch.tensor(np.array(x)).double() for x in (target.embedded(jnp.arange(VOCABULARY)), last, law))
    embeddings, hidden, law = given
    read = Slots(theirs, embeddings, target.config.norm_eps)
    expected = read.loss(torch.tensor(np.asarray(batch.tokens_BT)), np.asarray(batch.loss_mask_BT), hidden, law)
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    square = sum(float(x.grad.pow(2).sum()) for x in jax.tree.leaves(theirs))
    whole = sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(gradient))
    assert whole**0.5 == pytest.approx(square**0.5, rel=1e-4)
    for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y.grad, atol=1e-4 * float(y.grad.abs().max()) + 1e-6)


def test_what_is_trained_along_a_text_is_what_decoding_makes_with_its_cache(step):
    """Of each place, however the states before it came into the cache."""
    target, head, batch = step
    tokens_BT, on = batch.tokens_BT, InSlots(head, target)
    features = heads.features_of(target, tokens_BT, head.config.layers)
    trained = [head.logits(target, made, i) for i, made in enumerate(head.guessed(target, tokens_BT, features))]
    cache, at = on.init_cache(2, 16), 0
    for width in (4, 1, 1, 4):
        made, _, cache = on.read(features[:, at : at + width], tokens_BT[:, at + 1 : at + width + 1], cache)
        for i, logits in enumerate(trained):
            np.testing.assert_allclose(on.unembed(made)[:, :, i], logits[:, at : at + width], atol=2e-5)
        at += width


def test_the_first_stage_begins_as_the_targets_last_layer_where_that_has_its_parameters(step):
    target, head, _ = step
    made = heads.new(head.config, target, jax.random.key(3), np.zeros(VOCABULARY))
    jax.tree.map(np.testing.assert_array_equal, made.params["first"], dict(target.params["layers_1"]))
    np.testing.assert_array_equal(made.params["head"]["kernel"], target.output_matrix())
    other = models.build(LLAMA | {"attention_bias": True}, jax.random.key(0))
    apart = heads.new(head.config, other, jax.random.key(3), np.zeros(VOCABULARY)).params["first"]
    assert not np.array_equal(apart["attention"]["q"]["kernel"], other.params["layers_1"]["attention"]["q"]["kernel"])
    assert jax.tree.structure(apart) == jax.tree.structure(made.params["first"])

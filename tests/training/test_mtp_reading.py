"""One training step of an MTP module against a reading in PyTorch from the papers' formulas, which shares no code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.models import heads
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.objectives import distill_head
from tests.models.conftest import shaken

torch = pytest.importorskip("torch", reason="torch is not installed (the `test` extra has it)")

SIZE, HEADS, PAIRS, VOCABULARY, LENGTH, STEPS = 16, 4, 2, 24, 11, 3
LLAMA = {"model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": SIZE, "intermediate_size": 24}
LLAMA |= {"num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": PAIRS, "initializer_range": 0.3}


class Module:
    """Every place t on its own, as decoding goes: the text's true states up to t, then the module's own outputs."""

    def __init__(self, params, embeddings, matrix, eps):
        self.params, self.embeddings, self.matrix, self.eps = params, embeddings, matrix, eps

    def norm(self, name, x):
        return x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * self.params[name]["scale"]

    def made(self, tokens_T, hidden_TD):
        """The output at the last of these places, where token and state are side by side."""
        joint = torch.cat([self.norm("token_norm", self.embeddings[tokens_T]), self.norm("hidden_norm", hidden_TD)], -1)
        joint = joint @ self.params["fc"]["kernel"]
        layer = self.params["layer"]
        x = joint[-1] + self.attended(layer["attention"], self.norm("input_norm", joint))
        y = x / (x.pow(2).mean() + self.eps).sqrt() * layer["mlp_norm"]["scale"]
        inner = torch.nn.functional.silu(y @ layer["mlp"]["gate"]["kernel"]) * (y @ layer["mlp"]["up"]["kernel"])
        return x + inner @ layer["mlp"]["down"]["kernel"]

    def attended(self, weights, x_TD):
        size = SIZE // HEADS
        angles = torch.arange(len(x_TD))[:, None] * 1e4 ** -(torch.arange(0, size, 2) / size)

        def rotated(x_THK):
            a, b = x_THK.chunk(2, -1)
            cos, sin = angles.cos()[:, None], angles.sin()[:, None]
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        query, key, value = ((x_TD @ weights[name]["kernel"]).unflatten(-1, (-1, size)) for name in "qkv")
        query, mixed = rotated(query)[-1], []
        key = rotated(key)
        for i in range(HEADS):
            pair = i // (HEADS // PAIRS)
            mixed.append(torch.softmax(key[:, pair] @ query[i] / size**0.5, 0) @ value[:, pair])
        return torch.cat(mixed) @ weights["out"]["kernel"]

    def loss(self, tokens_BT, labels_BT, hidden_BTD):
        """FastMTP's: cross entropies of steps 1 to K, each a mean, weighted 0.6^(k-1) over the sum of these."""
        per_step = [[] for _ in range(STEPS)]
        for tokens, labels, hidden in zip(tokens_BT, labels_BT, hidden_BTD, strict=True):
            for t in range(LENGTH - 2):
                states = hidden[: t + 1]
                for k in range(STEPS):
                    label = t + 2 + k
                    if label >= LENGTH:
                        break
                    made = self.made(tokens[1:label], states)
                    if labels[label]:
                        logits = self.norm("final_norm", made) @ self.matrix
                        per_step[k].append(torch.logsumexp(logits, 0) - logits[tokens[label]])
                    states = torch.cat([states, made[None]])
        weights = [0.6**k for k in range(STEPS)]
        return sum(w * torch.stack(x).mean() for w, x in zip(weights, per_step, strict=True)) / sum(weights)


def test_loss_and_gradient_norm_of_a_step_are_those_of_a_reading_in_pytorch():
    target = models.build(LLAMA, jax.random.key(0))
    kind = heads.made_for("mtp", {}, heads.Sizes.of(target.config))
    assert [round(term.weight, 2) for term in kind.terms] == [0.51, 0.31, 0.18]
    params = shaken(heads.new(kind, target, jax.random.key(1), np.zeros(VOCABULARY)).params, 1)
    tokens_BT = jax.random.randint(jax.random.key(2), (2, LENGTH), 0, VOCABULARY)
    labels_BT = np.arange(LENGTH)[None] >= np.asarray([[3], [1]])
    head, batch = heads.Head(params, kind), Batch(tokens_BT, jnp.asarray(labels_BT))

    def ours(params):
        return distill_head()(heads.Head(params, head.config), Frozen(target=target), batch)[0]

    loss, gradient = jax.jit(jax.value_and_grad(ours))(params)
    theirs = jax.tree.map(lambda x: torch.tensor(np.asarray(x), dtype=torch.float64).requires_grad_(), params)
    frozen = [np.asarray(x) for x in (target.embedded(jnp.arange(VOCABULARY)), target.output_matrix())]
    embeddings, matrix, hidden = (torch.tensor(x).double() for x in (*frozen, np.array(target.features(tokens_BT)[0])))
    read = Module(theirs, embeddings, matrix, target.config.norm_eps)
    expected = read.loss(torch.tensor(np.asarray(tokens_BT)), labels_BT, hidden)
    expected.backward()
    square = sum(float(x.grad.pow(2).sum()) for x in jax.tree.leaves(theirs))
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    whole = sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(gradient))
    assert whole**0.5 == pytest.approx(square**0.5, rel=1e-4)
    for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y.grad, atol=1e-4 * float(y.grad.abs().max()) + 1e-6)

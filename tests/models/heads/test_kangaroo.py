"""Kangaroo's adapter against PyTorch: what it makes of a text, and one step of its training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import tree_util

from adaspec_jax.errors import UserError
from adaspec_jax.models import heads
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.objectives import distill_head
from tests.decoding.drafters.heads import target, untrained

torch = pytest.importorskip("torch")


def rotated(x_BHTK, theta):
    """Each half of a head's features turned against the other by its position."""
    count, size = x_BHTK.shape[-2:]
    angles = torch.arange(count)[:, None] * theta ** (-torch.arange(0, size, 2) / size)
    cos, sin = torch.cos(angles), torch.sin(angles)
    first, second = x_BHTK[..., : size // 2], x_BHTK[..., size // 2 :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def adapted(weights, hidden_BTD, sizes):
    """Norm, causal attention beside a residual, norm: the adapter of the released code, from the paper's words."""

    def normed(x, scale):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + sizes.norm_eps) * scale

    def split(part):
        return (inputs @ weights[f"layer/attention/{part}/kernel"]).unflatten(-1, (-1, sizes.head_dim)).transpose(1, 2)

    inputs = normed(hidden_BTD, weights["layer/attention_norm/scale"])
    query, key, value = rotated(split("q"), sizes.rope_theta), rotated(split("k"), sizes.rope_theta), split("v")
    key, value = (x.repeat_interleave(sizes.num_heads // sizes.num_kv_heads, 1) for x in (key, value))
    scores = query @ key.transpose(-1, -2) / sizes.head_dim**0.5
    later = torch.triu(torch.ones(scores.shape[-2:], dtype=torch.bool), 1)
    mixed = (scores.masked_fill(later, -torch.inf).softmax(-1) @ value).transpose(1, 2).flatten(2)
    return normed(hidden_BTD + mixed @ weights["layer/attention/out/kernel"], weights["norm/scale"])


def test_loss_and_gradient_of_a_training_step_are_those_of_a_reading_in_pytorch():
    """Soft cross entropy to the target's law over the answers' tokens, less the law's entropy."""
    head, model = untrained("kangaroo", target(), spread=0.2), target()
    rng = np.random.default_rng(3)
    tokens_BT, labels_BT = rng.integers(0, 23, (3, 11)), np.zeros((3, 11), bool)
    for row, (start, end) in enumerate([(1, 11), (4, 9), (6, 11)]):
        labels_BT[row, start:end] = True

    def loss(params):
        moved = heads.Head(params, head.config, head.tables)
        return distill_head()(moved, Frozen(target=model), Batch(jnp.asarray(tokens_BT), jnp.asarray(labels_BT)))[0]

    value, gradient = jax.value_and_grad(loss)(head.params)
    said = {"/".join(each.key for each in path): leaf for path, leaf in tree_util.tree_leaves_with_path(head.params)}
    weights = {name: torch.tensor(np.asarray(leaf), requires_grad=True) for name, leaf in said.items()}
    hidden_BTD = torch.tensor(np.asarray(model.run(tokens_BT, last=1).hidden))
    law = torch.tensor(np.asarray(model(tokens_BT)[0])).log_softmax(-1)
    matrix_DV = torch.tensor(np.asarray(model.output_matrix()))
    guessed = (adapted(weights, hidden_BTD, head.config.sizes) @ matrix_DV).log_softmax(-1)
    counted = torch.tensor(labels_BT[:, 1:])
    cross_BT = -(law.exp() * guessed).sum(-1)[:, :-1]
    entropy_BT = -(law.exp() * law).sum(-1)[:, :-1]
    theirs = (cross_BT - entropy_BT)[counted].mean()
    theirs.backward()
    assert float(value) == pytest.approx(theirs.item(), rel=2e-5)
    ours = {"/".join(each.key for each in path): leaf for path, leaf in tree_util.tree_leaves_with_path(gradient)}
    for name, leaf in ours.items():
        np.testing.assert_allclose(leaf, weights[name].grad, atol=1e-5, rtol=1e-3, err_msg=name)
    norm = sum(float((leaf.grad**2).sum()) for leaf in weights.values()) ** 0.5
    assert float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in ours.values()))) == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"exit_layer": 0}, "exit_layer is 0; it must be at least 1"),
        ({"exit_layer": 2}, "exit_layer is 2; the target has 2 layers, so it must be below"),
        ({"exit": 1}, 'a head of the kind "kangaroo" has no "exit"'),
    ],
)
def test_an_exit_that_the_target_has_not_is_refused(knobs, says):
    with pytest.raises(UserError, match=says):
        heads.made_for("kangaroo", knobs, heads.Sizes.of(target().config))

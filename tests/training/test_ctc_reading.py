"""One training step of CTC drafting against a reading of its released code's steps in PyTorch, which shares no code."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.errors import UserError
from adaspec_jax.models import heads
from adaspec_jax.training import Batch, Chunking, Frozen
from adaspec_jax.training.objectives import distill_head
from tests.models.conftest import shaken
from tests.running import slow

torch = pytest.importorskip("torch", reason="torch is not installed (the `test` extra has it)")

SIZE, HEADS, PAIRS, VOCABULARY, LENGTH = 16, 4, 2, 12, 19
LLAMA = {"model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": SIZE, "intermediate_size": 24}
LLAMA |= {"num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": PAIRS, "initializer_range": 0.3}
LABELS = ((3, LENGTH), (1, 14))  # from .. to, of two rows


class Module:
    """The layer along one text: EAGLE's, without a norm before its attention."""

    def __init__(self, params, embeddings, matrix, eps):
        self.params, self.embeddings, self.matrix, self.eps = params, embeddings, matrix, eps

    def made(self, tokens_T, hidden_TD):
        x = torch.cat([self.embeddings[tokens_T], hidden_TD], -1) @ self.params["fc"]["kernel"]
        weights, size = self.params["layer"], SIZE // HEADS
        query, key, value = (
            (x @ weights["attention"][name]["kernel"]).unflatten(-1, (-1, size)).transpose(0, 1) for name in "qkv"
        )
        angles = torch.arange(len(x))[:, None] * 1e4 ** -(torch.arange(0, size, 2) / size)
        cos, sin = (torch.cat([y, y], -1) for y in (angles.cos(), angles.sin()))

        def turned(y):
            a, b = y.chunk(2, -1)
            return y * cos + torch.cat([-b, a], -1) * sin

        query, key = turned(query), turned(key)
        key, value = (y.repeat_interleave(HEADS // PAIRS, 0) for y in (key, value))
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + mixed.transpose(0, 1).flatten(1) @ weights["attention"]["out"]["kernel"]
        y = x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * weights["mlp_norm"]["scale"]
        inner = torch.nn.functional.silu(y @ weights["mlp"]["gate"]["kernel"]) * (y @ weights["mlp"]["up"]["kernel"])
        return x + inner @ weights["mlp"]["down"]["kernel"]

    def logits(self, made):
        columns = [self.matrix]
        if "blank" in self.params:
            columns.append(self.params["blank"]["kernel"])
        return made @ torch.cat(columns, -1)


def theirs(module, rows, weights, blank):
    """Smooth L1 averaged over features, cross entropy to the law less its entropy, CTC as torch computes it.

    A row: (tokens, hidden states, whether each token is a label).
    """
    apart, lag, frames, ids = [], [], [], []
    for tokens, hidden, labels in rows:
        made = module.made(tokens[1:], hidden[:-1])[:-1]  # at t, of the token at t + 2
        logits, taught = module.logits(made).log_softmax(-1), hidden[1:-1]
        law = (taught @ module.matrix).log_softmax(-1)
        asked = torch.tensor(labels[2:])
        smooth = torch.nn.functional.smooth_l1_loss(made, taught, reduction="none").mean(-1)
        apart.append(smooth[asked])
        lag.append((law.exp() * (law - logits[:, :VOCABULARY])).sum(-1)[asked])
        likeliest = law.argmax(-1)
        for t in range(len(made) - 5):
            window = likeliest[t : t + 3]
            if bool(asked[t : t + 6].all()) and blank not in window:
                frames.append(logits[t : t + 6])
                ids.append(window)
    assert len(frames) > 8
    lengths = torch.full((len(frames),), 6), torch.full((len(frames),), 3)
    ctc = torch.nn.CTCLoss(blank=blank, reduction="mean")(torch.stack(frames, 1), torch.stack(ids), *lengths)
    parts = torch.cat(apart).mean(), torch.cat(lag).mean(), ctc
    return sum(w * part for w, part in zip(weights, parts, strict=True)), ctc


@pytest.fixture(scope="module")
def target():
    return models.build(LLAMA, jax.random.key(0))


def a_head(target, **knobs):
    kind = heads.made_for("ctc", {"noise": 0.0} | knobs, heads.Sizes.of(target.config))
    return heads.Head(shaken(heads.new(kind, target, jax.random.key(1), np.zeros(VOCABULARY)).params, 1), kind)


@pytest.fixture(scope="module")
def batch():
    tokens_BT = jax.random.randint(jax.random.key(2), (2, LENGTH), 0, VOCABULARY)
    labels_BT = np.arange(LENGTH)[None] >= np.asarray(LABELS)[:, :1]
    return Batch(tokens_BT, jnp.asarray(labels_BT & (np.arange(LENGTH)[None] < np.asarray(LABELS)[:, 1:])))


def ours(head, frozen, batch, **how):
    def loss(params):
        return distill_head(**how)(dataclasses.replace(head, params=params), frozen, batch)[0]

    return jax.jit(jax.value_and_grad(loss))(head.params)


@pytest.mark.parametrize("knobs", [{}, slow({"blank": 0}), slow({"alignment": 1.0})])
def test_loss_and_gradient_of_a_step_are_those_of_a_reading_in_pytorch(target, batch, knobs):
    head = a_head(target, **knobs)
    loss, gradient = ours(head, Frozen(target=target), batch)
    params = jax.tree.map(lambda x: torch.tensor(np.asarray(x), dtype=torch.float64).requires_grad_(), head.params)
    frozen = (target.embedded(jnp.arange(VOCABULARY)), target.output_matrix(), target.features(batch.tokens_BT)[0])
    embeddings, matrix, hidden = (torch.tensor(np.array(x)).double() for x in frozen)
    module = Module(params, embeddings, matrix, target.config.norm_eps)
    rows = zip(torch.tensor(np.asarray(batch.tokens_BT)), hidden, np.asarray(batch.loss_mask_BT), strict=True)
    weights = (1.0, 0.1, knobs.get("alignment", 0.01))
    expected, ctc = theirs(module, rows, weights, knobs.get("blank", VOCABULARY))
    expected.backward()
    assert ctc.item() > 0.1
    assert float(loss) == pytest.approx(expected.item(), rel=2e-5)
    square = sum(float(x.grad.pow(2).sum()) for x in jax.tree.leaves(params))
    assert sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(gradient)) == pytest.approx(square, rel=2e-4)
    for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(x, y.grad, atol=2e-4 * float(y.grad.abs().max()) + 1e-6)


def test_chunks_parts_and_packed_rows_change_nothing(target, batch):
    head, frozen = a_head(target, alignment=1.0), Frozen(target=target)
    whole = ours(head, frozen, batch)
    in_chunks = ours(head, frozen, batch, chunking=Chunking(logits=VOCABULARY * 7), micro_batches=2)
    packed = Batch(
        batch.tokens_BT.reshape(1, -1),
        batch.loss_mask_BT.reshape(1, -1),
        segments_BT=jnp.asarray([[1] * LENGTH + [2] * LENGTH]),
    )
    for other in (in_chunks, ours(head, frozen, packed)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=2e-4), other, whole)


def test_a_selection_keeps_the_windows_that_begin_at_a_label_that_it_keeps(target, batch):
    head = a_head(target, alignment=1.0, laws=0.0, features=1e-9)
    frozen = Frozen(target=target, reference=a_head(target, alignment=1.0, laws=0.0, features=1e-9))
    frozen = dataclasses.replace(frozen, reference=dataclasses.replace(frozen.reference, params=shaken(head.params, 5)))
    whole, half = (float(ours(head, frozen, batch, fraction=fraction)[0]) for fraction in (1.0, 0.5))
    of_all = float(ours(head, frozen, batch, fraction=0.5, normalize="official")[0])
    assert whole == pytest.approx(float(ours(head, Frozen(target=target), batch)[0]), rel=1e-5)
    assert half != pytest.approx(whole, rel=1e-3) and 0 < of_all < half


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"labels": 7}, "labels is 7; 6 frames hold no more than 6"),
        ({"blank": 12}, "blank is 12; a token of 12, or -1, is needed"),
        ({"alignment": -1.0}, "alignment is -1.0; it must be a number from 0 on"),
        ({"frames": 0, "labels": 0}, "frames is 0; it must be at least 1"),
    ],
)
def test_knobs_that_cannot_work_are_refused(target, knobs, says):
    with pytest.raises(UserError, match=says):
        a_head(target, **knobs)

"""Falcon's training: what is shown of what a head would guess wrong, and one step of it read in PyTorch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.models import heads
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.objectives import Now, distill_glancing, distill_head, glancing
from tests.models.conftest import shaken

SIZE, HEADS, PAIRS, VOCABULARY, LENGTH = 16, 4, 2, 24, 11
LLAMA = {"model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": SIZE, "intermediate_size": 24}
LLAMA |= {"num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": PAIRS, "initializer_range": 0.3}


@pytest.fixture(scope="module")
def target():
    return models.build(LLAMA, jax.random.key(0))


@pytest.fixture(scope="module")
def batch(target):
    tokens_BT = jax.random.randint(jax.random.key(2), (3, LENGTH), 0, VOCABULARY)
    labels_BT = jnp.asarray(np.arange(LENGTH)[None] >= np.asarray([[3], [1], [6]]))
    return Batch(tokens_BT, labels_BT, target_features_BTF=target.features(tokens_BT)[0])


def a_head(target, **knobs):
    kind = heads.made_for("falcon", {"noise": 0.0} | knobs, heads.Sizes.of(target.config))
    return heads.Head(shaken(heads.new(kind, target, jax.random.key(1), np.zeros(VOCABULARY)).params, 1), kind)


def test_what_is_shown_stands_at_every_kth_label_in_the_numbers_asked_for(target, batch):
    kind, mask_BT = a_head(target).config, np.asarray(batch.loss_mask_BT)
    shown_B = np.asarray([2.9, 1.0, 0.0])
    found = set()
    for seed in range(20):
        made = glancing.glanced(kind, batch, shown_B, jax.random.key(seed))
        changed_BT = np.any(np.asarray(made.target_features_BTF != batch.target_features_BTF), axis=-1)
        assert changed_BT.sum(axis=1).tolist() == [2, 1, 0]
        for b, t in zip(*np.nonzero(changed_BT), strict=True):
            first = int(np.argmax(mask_BT[b])) - 3  # the first entry that is to guess a label
            assert t >= max(first, 0) and (t - max(first, 0)) % 2 == 0 and t + 3 < LENGTH
            np.testing.assert_array_equal(made.target_features_BTF[b, t], batch.target_features_BTF[b, t + 2])
            assert made.read_tokens_BT[b, t + 1] == batch.tokens_BT[b, t + 3]
        np.testing.assert_array_equal(made.places_BT, ~changed_BT)
        np.testing.assert_array_equal(made.target_hidden_BTD, batch.target_features_BTF)
        found.add(tuple(np.flatnonzero(changed_BT)))
    assert len(found) > 8
    everything = glancing.glanced(kind, batch, np.full(3, 99.0), jax.random.key(0))
    assert (~np.asarray(everything.places_BT)).sum(axis=1).tolist() == [4, 4, 3]


@pytest.mark.parametrize("block", [2, 3, 4])
def test_no_block_counts_in_which_an_entry_sees_what_comes_after_it(target, block):
    kind = a_head(target, block=block).config
    tokens_BT = jax.random.randint(jax.random.key(3), (4, 40), 0, VOCABULARY)
    batch = Batch(tokens_BT, jnp.ones((4, 40), bool), target_features_BTF=target.features(tokens_BT)[0])
    made = glancing.glanced(kind, batch, np.full(4, 9.0 if block == 2 else 21.0), jax.random.key(5))
    shown_BT = np.any(np.asarray(made.target_features_BTF != batch.target_features_BTF), axis=-1)
    assert block == 2 or (shown_BT[:, 1:] & shown_BT[:, :-1]).any()  # several in a row
    for b in range(4):
        for last in range(block - 1, 40):
            inside = shown_BT[b, last - block + 1 : last + 1].tolist()
            assert bool(made.places_BT[b, last]) == (inside == sorted(inside, reverse=True))


def test_the_share_that_is_shown_falls_with_the_steps(target, batch, monkeypatch):
    head, asked, glanced = a_head(target), [], glancing.glanced
    monkeypatch.setattr(glancing, "glanced", lambda *given: asked.append(given[2]) or glanced(*given))
    for step in (0, 50, 100):
        now = Now(jnp.int32(step), jax.random.key(step))
        distill_glancing(steps=101)(head, Frozen(target=target, now=now), batch)
    np.testing.assert_allclose(asked[1] / asked[0], 0.275 / 0.45, rtol=1e-5)
    np.testing.assert_allclose(asked[2] / asked[0], 0.1 / 0.45, rtol=1e-5)
    nothing = a_head(target, glance=0.0, glance_end=0.0)
    plain, shown = (each(nothing, Frozen(target=target), batch)[0] for each in (distill_head(), distill_glancing()))
    assert float(plain) == float(shown) and len(asked) == 3


def test_knobs_that_cannot_be_are_refused_in_a_line(target):
    for knobs, says in (({"glance": 1.5}, "glance is 1.5; it must be at least 0"), ({"block": 0}, "block is 0; it")):
        with pytest.raises(models.heads.UserError, match=f'a head of the kind "falcon": {says}'):
            a_head(target, **knobs)


class Reading:
    """Every place on its own: the text's entries up to it through PyTorch's LSTM, and two queries of a softmax."""

    def __init__(self, torch, params, embeddings, matrix, eps):
        self.torch, self.params, self.embeddings, self.matrix, self.eps = torch, params, embeddings, matrix, eps

    def memory(self, inputs_TW):
        torch = self.torch
        names = [
            (self.params["memory"][f"layer_{i}"]["input"], self.params["memory"][f"layer_{i}"]["memory"])
            for i in range(2)
        ]
        flat, nothing = [], torch.zeros(2, 1, SIZE).double()
        for read, kept in names:
            flat += [read["kernel"].T, kept["kernel"].T, read["bias"], torch.zeros(4 * SIZE).double()]
        made = torch.lstm(inputs_TW[:, None], (nothing, nothing), flat, True, 2, 0.0, False, False, False)
        return made[0][:, 0]

    def guesses(self, told_TD):
        """The features that the last two entries make, each seeing all of them."""
        torch, layer = self.torch, self.params["layer"]
        size = SIZE // HEADS
        angles = torch.arange(len(told_TD))[:, None] * 1e4 ** -(torch.arange(0, size, 2) / size)

        def rotated(x_THK):
            a, b = x_THK.chunk(2, -1)
            cos, sin = angles.cos()[:, None], angles.sin()[:, None]
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        parts = ((told_TD @ layer["attention"][name]["kernel"]).unflatten(-1, (-1, size)) for name in "qkv")
        query, key, value = parts
        query, key, made = rotated(query), rotated(key), []
        for place in (len(told_TD) - 2, len(told_TD) - 1):
            mixed = []
            for i in range(HEADS):
                pair = i // (HEADS // PAIRS)
                mixed.append(torch.softmax(key[:, pair] @ query[place, i] / size**0.5, 0) @ value[:, pair])
            x = told_TD[place] + torch.cat(mixed) @ layer["attention"]["out"]["kernel"]
            y = x / (x.pow(2).mean() + self.eps).sqrt() * layer["mlp_norm"]["scale"]
            inner = torch.nn.functional.silu(y @ layer["mlp"]["gate"]["kernel"]) * (y @ layer["mlp"]["up"]["kernel"])
            made.append(x + inner @ layer["mlp"]["down"]["kernel"])
        return made

    def entries(self, tokens, hidden):
        """What each entry reads: the embedding of the token after it, and the hidden state."""
        return [self.torch.cat([self.embeddings[tokens[t + 1]], hidden[t]]) for t in range(LENGTH - 1)]

    def loss(self, tokens_BT, labels_BT, hidden_BTD, share):
        """(the loss, how many entries were shown) of the second pass over texts."""
        torch, terms, number = self.torch, ([], []), 0
        for tokens, labels, hidden in zip(tokens_BT, labels_BT, hidden_BTD, strict=True):
            read = self.entries(tokens, hidden)
            made = {last: self.guesses(self.memory(torch.stack(read[: last + 1]))) for last in range(1, LENGTH - 1)}
            wrong = 0
            for last, pair in made.items():
                for j, feature in enumerate(pair):
                    place = last + 1 + j
                    if place < LENGTH - 1 and labels[place + 1]:
                        wrong += int((feature @ self.matrix).argmax() != (hidden[place] @ self.matrix).argmax()) / 2
            may = [t for t in range(LENGTH - 3) if labels[t + 3]][::2]
            assert int(wrong * share) >= len(may), "so that all are shown, and chance has no say"
            for t in may:
                read[t] = torch.cat([self.embeddings[tokens[t + 3]], hidden[t + 2]])
            number += len(may)
            for last in range(1, LENGTH - 1):
                if last in may:
                    continue
                for j, feature in enumerate(self.guesses(self.memory(torch.stack(read[: last + 1])))):
                    place = last + 1 + j
                    if place >= LENGTH - 1 or not labels[place + 1]:
                        continue
                    law = torch.log_softmax(hidden[place] @ self.matrix, 0)
                    lag = (law.exp() * (law - torch.log_softmax(feature @ self.matrix, 0))).sum()
                    distance = torch.nn.functional.smooth_l1_loss(feature, hidden[place])
                    terms[j].append(distance + 0.1 * lag)
        return sum(torch.stack(term).mean() for term in terms) / 2, number


def test_loss_and_gradient_norm_of_a_step_are_those_of_a_reading_in_pytorch(target):
    """With the code's 0.9 of the divergence and 0.1 of the cross entropy to one draw in place of its expectation."""
    torch = pytest.importorskip("torch", reason="torch is not installed (the `test` extra has it)")
    head = a_head(target, glance=1.0, glance_end=1.0)
    tokens_BT = jax.random.randint(jax.random.key(2), (2, LENGTH), 0, VOCABULARY)
    labels_BT = np.arange(LENGTH)[None] >= np.asarray([[4], [5]])
    batch = Batch(tokens_BT, jnp.asarray(labels_BT))

    def ours(params):
        return distill_glancing()(dataclasses.replace(head, params=params), Frozen(target=target), batch)[0]

    loss, gradient = jax.jit(jax.value_and_grad(ours))(head.params)
    theirs = jax.tree.map(lambda x: torch.tensor(np.asarray(x), dtype=torch.float64).requires_grad_(), head.params)
    frozen = [np.asarray(x) for x in (target.embedded(jnp.arange(VOCABULARY)), target.output_matrix())]
    embeddings, matrix, hidden = (torch.tensor(x).double() for x in (*frozen, np.array(target.features(tokens_BT)[0])))
    read = Reading(torch, theirs, embeddings, matrix, target.config.norm_eps)
    expected, number = read.loss(torch.tensor(np.asarray(tokens_BT)), labels_BT, hidden, 1.0)
    expected.backward()
    assert number == 7
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    square = sum(float(x.grad.pow(2).sum()) for x in jax.tree.leaves(theirs))
    whole = sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(gradient))
    assert whole**0.5 == pytest.approx(square**0.5, rel=1e-4)
    for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y.grad, atol=1e-4 * float(y.grad.abs().max()) + 1e-6)

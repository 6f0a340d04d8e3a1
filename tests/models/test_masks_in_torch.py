"""A step at mask tokens against an independent reading in PyTorch: loss and gradient norm on fixed random weights.

PARD's training (arXiv 2504.18583) and PARD-2's loss (2605.08632), read chain by chain: a model of transformers reads
the text up to where a chain begins, then masks, and is scored at its last token. SpecDec's block (2203.16487), over a
decoder and without glancing: the same, with masks that see each other, scored at all of them.
"""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from adaspec_jax import models
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.objectives import Masks, distill_masked
from tests.training.test_masked import chains_of, minimised
from tests.training.test_revealing import WHOLE, chains

MASK, LENGTH = 60, 12
SIZES = {"model_type": "llama", "num_key_value_heads": 2, "initializer_range": 0.3}


def _a_batch():
    tokens_BT = np.random.default_rng(0).integers(0, 55, (2, LENGTH))
    labels_BT = np.zeros((2, LENGTH), bool)
    labels_BT[0, 2:], labels_BT[1, 5:9] = True, True
    return Batch(jnp.asarray(tokens_BT), jnp.asarray(labels_BT))


BATCH = _a_batch()


def loaded(draft_at, target_at):
    """(the draft with its mask, what is frozen)."""
    return models.with_mask_token(models.load(draft_at), MASK), Frozen(target=models.load(target_at))


def theirs(draft, target, tokens_BT, chains, masks):
    """(loss, norm of its gradient) by one forward pass a chain."""
    weighted, weights = 0.0, 0.0
    for row, begin, depth in chains:
        tokens = torch.tensor(tokens_BT[row])
        with torch.no_grad():
            law_TV = torch.log_softmax(target(tokens[None]).logits[0].double(), dim=-1)
        read = torch.cat([tokens[: begin + 1], torch.full((depth,), MASK)])
        made_V = torch.log_softmax(draft(read[None]).logits[0, -1].double(), dim=-1)
        place, own = begin + depth, tokens[begin + depth + 1]
        divergence = torch.sum(law_TV[place].exp() * (law_TV[place] - made_V))
        between = [law_TV[begin + s, tokens[begin + s + 1]] for s in range(depth)]
        weight = torch.exp(sum(between)) if masks.confident and between else torch.ones(())
        weighted = weighted + weight * (masks.laws * divergence - masks.tokens * made_V[own])
        weights += weight
    loss = weighted / weights
    loss.backward()
    norm = sum(float(leaf.grad.double().square().sum()) for leaf in draft.parameters()) ** 0.5
    return float(loss.detach()), norm


@pytest.mark.parametrize("masks", [{}, {"tokens": 1.0, "laws": 0.0, "confident": False}], ids=["PARD-2", "PARD"])
def test_loss_and_gradient_norm_of_a_step_are_those_of_a_reading_in_pytorch(torch_checkpoint, tmp_path, masks):
    masks = Masks(guesses=4, keep=1.0, **masks)
    made = [torch_checkpoint(tmp_path / str(layers), num_hidden_layers=layers, **SIZES) for layers in (3, 2)]
    (their_target, target_at), (their_draft, draft_at) = made
    loss, _, gradient = minimised(distill_masked(masks=masks), *loaded(draft_at, target_at), BATCH)
    tokens_BT, at = np.asarray(BATCH.tokens_BT), chains_of(BATCH, masks.guesses)
    expected = theirs(their_draft, their_target, tokens_BT, at, masks)
    np.testing.assert_allclose([loss, optax.global_norm(gradient)], expected, rtol=2e-4)
    assert expected[0] > 0.05


def test_a_step_at_a_block_of_masks_is_that_of_a_reading_in_pytorch(torch_checkpoint, tmp_path):
    their_draft, at = torch_checkpoint(tmp_path / "draft", num_hidden_layers=2, **SIZES)
    loss, _, gradient = minimised(distill_masked(masks=WHOLE), *loaded(at, at), BATCH)
    total, number = 0.0, 0
    for row, begin, count in chains(BATCH, WHOLE.guesses):
        tokens, own = torch.tensor(np.asarray(BATCH.tokens_BT)[row]), begin + 1
        read = torch.cat([tokens[:own], torch.full((WHOLE.guesses - 1,), MASK)])
        unseen = torch.triu(torch.full((len(read), len(read)), torch.finfo(torch.float32).min), diagonal=1)
        unseen[own:, own:] = 0.0
        made_KV = torch.log_softmax(
            their_draft(read[None], attention_mask=unseen[None, None]).logits[0, begin:], dim=-1
        )
        total = total - sum(made_KV[d, tokens[own + d]] for d in range(count))
        number += count
    (total / number).backward()
    norm = sum(float(leaf.grad.double().square().sum()) for leaf in their_draft.parameters()) ** 0.5
    np.testing.assert_allclose([loss, optax.global_norm(gradient)], [float(total.detach() / number), norm], rtol=2e-4)

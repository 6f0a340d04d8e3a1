"""A layer with a window keeps its last tokens in a ring, and computes what it would from all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.errors import UserError
from adaspec_jax.models.kv_cache import KVCache
from adaspec_jax.models.ring import AHEAD, held, ring_size
from tests.models.conftest import TINY_OF
from tests.running import slow

SLOTS = 420
LENGTH = 400  # rings of 5 + 128 places are written around three times
TOKENS_BT = np.random.default_rng(0).integers(0, 61, (3, LENGTH))
PARENTS = (-1, 0, 0, 1, 1, 3)  # of a tree's nodes: the root, its children, and theirs
KINDS = ("mistral", "gemma3_text", slow("gemma2"))  # all layers with windows, or some; and some that rotate otherwise
call = jax.jit(lambda model, *args, **kw: model(*args, **kw))


@pytest.fixture(scope="module")
def model_of():
    made = {}

    def build(family):
        if family not in made:
            hf = TINY_OF[family] | {"max_position_embeddings": 512}
            model = models.build(hf, jax.random.key(0))
            made[family] = model, np.asarray(call(model, TOKENS_BT)[0])
        return made[family]

    return build


def close(ours, expected):
    np.testing.assert_allclose(np.asarray(ours), expected, atol=2e-5 * np.abs(expected).max())


def at(logits_BTV, lengths_B, count=1):
    return np.stack([logits_BTV[b, n : n + count] for b, n in enumerate(lengths_B)])


def test_a_place_holds_the_latest_slot_that_lies_there():
    for length in (0, 1, 6, 7, 8, 30):
        places = held(jnp.array([length]), 7)[0].tolist()
        for place, slot in enumerate(places):
            written = [s for s in range(length) if s % 7 == place]
            assert slot == written[-1] if written else slot < 0


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("chunks", [slow([400]), [7, 130, 64, 65, 1, 1, 132], slow([3] + [1] * 60 + [300, 2])], ids=str)
def test_reading_in_chunks_is_reading_at_once(model_of, family, chunks):
    model, expected = model_of(family)
    cache, start = model.init_cache(3, SLOTS), 0
    for count in chunks:
        logits, cache = call(model, TOKENS_BT[:, start : start + count], cache)
        close(logits, expected[:, start : start + count])
        start += count
    assert cache.slots == SLOTS


@pytest.mark.parametrize("family", KINDS)
def test_prompts_of_every_length_are_read_at_once_and_gone_on_with(model_of, family):
    """Right padding would fill the ring, were it not taken back before it counts."""
    model, expected = model_of(family)
    for lengths_B in ([400 - 8, 170, 1], [133, 132, 5], [134, 250, 60]):
        lengths_B = np.array(lengths_B)
        padded = np.where(np.arange(LENGTH) < lengths_B[:, None], TOKENS_BT, 0)
        _, cache = call(model, padded, model.init_cache(3, SLOTS))
        cache = cache.roll_back(lengths_B)
        assert not cache.tails
        for step in range(8):
            logits, cache = call(model, at(TOKENS_BT[..., None], lengths_B + step)[..., 0], cache)
            close(logits, at(expected, lengths_B + step))


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("count", [1, AHEAD // 2, AHEAD])
def test_rejected_guesses_leave_no_trace_across_the_edge_of_the_ring(model_of, family, count):
    """By one call or token by token; `AHEAD` is as many as there may be."""
    model, expected = model_of(family)
    for base in (ring_size(5, SLOTS) - 1, 200):
        lengths_B = np.array([base, base + 1, base - 3])
        padded = np.where(np.arange(LENGTH) < lengths_B[:, None], TOKENS_BT, 0)
        cache = call(model, padded, model.init_cache(3, SLOTS))[1].roll_back(lengths_B)
        wrong = jnp.full((3, count), 7)
        for _ in range(AHEAD // count):
            _, cache = call(model, wrong, cache)
        cache = cache.roll_back(lengths_B)
        logits, _ = call(model, at(TOKENS_BT[..., None], lengths_B, 6)[..., 0], cache)
        close(logits, at(expected, lengths_B, 6))


@pytest.mark.parametrize("family", KINDS)
def test_a_tree_over_the_edge_is_its_branches_one_by_one(model_of, family):
    model, _ = model_of(family)
    lengths_B = np.array([ring_size(5, SLOTS) - 2, 260, 40])
    padded = np.where(np.arange(LENGTH) < lengths_B[:, None], TOKENS_BT, 0)
    cache = call(model, padded, model.init_cache(3, SLOTS))[1].roll_back(lengths_B)
    nodes = np.random.default_rng(1).integers(0, 61, (3, len(PARENTS)))
    ancestors = [[i] for i in range(len(PARENTS))]
    for i, parent in enumerate(PARENTS):
        ancestors[i] += ancestors[parent] if parent >= 0 else []
    mask = np.arange(SLOTS)[None, None] < lengths_B[:, None, None]
    mask = np.repeat(mask, len(PARENTS), axis=1)
    for b, length in enumerate(lengths_B):
        for i, above in enumerate(ancestors):
            mask[b, i, [length + j for j in above]] = True
    depth = np.array([len(above) - 1 for above in ancestors])
    logits, grown = call(model, nodes, cache, positions_BT=lengths_B[:, None] + depth, mask_BTS=mask)
    for i, above in enumerate(ancestors):
        branch = sorted(above)
        close(logits[:, i], np.asarray(call(model, nodes[:, branch], cache)[0][:, -1]))
    kept = grown.keep_path(jnp.asarray(lengths_B), jnp.array([[0, 1, 4, 99]] * 3)).roll_back(lengths_B + 3)
    _, straight = call(model, nodes[:, [0, 1, 4]], cache)
    after = [call(model, TOKENS_BT[:, :4], each)[0] for each in (kept, straight)]
    close(after[0], np.asarray(after[1]))


def test_a_tail_that_nobody_settled_counts_whole(model_of):
    model, expected = model_of("gemma2")
    _, cache = call(model, TOKENS_BT[:, :300], model.init_cache(3, SLOTS))
    assert cache.tails and cache.tails[1] is None
    logits, cache = call(model, TOKENS_BT[:, 300:302], cache)
    close(logits, expected[:, 300:302])
    assert not cache.tails
    with pytest.raises(ValueError, match="a ring takes back 128 tokens"):
        call(model, TOKENS_BT[:, :100], cache)[1].keep_path(np.zeros(3, np.int32), np.zeros((3, 2), np.int32))


def test_memory_of_a_windowed_layer_does_not_grow_with_the_text(model_of):
    model, _ = model_of("gemma2")
    sizes = [[x.nbytes for x in model.init_cache(2, slots).keys] for slots in (1000, 4000)]
    assert sizes[0][0] == sizes[1][0] and sizes[1][1] == 4 * sizes[0][1]
    short = model.init_cache(2, 100)
    assert {x.shape[2] for x in short.keys} == {100} and short.ahead is None and model.init_cache(2, 400).ahead == AHEAD


def test_what_chooses_among_cached_tokens_says_that_it_cannot(model_of):
    model, _ = model_of("gemma2")
    cache = model.init_cache(1, 300)
    with pytest.raises(UserError, match="cannot be chosen where layers attend to windows"):
        cache.select(jnp.zeros((1, 2, 4), jnp.int32))
    with pytest.raises(UserError, match="cannot be chosen where layers attend to windows"):
        model.attention_to_keys(0, jnp.zeros((1, 1, 32)), cache, jnp.zeros((1, 1), jnp.int32))
    plain = KVCache.zeros(1, 8, layers=1, kv_heads=1, head_dim=2, dtype=jnp.float32)
    assert plain.select(jnp.zeros((1, 1, 4), jnp.int32)).slots == 4


def test_a_kernel_without_windows_or_caps_is_refused_for_them(model_of):
    with pytest.raises(UserError, match='"cudnn" takes neither windows nor soft caps, and gemma2 has them'):
        model_of("gemma2")[0].with_attention("cudnn", "bfloat16", backend="gpu")

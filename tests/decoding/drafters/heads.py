"""A tiny target, heads trained on it for a moment, and what they guess by the path that training takes."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.decoding.drafters.target.adapter import AdapterDrafter
from adaspec_jax.decoding.drafters.target.blocks import BlockDrafter
from adaspec_jax.decoding.drafters.target.collapse import FrameTree
from adaspec_jax.decoding.drafters.target.coupled import CoupledChain, CoupledGrowth
from adaspec_jax.decoding.drafters.target.features import FeatureDrafter, FeatureGrowth, FeatureTree
from adaspec_jax.decoding.drafters.target.look_ahead import LookAheadDrafter
from adaspec_jax.decoding.drafters.target.parallel_heads import ParallelChain, ParallelTree
from adaspec_jax.decoding.drafters.target.sequential_heads import SequentialChain, SequentialTree
from adaspec_jax.decoding.drafters.target.slots import SlotChain, SlotTree
from adaspec_jax.decoding.stopping import UntilWeak
from adaspec_jax.models import heads
from adaspec_jax.models.heads.parts.coupled import Coupled
from adaspec_jax.models.heads.parts.early import Early
from adaspec_jax.models.heads.parts.look_ahead import LookAhead
from adaspec_jax.models.heads.parts.recurrent import Recurrent
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.objectives import distill_head
from tests.decoding.recording import tiny_llama

VOCAB, LONGEST = 23, 48
KNOBS = {
    "eagle": {"noise": 0.0, "laws": 1.0},
    "eagle3": {"steps": 3, "vocabulary": 15},
    "kangaroo": {"exit_layer": 1},
    "medusa": {"heads": 3, "hard": False},
    "hydra": {"heads": 3, "hard": False},
    "hydra_plus": {"heads": 3, "blocks": 2},
    "mtp": {"hard": False},
    "amphista": {"heads": 3},
    "ctc": {"noise": 0.0, "laws": 1.0, "alignment": 0.3},
    "dflash": {"block": 4, "depth": 2, "hard": False},
    "p_eagle": {"steps": 3, "depth": 2, "keep": 0.9},
    "pass": {"slots": 3},
    "falcon": {"noise": 0.0, "laws": 1.0, "features": 0.0},
}
STEPS = {"p_eagle": 60}  # of more it learns these few texts by heart, and guesses nothing of others
TREE = ((3,), (2, 1, 0), (1, 0, 2))


@functools.cache
def target():
    return tiny_llama(num_hidden_layers=2, initializer_range=0.2)  # so that a moment's training tells


def untrained(name, model, seed=2, spread=0.0, **knobs):
    """A head before training, moved away from its beginning by `spread`."""
    kind = heads.made_for(name, KNOBS[name] | knobs, heads.Sizes.of(model.config))
    head = heads.new(kind, model, jax.random.key(seed), np.arange(model.config.vocab_size) % 7)
    leaves, structure = jax.tree.flatten(head.params)
    keys = jax.random.split(jax.random.key(seed + 100), len(leaves))
    moved = [x + spread * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)]
    return dataclasses.replace(head, params=jax.tree.unflatten(structure, moved))


@functools.cache
def texts():
    """What the target writes, [48, 24]."""
    begun = np.random.default_rng(0).integers(0, VOCAB, (48, 2))
    how = {"max_new_tokens": 22, "sampling": Sampling(0.6), "eos_id": -1}
    return generate(target(), NoDraft(), Context(begun, np.full(48, 2)), jax.random.key(5), **how).tokens_BS[:, :24]


@functools.cache
def trained(name, steps=None):
    """A head after so many steps on what the target writes."""
    return trained_on(name, Batch(texts(), jnp.ones((48, 24), bool)), steps or STEPS.get(name, 250))


def trained_on(name, batch, steps):
    head = untrained(name, target())
    optimizer, objective = optax.adam(5e-3), distill_head()

    def step(state, _):
        params, moments = state

        def loss(params):
            return objective(dataclasses.replace(head, params=params), Frozen(target(), None), batch)[0]

        updates, moments = optimizer.update(jax.grad(loss)(params), moments)
        return (optax.apply_updates(params, updates), moments), None

    begun = head.params, optimizer.init(head.params)
    (params, _), _ = jax.jit(lambda begun: jax.lax.scan(step, begun, length=steps))(begun)
    return dataclasses.replace(head, params=params)


def on(head, model=None):
    return head.config.on_target(head, target() if model is None else model)


WAYS = {
    "amphista chain": lambda on: SlotChain(on, 3),
    "amphista tree": lambda on: SlotTree(on, TREE),
    "ctc chain": lambda on: FeatureDrafter(on, 3),
    "ctc tree": lambda on: FrameTree(on, TREE),
    "eagle chain": lambda on: FeatureDrafter(on, 3),
    "eagle tree": lambda on: FeatureTree(on, TREE),
    "eagle grown": lambda on: FeatureGrowth(on, 8, 3, 3),
    "eagle3 chain": lambda on: FeatureDrafter(on, 3),
    "eagle3 grown": lambda on: FeatureGrowth(on, 8, 3, 3),
    "mtp chain": lambda on: FeatureDrafter(on, 3),
    "mtp grown": lambda on: FeatureGrowth(on, 8, 3, 3),
    "dflash chain": lambda on: BlockDrafter(on, 3),
    "p_eagle chain": lambda on: BlockDrafter(on, 3),
    "falcon chain": lambda on: CoupledChain(on, 3),
    "falcon grown": lambda on: CoupledGrowth(on, 8, 3, 3),
    "pass slots": lambda on: LookAheadDrafter(on, 3),
    "kangaroo chain": lambda on: AdapterDrafter(on, 3),
    "kangaroo weak": lambda on: AdapterDrafter(on, 3, UntilWeak(0.3, limit=3), widths=(1, 2)),
    "medusa chain": lambda on: ParallelChain(on, 3),
    "medusa tree": lambda on: ParallelTree(on, TREE),
    "hydra chain": lambda on: SequentialChain(on, 3),
    "hydra tree": lambda on: SequentialTree(on, TREE),
    "hydra_plus chain": lambda on: SequentialChain(on, 3),
    "hydra_plus tree": lambda on: SequentialTree(on, TREE),
}


def drafter_of(name):
    """(a trained head, a drafter of it)."""
    head = trained(name.split()[0])
    return head, WAYS[name](on(head))


class Said:
    """What a head makes of a text and a path of guesses after it, by the path that training takes: whole texts."""

    def __init__(self, head, depth: int = 3, *, blank: bool = False) -> None:
        """`blank`: with a column of its own for it, where the head has one."""
        config = head.config
        if isinstance(config, Recurrent | Coupled):
            config = dataclasses.replace(config, steps=depth)
        self._early, self._ahead = isinstance(config, Early), isinstance(config, LookAhead)
        self._known: dict[tuple[int, ...], np.ndarray] = {}
        head = dataclasses.replace(head, config=config)

        @jax.jit
        def run(tokens_BT):
            features_BTF = heads.features_of(target(), tokens_BT, config.layers)
            made = head.guessed(target(), tokens_BT, features_BTF)
            laws = [head.logits(target(), x, i) for i, x in enumerate(made)]
            laws = laws if blank else [config.spread(head, law) for law in laws]
            return jnp.stack([*([target()(tokens_BT)[0]] if self._ahead else []), *laws])[:, 0]

        self._run = run

    def logits(self, text, path=()) -> np.ndarray:
        """After `text` and `path`: of the place whose hidden state comes before the text's last token.

        Of a head on the target's first layers, whose guesses have hidden states too, that of the path's end; at
        look-ahead slots, of the target itself and then of the slots after the text's last token.
        """
        whole = (*text, *path)
        if whole not in self._known:
            padded = np.zeros((1, LONGEST), np.int32)
            padded[0, : len(whole)] = whole
            self._known[whole] = np.asarray(self._run(padded))
        if self._early:
            return self._known[whole][0, len(whole) - 1]
        return self._known[whole][len(path), len(text) - (1 if self._ahead else 2)]

    def logprobs(self, text, path=()) -> np.ndarray:
        logits = self.logits(text, path).astype(np.float64)
        return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())

"""A small head of every kind and every switch, with no parameter at zero or one."""

import jax
import numpy as np

from adaspec_jax.models import heads
from tests.models.conftest import shaken

VARIANTS = {
    "amphista": ("amphista", {"heads": 2}),
    "ctc": ("ctc", {}),
    "ctc_token": ("ctc", {"blank": 0}),
    "eagle": ("eagle", {}),
    "eagle_bias": ("eagle", {"bias": True}),
    "eagle3": ("eagle3", {}),
    "eagle3_vocabulary": ("eagle3", {"vocabulary": 20, "norm_residual": True}),
    "eagle3_switches": ("eagle3", {"norm_fused": True, "norm_output": True, "taps": (0, 1)}),
    "kangaroo": ("kangaroo", {"exit_layer": 1}),
    "medusa": ("medusa", {}),
    "medusa_blocks": ("medusa", {"heads": 2, "blocks": 2, "bias": False}),
    "hydra": ("hydra", {"heads": 2}),
    "hydra_plus": ("hydra_plus", {"heads": 2, "blocks": 2}),
    "mtp": ("mtp", {}),
    "dflash": ("dflash", {"block": 4, "depth": 2}),
    "p_eagle": ("p_eagle", {"steps": 3, "depth": 2, "vocabulary": 20}),
    "falcon": ("falcon", {}),
    "pass": ("pass", {"slots": 3}),
    "falcon_longer": ("falcon", {"block": 3, "memories": 1, "linear": True}),
}


def new(variant, target, *, seed=0):
    """A random head of that variant on the target."""
    kind, knobs = VARIANTS[variant]
    config = heads.made_for(kind, knobs, heads.Sizes.of(target.config))
    counts_V = np.random.default_rng(seed).integers(0, 100, target.config.vocab_size)
    head = heads.new(config, target, jax.random.key(seed), counts_V)
    return heads.Head(shaken(head.params, seed), config, head.tables)

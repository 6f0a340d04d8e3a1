"""A draft that is some of its target's own layers: which, and the architecture that follows from them."""

import dataclasses

from adaspec_jax.config.architectures import Architecture
from adaspec_jax.config.experiment import CUT, Experiment


def with_cut(config: Experiment) -> Experiment:
    """The config with layers and architecture of a draft that is cut from the target; any other as it is.

    What it gives comes back from it unchanged. Layers that cannot be are left for `validate` to name.
    """
    draft, whole = config.draft, config.target.architecture
    if draft.init != CUT or whole is None or not isinstance(draft.layers, tuple | list | str):
        return config
    layers = tuple(draft.layers or evenly_spaced(whole.num_layers))
    draft = dataclasses.replace(draft, layers=layers, architecture=of_layers(whole, len(layers)))
    return dataclasses.replace(config, draft=draft)


def of_layers(architecture: Architecture, count: int) -> Architecture:
    """The same architecture with so many layers."""
    return dataclasses.replace(architecture, **{architecture.DEPTH: count})


def evenly_spaced(num_layers: int) -> tuple[int, ...]:
    """A quarter of the layers, rounded, with the first and the last; at least two where there are two [ours]."""
    count = min(max((num_layers + 2) // 4, 2), num_layers)
    return tuple(i * (num_layers - 1) // max(count - 1, 1) for i in range(count))

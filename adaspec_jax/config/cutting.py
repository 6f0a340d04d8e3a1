"""Models that are some of their target's own layers: which, and the architecture that follows from them."""

import dataclasses

from adaspec_jax.config.experiment import CUT, MODELS, Experiment


def with_cut(config: Experiment) -> Experiment:
    """The config with what follows from the target: layers and architecture of models cut from it, sizes of heads.

    What it gives comes back from it unchanged. Layers that cannot be are left for `validate` to name.
    """
    whole, found = config.target.architecture, {}
    for name in ("draft", "qualifier"):
        part = getattr(config, name)
        if part.init == CUT and whole is not None and isinstance(part.layers, tuple | list | str):
            layers = tuple(part.layers or evenly_spaced(whole.num_layers))
            found[name] = dataclasses.replace(part, layers=layers, architecture=whole.of_layers(layers))
    if config.draft.kind not in MODELS and whole is not None:
        found["draft"] = dataclasses.replace(config.draft, architecture=whole.of_layers((0,)))
    return dataclasses.replace(config, **found) if found else config


def evenly_spaced(num_layers: int) -> tuple[int, ...]:
    """A quarter of the layers, rounded, with the first and the last; at least two where there are two [ours]."""
    count = min(max((num_layers + 2) // 4, 2), num_layers)
    return tuple(i * (num_layers - 1) // max(count - 1, 1) for i in range(count))

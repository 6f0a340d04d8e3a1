"""Will a run fit, and how fast can it be: every stage compiled ahead of time, on abstract values, for a topology."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from adaspec_jax import models
from adaspec_jax.config import Architecture, Experiment, with_cut
from adaspec_jax.devices.ahead_of_time import at_effort, bytes_limit, processors
from adaspec_jax.devices.topologies import Topology
from adaspec_jax.models.causal_lm import parameter_shapes
from adaspec_jax.models.heads import Head
from adaspec_jax.pipeline import heads
from adaspec_jax.pipeline.layout import check_tensor_axis, mesh_for
from adaspec_jax.pipeline.memory import Memory
from adaspec_jax.pipeline.stage_spec import stage_spec
from adaspec_jax.planning.decoding import plan_decoding
from adaspec_jax.planning.examples import examples_of
from adaspec_jax.planning.kept import Kept
from adaspec_jax.planning.slices import Slice
from adaspec_jax.planning.training import plan_training
from adaspec_jax.training import Frozen

STAGES = ("target", "reference", "draft", "qualifier", "decode")
Model = models.CausalLM | Head
_UPDATES = 1000  # a schedule needs an end; where it lies changes no size and no time


class Plan:
    """What every stage of a config needs on a topology; each is compiled when it is asked for.

    For TPUs training stages are compiled at the compiler's lowest effort, in two fifths of the time, unless
    `full_effort`: they need the same memory within 2 % (`tests/planning/test_effort.py`); decoding would need a third
    more. `kept`: what is known of programs already.
    """

    def __init__(
        self,
        config: Experiment,
        topology: Topology,
        *,
        compiling: bool = True,
        full_effort: bool = False,
        kept: Kept | None = None,
    ) -> None:
        config = with_cut(config)
        fits = {"target": config.target, "reference": config.reference, "draft": config.draft}
        if config.qualifier.epochs:
            check_tensor_axis(config.mesh, "qualifier", config.qualifier)
            fits["qualifier"] = config.qualifier
        self.mesh = mesh_for(config.mesh, fits, config.evaluation.batch_size, devices=topology.devices)
        self.limit = topology.chip.memory if topology.chip else bytes_limit(topology.devices[0])
        self._topology, self._compiling, self._kept = topology, compiling, Kept() if kept is None else kept
        self._lowest = 0.0 if full_effort or topology.backend != "tpu" or not compiling else -1.0
        where = {"mesh": self.mesh, "backend": topology.backend}
        self._stages = {
            name: stage_spec(config, fit, steps=_UPDATES * fit.accumulate, **where) for name, fit in fits.items()
        }
        kernel = {"kernel": config.attention, "dtype": config.dtype, "backend": topology.backend}
        sizes = {name: fit.architecture for name, fit in fits.items() if name != "reference"}  # whose are the draft's
        self._models = {name: _model(architecture, **kernel) for name, architecture in sizes.items()}
        if (asked := heads.asked_by(config.draft, config.target.architecture, fits)) is not None:
            self._models["draft"] = heads.shapes(asked, self._models["target"]).with_attention(**kernel)
        if (masks := self._stages["draft"].masks) is not None:  # whichever row it is, sizes and times are the same
            self._models["draft"] = models.with_mask_token(self._models["draft"], 0, masks.block)
        self._evaluation, self._published = config.evaluation, config.published.adaspec
        self.examples, self.assumed = examples_of(config.data)

    def effort(self, name: str) -> float:
        """What the compiler gives a stage."""
        return 0.0 if name == "decode" else self._lowest

    def stages(self, names: Sequence[str], *, known: Mapping[str, Any] | None = None) -> Iterator[tuple[str, dict]]:
        """(name, figures) of several stages in order, each as soon as it and those before it are known.

        Stages of one effort are compiled beside each other. `known`: figures of all of them, to which the largest
        batches are then added; else none is searched for.
        """
        for effort, group in itertools.groupby(names, self.effort):
            with at_effort(effort), ThreadPoolExecutor(processors()) as pool:
                begun = [(name, pool.submit(self._again, name, known)) for name in group]
                for name, figures in begun:
                    yield name, figures.result()

    def _again(self, name: str, known: Mapping[str, Any] | None) -> dict[str, Any]:
        """As `stages` says: anew without a search, or as it was known and with one."""
        chosen = (known or {}).get(name, {}).get("memory")
        return self._stage(name, search=known is not None, memory=Memory(**chosen) if chosen else None)

    def stage(self, name: str, *, search: bool = True, memory: Memory | None = None) -> dict[str, Any]:
        """Figures of one of `STAGES`, per device; KeyError for a qualifier where there is none.

        `search`: for the largest batch. `memory`: what an earlier plan of this stage chose, so as not to choose again.
        """
        with at_effort(self.effort(name)):
            return self._stage(name, search=search, memory=memory)

    def _stage(self, name: str, *, search: bool, memory: Memory | None) -> dict[str, Any]:
        on = Slice(self._topology, self.mesh, self.limit, self._compiling, self.effort(name), self._kept)
        dtype = self._stages["target"].dtype
        target, draft = (_cast(self._models[name], dtype) for name in ("target", "draft"))
        if name == "decode":
            stage = self._stages["draft"]
            how = {"table": stage.table, "length": stage.buckets[-1], "published": self._published}
            return plan_decoding(on, target, draft, spec=self._evaluation, **how, search=search)
        frozen = Frozen(None if name == "target" else target, draft if name == "draft" else None)
        model = _cast(self._models["draft" if name == "reference" else name], jnp.float32)
        how = {"examples": self.examples, "memory": memory, "search": search}
        return plan_training(on, self._stages[name], model, frozen, **how)


def left_out(architecture: Architecture, hf: Mapping[str, Any], place: str) -> list[str]:
    """What the config.json of a place says of the decoder and the architecture read from it does not, a line each.

    `UserError` where a run would refuse what it describes.
    """
    theirs, ours = models.described(dict(hf), place), models.config_from_hf(architecture.hf_config())
    compared = [item.name for item in dataclasses.fields(ours) if item.compare and item.name != "eos_token_id"]
    values = {name: (getattr(theirs, name), getattr(ours, name)) for name in compared}
    return [f"{place}: {name} is {there}, planned as {here}" for name, (there, here) in values.items() if there != here]


def _model(architecture: Architecture, **kernel: str) -> models.CausalLM:
    """In float32 and on abstract values, with the kernel chosen."""
    config = models.config_from_hf(architecture.hf_config())
    return models.CausalLM(parameter_shapes(config), config).with_attention(**kernel)


def _cast(model: Model, dtype: Any) -> Model:
    return jax.eval_shape(lambda model: model.astype(dtype), model)

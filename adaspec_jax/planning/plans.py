"""Will a run fit, and how fast can it be: every stage compiled ahead of time, on abstract values, for a topology."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from adaspec_jax import models
from adaspec_jax.config import Experiment
from adaspec_jax.decoding import ChainDrafter, Context, Sampling, generate
from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import Needed, abstract, bytes_limit, compiled_or_needed, lowered, needed
from adaspec_jax.devices.topologies import Chip, Topology
from adaspec_jax.errors import UserError
from adaspec_jax.models.causal_lm import parameter_shapes
from adaspec_jax.pipeline.layout import chunking_for, mesh_for, schedule, table_of
from adaspec_jax.pipeline.memory import SPARE, Memory, choose
from adaspec_jax.pipeline.program import program, step_arguments
from adaspec_jax.planning.roofline import activations, argument_bytes, bytes_of_parts, size_of, verdict
from adaspec_jax.planning.step_costs import collective_bytes, flops
from adaspec_jax.training import Frozen

STAGES = ("target", "reference", "draft", "decode")
TRAINING_SHARE, DECODING_SHARE = 0.4, 0.6  # of the roofline bound; assumed, and said so beside every time
SUPERVISED = 0.6  # of a batch's positions, assumed: no data is read
# Rows of the training splits, where a task is not generated.
EXAMPLES = {"gsm8k": 7473, "alpaca": 52_002, "mbpp": 374, "cnn_dailymail": 287_113, "xsum": 204_045}


class Plan:
    """What every stage of a config needs on a topology; each is compiled when it is asked for."""

    def __init__(self, config: Experiment, topology: Topology, *, compiling: bool = True) -> None:
        self.config, self.topology, self._compiling = config, topology, compiling
        self.mesh = mesh_for(config, topology.devices)
        self.chunking = chunking_for(config, self.mesh, topology.backend)
        self.limit = topology.chip.memory if topology.chip else bytes_limit(topology.devices[0])

    def stage(self, name: str, *, search: bool = True, memory: Memory | None = None) -> dict[str, Any]:
        """Figures of "target", "reference", "draft" or "decode", per device.

        `search`: for the largest batch. `memory`: what an earlier plan of this stage chose, so as not to choose again.
        """
        return self._decode(search) if name == "decode" else self._training(name, search, memory)

    def _model(self, name: str, dtype: Any) -> models.CausalLM:
        architecture = getattr(self.config, "target" if name == "target" else "draft").architecture
        config = models.config_from_hf(architecture.hf_config())
        model = models.CausalLM(parameter_shapes(config), config)
        model = model.with_attention(self.config.attention, self.config.dtype, backend=self.topology.backend)
        return jax.eval_shape(lambda model: model.astype(dtype), model)

    def _training(self, name: str, search: bool, memory: Memory | None) -> dict[str, Any]:
        config = self.config
        epochs, rows = schedule(config, name)
        if not epochs:
            return {"fits": True, "skipped": f"{name}.epochs is 0: nothing is trained"}
        length = config.data.buckets[-1]
        compute = partial(self._model, dtype=config.dtype)
        frozen = Frozen(None if name == "target" else compute("target"), compute("draft") if name == "draft" else None)
        model = self._model(name, jnp.float32)
        groups = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        seen: dict[tuple[Memory, int], Any] = {}

        def bytes_of(memory: Memory, rows: int = rows) -> int:
            if (memory, rows) not in seen:
                made = program(name, config, memory=memory, chunking=self.chunking, updates=1000)
                arguments = step_arguments(made, model, frozen, mesh=self.mesh, rows=rows, length=length)
                tokens = rows * length // memory.micro_batches // groups
                seen[memory, rows] = self._compiled(
                    made.step, *arguments, more=activations(model, memory, self.mesh, tokens)
                )
            return seen[memory, rows][2]

        written = Memory.written(config, name, self.topology.backend)
        if memory is None and config.memory == "auto":
            try:
                memory, _ = choose(
                    written,
                    rows=rows // groups,
                    may_adapt=name == "target",
                    limit=self.limit and int(self.limit * (1 - SPARE)),
                    bytes_of=bytes_of,
                )
            except UserError:
                memory = list(seen)[-1][0]
        memory = memory or written
        size = bytes_of(memory)
        fits = self.limit is None or size <= self.limit
        jaxpr, compiled, _ = seen[memory, rows]
        chunk = self.chunking.size(rows * length // groups, model.config.vocab_size)
        rounds = math.ceil(SUPERVISED * rows * length / groups / chunk)
        counted = flops(jaxpr, rounds=rounds)
        figures = {
            "fits": fits,
            "hbm_bytes": size,
            "hbm_limit_bytes": self.limit,
            "how": "compiled" if self._compiling else "estimated: libtpu is not installed",
            **bytes_of_parts(compiled),
            "chosen": memory.in_words(),
            "memory": dataclasses.asdict(memory),
            "mesh": dict(self.mesh.shape),
            "batch": rows,
            "length": length,
            "epochs": epochs,
            "flops": counted,
            "collective_bytes": collective_bytes(compiled.as_text(), rounds=rounds) if compiled else None,
            "largest_batch": None,
            **self._times(counted, compiled and needed(compiled), rows * length, TRAINING_SHARE),
        }
        examples = EXAMPLES.get(config.data.task, config.data.num_train)
        steps = round(epochs * examples) // rows
        hours = figures["step_seconds"] and steps * figures["step_seconds"] / 3600
        figures |= {"examples": examples, "steps": steps, "hours": hours}
        if search and self.limit and self._compiling:
            step = groups * memory.micro_batches
            figures["largest_batch"] = self._largest(rows, size, step, lambda n: bytes_of(memory, n))
        return figures

    def _largest(self, rows: int, size: int, step: int, bytes_at: Callable[[int], int]) -> int:
        """A multiple of `step` rows, by a line through two compiled sizes and a compiled check; 0 where none fits."""
        other = rows * 2 if size <= self.limit else max(rows // 2 // step, 1) * step
        if other == rows:
            return 0
        slope = (bytes_at(other) - size) / (other - rows)
        guess = int((rows + (self.limit - size) / max(slope, 1)) // step * step)
        guess = min(max(guess, 0), 4096 * step)
        while guess > 0 and bytes_at(guess) > self.limit:
            guess -= max(guess // 16 // step, 1) * step
        return max(guess, 0)

    def _decode(self, search: bool) -> dict[str, Any]:
        """The whole speculative program, and what a round of it reads."""
        config, spec = self.config, self.config.evaluation
        rows, length = spec.batch_size, config.data.buckets[-1]
        gamma = spec.draft_length or 5
        target, draft = self._model("target", config.dtype), self._model("draft", config.dtype)
        shape = partial(jax.ShapeDtypeStruct, dtype=jnp.int32, sharding=NamedSharding(self.mesh, sharding.BATCH))
        decode = partial(
            generate,
            key=jax.random.key(0),
            max_new_tokens=spec.max_new_tokens,
            sampling=Sampling(temperature=spec.temperature),
            eos_id=0,
        )

        @functools.cache
        def compiled_for(rows: int) -> tuple[jax.stages.Compiled | None, int]:
            return self._compiled(
                jax.jit(lambda target, drafter, prompt: decode(target, drafter, prompt)),
                abstract(target, self.mesh),
                ChainDrafter(abstract(draft, self.mesh, table_of(config, "draft")), length=gamma),
                Context(shape((rows, length)), shape((rows,))),
                more=0,
            )[1:]

        compiled, size = compiled_for(rows)
        figures = {
            "fits": self.limit is None or size <= self.limit,
            "hbm_bytes": size,
            "hbm_limit_bytes": self.limit,
            "how": "compiled" if self._compiling else "estimated: libtpu is not installed",
            **bytes_of_parts(compiled),
            "mesh": dict(self.mesh.shape),
            "batch": rows,
            "length": length,
            "largest_batch": None,
            "chosen": "nothing given up",
        }
        if search and self.limit and self._compiling:
            groups = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
            figures["largest_batch"] = self._largest(rows, size, groups, lambda n: compiled_for(n)[1])
        chip = self.topology.chip
        if chip is None:
            return figures | dict.fromkeys(("flops", "step_seconds", "tokens_per_second", "break_even"))
        seconds = partial(self._call_seconds, chip, rows=rows, slots=length + spec.max_new_tokens)
        plain = seconds("target", width=1)
        c = seconds("draft", width=1) / plain
        v = lambda n: seconds("target", width=n + 1) / plain  # noqa: E731
        return figures | {
            "flops": 2.0 * rows * size_of(target),
            "step_seconds": plain / DECODING_SHARE,
            "roofline_seconds": plain,
            "tokens_per_second": rows * DECODING_SHARE / plain,
            "break_even": verdict(c, v, config.published.adaspec),
        }

    def _call_seconds(self, chip: Chip, name: str, *, rows: int, width: int, slots: int) -> float:
        """The roofline bound of one cached call: weights and a half-full cache are read, or the products computed."""
        model = self._model(name, self.config.dtype)
        c, item = model.config, jnp.dtype(self.config.dtype).itemsize
        cut = 1 if table_of(self.config, name) is sharding.REPLICATED else self.mesh.shape["tensor"]
        groups = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        # Parts cut along fsdp are gathered, so that every device reads all of them; rows are shared out.
        cache = rows / groups * slots / 2 * c.num_layers * 2 * c.num_kv_heads * c.head_dim / cut
        read = (size_of(model) / cut + cache) * item
        return max(read / chip.bandwidth, 2.0 * rows / groups * width * size_of(model) / cut / chip.flops)

    def _compiled(self, function, *arguments, more: int) -> tuple[Any, jax.stages.Compiled | None, int]:
        """(jaxpr, program, bytes per device); without a compiler, the arguments' bytes and `more`."""
        jaxpr, lowering = lowered(function, *arguments, mesh=self.mesh, backend=self.topology.backend)
        if self._compiling:
            return jaxpr, *compiled_or_needed(lowering)
        return jaxpr, None, argument_bytes(arguments) + more

    def _times(self, counted: float, plan: Needed | None, tokens: int, share: float) -> dict[str, Any]:
        chip = self.topology.chip
        if chip is None:
            return dict.fromkeys(("step_seconds", "roofline_seconds", "tokens_per_second"))
        bound = counted / self.mesh.size / chip.flops
        if plan:
            bound = max(bound, (plan.arguments + plan.outputs) / chip.bandwidth)
        return {
            "step_seconds": bound / share,
            "roofline_seconds": bound,
            "tokens_per_second": tokens * share / bound,
        }

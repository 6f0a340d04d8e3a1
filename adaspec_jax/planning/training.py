"""What training a stage needs and takes: its step compiled on abstract values, its time by the roofline."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from adaspec_jax import models
from adaspec_jax.devices.ahead_of_time import Needed
from adaspec_jax.models.heads import Head
from adaspec_jax.pipeline.memory import SPARE, Memory, descend
from adaspec_jax.pipeline.program import program, step_arguments
from adaspec_jax.pipeline.stage_spec import StageSpec
from adaspec_jax.planning.kept import Sized
from adaspec_jax.planning.roofline import activations
from adaspec_jax.planning.slices import Slice
from adaspec_jax.planning.step_costs import flops
from adaspec_jax.training import Frozen

TRAINING_SHARE = 0.4  # of the roofline bound; assumed, and said so beside every time
SUPERVISED = 0.6  # of a batch's positions, assumed: no data is read


class StepPrograms:
    """A stage's step for several ways to save memory and sizes of a batch, each compiled once."""

    def __init__(self, on: Slice, stage: StageSpec, model: models.CausalLM, frozen: Frozen) -> None:
        self._on, self._stage, self._model, self._frozen = on, stage, model, frozen
        self._found: dict[tuple[Memory, int], Any] = {}

    def of(self, memory: Memory, rows: int | None = None) -> tuple[Any, Sized]:
        """(jaxpr, what it needs), of the stage's own batch where `rows` says no other."""
        rows = rows or self._stage.batch_size
        if (memory, rows) not in self._found:
            made, length = program(self._stage, memory), self._stage.buckets[-1]
            arguments = step_arguments(made, self._model, self._frozen, mesh=self._on.mesh, rows=rows, length=length)
            tokens = rows * length // memory.micro_batches // self._on.groups
            read = int(tokens * _passes(self._stage, self._model))
            more = activations(self._model, memory, self._on.mesh, read)
            self._found[memory, rows] = self._on.program(made.step, *arguments, more=more, rounds=self.rounds(rows))
        return self._found[memory, rows]

    def bytes_of(self, memory: Memory, rows: int | None = None) -> int:
        return self.of(memory, rows)[1].size

    def rounds(self, rows: int) -> int:
        """Of the loop over chunks of a batch's labels."""
        return _rounds(self._stage, self._model, rows * self._stage.buckets[-1] // self._on.groups)


def plan_training(
    on: Slice,
    stage: StageSpec,
    model: models.CausalLM,
    frozen: Frozen,
    *,
    examples: int,
    memory: Memory | None = None,
    search: bool = True,
) -> dict[str, Any]:
    """Figures of one stage, per device, for so many examples; how many steps they make is open where they are packed.

    `memory`: what an earlier plan chose, so as not to choose again; `search`: for the largest batch.
    """
    if not stage.epochs:
        return {"fits": True, "skipped": f"{stage.name}.epochs is 0: nothing is trained"}
    programs, rows, length = StepPrograms(on, stage, model, frozen), stage.batch_size, stage.buckets[-1]
    memory = memory or _chosen(on, stage, programs)
    jaxpr, sized = programs.of(memory)
    counted = flops(jaxpr, rounds=programs.rounds(rows))
    figures = on.figures(sized, rows=rows, length=length) | {
        "chosen": memory.in_words(),
        "memory": dataclasses.asdict(memory),
        "epochs": stage.epochs,
        "flops": counted,
        "collective_bytes": sized.collectives,
        **_times(on, counted, sized.parts, rows * length),
    }
    steps = None if stage.packed else round(stage.epochs * examples) // rows
    hours = steps and figures["step_seconds"] and steps * figures["step_seconds"] / 3600
    figures |= {"examples": examples, "packed": stage.packed, "steps": steps, "hours": hours}
    if search and on.limit and on.compiling:
        step = on.groups * memory.micro_batches
        figures["largest_batch"] = on.largest(rows, sized.size, step, lambda n: programs.bytes_of(memory, n))
    return figures


def _passes(stage: StageSpec, model: models.CausalLM | Head) -> float:
    """How often a step goes over a text: for its labels of all of a head's guesses, or as masks lengthen it."""
    length = stage.buckets[-1]
    if isinstance(model, Head):
        return model.config.labels_of(length) / length
    return 1 if stage.masks is None else stage.masks.lengthened(length) / length


def _rounds(stage: StageSpec, model: models.CausalLM | Head, positions: int) -> int:
    """Of the loop over chunks of labels among so many positions; a head's guesses by one matrix are walked at once."""
    labels, slots = SUPERVISED * positions, positions * _passes(stage, model)
    if isinstance(model, Head):
        kind, rows = model.config, positions / stage.buckets[-1]
        walks = 1 if kind.one_output else len(kind.terms)
        labels, slots = rows * kind.labels_of(int(SUPERVISED * stage.buckets[-1])) / walks, slots / walks
    elif stage.masks is not None:
        labels = SUPERVISED * slots
    return math.ceil(labels / stage.chunking.size(int(slots), model.config.vocab_size))


def _chosen(on: Slice, stage: StageSpec, programs: StepPrograms) -> Memory:
    """What the stage gives up there: as written, or the first step of the ladder that fits, or its last."""
    if not stage.gives_up:
        return stage.memory
    memory, _ = descend(
        stage.memory,
        rows=stage.batch_size // on.groups,
        may_adapt=stage.name == "target",
        limit=on.limit and int(on.limit * (1 - SPARE)),
        bytes_of=programs.bytes_of,
    )
    return memory


def _times(on: Slice, counted: float, plan: Needed | None, tokens: int) -> dict[str, Any]:
    """Of a step that computes and moves so much, by the roofline; None each where the chip is not known."""
    chip = on.topology.chip
    if chip is None:
        return dict.fromkeys(("step_seconds", "roofline_seconds", "tokens_per_second"))
    bound = counted / on.mesh.size / chip.flops
    if plan:
        bound = max(bound, (plan.arguments + plan.outputs) / chip.bandwidth)
    return {
        "step_seconds": bound / TRAINING_SHARE,
        "roofline_seconds": bound,
        "tokens_per_second": tokens * TRAINING_SHARE / bound,
    }

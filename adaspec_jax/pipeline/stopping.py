"""The stage after all others where draft.kind is "specdec_pp": a stop head is fitted to the finished draft.

It is kept in DIR/stop with its checkpoints and metrics, and beside the draft that it speaks of, DIR/draft/stop_head.
"""

from __future__ import annotations

import dataclasses
import shutil
from functools import partial

from adaspec_jax import models
from adaspec_jax.config import SPECDEC_PP, Draft, Fit, Reference
from adaspec_jax.devices import processes, sharding
from adaspec_jax.errors import UserError
from adaspec_jax.models.stop_head import FOLDER
from adaspec_jax.pipeline import seeds
from adaspec_jax.pipeline.beginnings import Start
from adaspec_jax.pipeline.heads import knobs_of
from adaspec_jax.pipeline.stage import fit_stage
from adaspec_jax.pipeline.stage_spec import StageSpec
from adaspec_jax.training import Frozen
from adaspec_jax.training.objectives import Stopping, fit_stop_head

LABEL = "stop"
_DRAFT = "draft of stop"  # in decisions.json: the sum of the weights that it is, or is being, fitted to


def asked_by(draft: Draft) -> Stopping | None:
    """What the config asks for; None for a draft of another kind. UserError for what cannot be."""
    if draft.kind != SPECDEC_PP:
        return None
    try:
        return Stopping(**knobs_of(draft, dataclasses.asdict(Stopping())))
    except ValueError as error:
        raise UserError(f"config.draft.head: {error}") from None


def fit_to(start: Start, draft: models.CausalLM, target: models.CausalLM, asked: Stopping | None) -> None:
    """DIR/draft/stop_head, fitted now, resumed, or there from an earlier session; none where none is asked for."""
    if asked is None:
        return
    workdir = start.workdir
    sha256 = processes.once(lambda: workdir.weights_sha256("draft"))
    before = processes.once(lambda: workdir.decision(_DRAFT))
    if before not in (None, {"sha256": sha256}):  # the draft was made again since
        processes.once(lambda: shutil.rmtree(workdir.stage(LABEL), ignore_errors=True))
    processes.once(lambda: workdir.decide(_DRAFT, {"sha256": sha256}))
    if processes.once(lambda: workdir.finished(LABEL)) is None:
        stage = _stage(start.stages["draft"], asked).for_rows(len(start.text.rows), what=start.text.rows_in_words)
        stage = dataclasses.replace(stage, objective=partial(fit_stop_head, stopping=asked, chunking=stage.chunking))
        key = seeds.initial_weights(stage.seed, LABEL)
        with sharding.on_host():
            head = models.StopHead.new(key, draft.config.hidden_size, depth=asked.depth)
        where = {"text": start.text, "mesh": start.mesh, "workdir": workdir}
        fit_stage(stage, head, Frozen(target=target, reference=draft), **where)
    place = workdir.stage("draft") / FOLDER
    processes.once(lambda: shutil.copytree(workdir.stage(LABEL) / FOLDER, place, dirs_exist_ok=True))


def _stage(draft: StageSpec, asked: Stopping) -> StageSpec:
    """The draft's stage with the head's own epochs and rate: a head is fitted on every label, and alone."""
    fields = {item.name: getattr(draft.fit, item.name) for item in dataclasses.fields(Fit)}
    fields |= {"epochs": asked.epochs, "lr": asked.lr}
    fit = Reference(**fields)
    memory = dataclasses.replace(draft.memory, rematerialise=False)
    changes = {"divergence": None, "rewrite": None, "average_decay": None, "memory": memory, "traced": None}
    rows = {"epochs": fit.epochs, "batch_size": fit.batch_size, "gives_up": False}
    return dataclasses.replace(draft, label=LABEL, fit=fit, **changes, **rows)

"""Selection rules against one target: the arms of an ablation, and what they gain over seeds and prompts."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import NamedTuple

from adaspec_jax import files
from adaspec_jax.config import QUALIFIER, Draft, Experiment, Reference, draft_schedule, on_the_data_of
from adaspec_jax.errors import UserError, did_you_mean

ARMS = "top:0.2,top:0.4,top:0.6,top:0.8,bottom:0.4,random:0.4,self:0.4,plain:0.2,plain:0.4"
KINDS = ("top", "bottom", "random", "self", "plain")
BUDGETS = ("official", "equal_compute")


class Arm(NamedTuple):
    """One way to distil the draft."""

    kind: str
    fraction: float
    budget: str

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.fraction:g}" + ("" if self.budget == "official" else f"_{self.budget}")

    def same_data(self, draft: Draft, reference: Reference) -> str | None:
        """The arm that is trained on all labels of as much data; None where there is none."""
        if self.budget == "official":
            return f"plain_{self.fraction:g}"
        of_reference = reference.epochs, reference.batch_size
        return "reference" if draft_schedule(self.settings(draft, reference)) == of_reference else None

    def settings(self, draft: Draft, reference: Reference) -> Draft | Reference:
        """What the pipeline trains, in a run with this draft and reference."""
        draft = dataclasses.replace(draft, fraction=self.fraction, final_fraction=None, budget=self.budget)
        if self.kind == "plain":
            return on_the_data_of(draft, reference)
        if self.kind == "self":
            return dataclasses.replace(draft, selection="top", reference="moving_average")
        return dataclasses.replace(draft, selection=self.kind, reference="trained")


def parse_arms(arms: str, budgets: str) -> list[Arm]:
    """Every arm under every budget it can have; UserError for what is none."""
    found = []
    for text in filter(None, arms.split(",")):
        kind, _, share = text.partition(":")
        if kind not in KINDS:
            raise UserError(f'--arms: "{text}" begins with no kind of arm{did_you_mean(kind, KINDS)}')
        try:
            fraction = float(share)
        except ValueError:
            fraction = 0.0
        if not 0 < fraction < 1:
            raise UserError(f'--arms: "{text}" needs a share between 0 and 1, as in {kind}:0.4; 1 is the reference')
        for budget in filter(None, budgets.split(",")):
            if budget not in BUDGETS:
                raise UserError(f'--budgets: "{budget}" is no budget{did_you_mean(budget, BUDGETS)}')
            if kind != "plain" or budget == "official":
                found.append(Arm(kind, fraction, budget))
    if not found:
        raise UserError("--arms names none; for example --arms top:0.4,random:0.4")
    return list(dict.fromkeys(found))


def seeded(config: Experiment, workdir: Path, number: int) -> Experiment:
    """The config of one seed: other drafts and batches, the first one's data, tokenizer and target."""
    run = copy.deepcopy(config)
    run.data.seed = config.seed if config.data.seed is None else config.data.seed
    if number:
        run.seed = config.seed + number
        run.tokenizer.init = str(workdir / "seed0" / "tokenizer")
        run.target.init, run.target.epochs = str(workdir / "seed0" / "target"), 0
    return run


def summarised(
    arms: list[Arm],
    workdir: Path,
    reports: list[dict],
    *,
    draft: Draft,
    reference: Reference,
    resamples: int,
    settings: dict,
) -> dict:
    """{"arms": {name: acceptance over seeds, and what it gains over the two baselines}, "settings", "seeds"}.

    `draft` and `reference`: the run's own; `settings` are recorded as they are.
    """
    from adaspec_jax.reporting import Counts, across_runs

    seeds = [workdir / f"seed{n}" for n in range(len(reports))]
    counted = [
        files.read_json(seed / "counts.json", mend=f"delete {seed / 'report.json'} to have it measured again")
        for seed in seeds
    ]
    counts = {name: [Counts(**file[name]) for file in counted] for name in counted[0]}
    own = next((arm.name for arm in arms if arm.settings(draft, reference) == draft), "draft")
    counts[own] = counts.pop("draft")
    same_data = {arm.name: arm.same_data(draft, reference) for arm in arms}
    found = {}
    for name in ["reference", *sorted(set(counts) - {"base", "reference", QUALIFIER}, key=_order(arms))]:
        expected = [float(run.overlap_sum.sum() / run.overlap_positions.sum()) for run in counts[name]]
        found[name] = across_runs(counts[name], resamples=resamples) | {
            "expected_alpha": sum(expected) / len(expected),
            "expected_alpha_per_run": expected,
        }
        baselines = {"minus_reference": "reference", "minus_same_data": same_data.get(name)}
        for key, other in baselines.items():
            if other in counts and other != name:
                found[name][key] = across_runs(counts[name], counts[other], resamples=resamples)
    stages = reports[0]["stages"]
    for name in found:
        record = stages["draft" if name == own else name]
        found[name] |= {"steps": record["steps"], "sequences": record["steps"] * record["batch_size"]}
    return {"task": reports[0]["task"], "seeds": len(reports), "arms": found, "settings": settings} | {
        "models": reports[0]["models"],
        "environment": reports[0]["environment"],
        "evaluation_prompts": reports[0]["drafts"]["reference"]["prompts"],
    }


_COLUMNS = "arm", "sequences", "alpha (each seed)", "minus DistillSpec", "minus plain, same data", "expected alpha"


def table(results: dict, *, columns: int | None = None) -> list[str]:
    """The results as a Markdown table, or in blocks where `columns` are too few for it, and what its columns mean."""
    from adaspec_jax.reporting.tables import folded, in_blocks

    prompts, seeds = results["evaluation_prompts"], results["seeds"]
    rows = [_COLUMNS]
    for name, arm in results["arms"].items():
        each = ", ".join(f"{100 * value:.1f}" for value in arm["per_run"])
        cells = [
            "DistillSpec (k = 1)" if name == "reference" else name.replace("_", " ", 1),
            f"{arm['sequences']:,}",
            f"{100 * arm['value']:.1f} % ({each})",
            _difference(arm.get("minus_reference")),
            _difference(arm.get("minus_same_data")),
            f"{100 * arm['expected_alpha']:.1f} %",
        ]
        rows.append(tuple(cells))
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    lines.insert(1, "|---" * len(_COLUMNS) + "|")
    if columns is not None and max(map(len, lines)) > columns:
        lines = in_blocks(rows, columns=columns)
    over = "seeds and prompts (Student's t)" if seeds > 1 else "prompts, not over seeds: there is one"
    said = f"{seeds} seeds, {prompts} prompts; points, with 95 % intervals over {over}."
    return [*lines, "", *folded([said], columns)]


def _difference(test: dict | None) -> str:
    if test is None:
        return ""
    low, high = test["ci95"]
    return f"{100 * test['value']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _order(arms: list[Arm]):
    names = [arm.name for arm in arms]
    return lambda name: names.index(name) if name in names else -1

"""The model card of an exported directory: README.md with the hub's metadata, in which every name resolves."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from adaspec_jax.places import on_the_hub

METRIC = "acceptance_rate"
PAPER = "[AdaSPEC](https://arxiv.org/abs/2510.19779)"
_RECIPE = ("divergence", "selection", "fraction", "normalize", "budget", "kind", "head", "lr", "schedule", "lora_rank")
_TRAINED = ("steps", "batch_size", "epochs")
_IN_WORDS = {
    "target": "a target for speculative decoding",
    "draft": "a draft for speculative decoding, distilled on a part of the labels, chosen against a reference",
    "reference": "a draft for speculative decoding, distilled on every label (DistillSpec)",
}


class Names(NamedTuple):
    """By which a reader of the card finds the models."""

    own: str
    target: str
    where: str  # from where these resolve, a sentence
    on_the_hub: str | None = None  # the target's name there, where it has one


class Served(NamedTuple):
    """What an engine makes of the model."""

    engine: str
    command: str  # "": it cannot serve
    notes: Sequence[str]  # or the reasons


def card(account: Mapping[str, Any], names: Names, served: Sequence[Served], export: str) -> str:
    """README.md of what an adaspec.json is about; `export`: the command that wrote it."""
    parts = [
        f"# {names.own.rpartition('/')[2]}",
        _what(account, names),
        _acceptance(account),
        _serving(names, served),
        _data(account),
        _recipe(account, export),
        "## Licence\n\nNone is chosen here. The weights may be bound by the licences of the models and data above: add "
        "`license` to the metadata of this file before it is shared.",
    ]
    return f"---\n{metadata(account, names).to_yaml()}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def metadata(account: Mapping[str, Any], names: Names) -> Any:
    """The hub's metadata, as `huggingface_hub.ModelCardData`."""
    from huggingface_hub import EvalResult, ModelCardData

    head, base, relation = account["kind"], account["base_model"], None
    if head:
        base = names.on_the_hub  # whose features it reads; none of the hub's relations says that
    elif base and (account["stage"] != "target" or account["target"]["fine_tuned"]):
        relation = "finetune"
    results, measured = [], account["acceptance"]
    data_sets = _data_sets(account)
    if measured and (alpha := measured["drafts"][account["stage"]]["alpha"]) is not None:
        results = [
            EvalResult(
                task_type="text-generation",
                dataset_type=(data_sets or [measured["task"]])[0],
                dataset_name=measured["task"],
                metric_type=METRIC,
                metric_name="accepted / judged guesses",
                metric_value=round(alpha, 4),
            )
        ]
    family = account["target"]["model_type"]
    tags = ["speculative-decoding", "adaspec", "knowledge-distillation", *([head] if head else []), family]
    if account["stage"] != "target":
        tags.insert(1, "draft-model")
    return ModelCardData(
        base_model=base,
        base_model_relation=relation,
        library_name="adaspec_jax" if head else "transformers",
        pipeline_tag="text-generation",
        tags=[tag for tag in tags if tag],
        datasets=data_sets or None,
        metrics=[METRIC] if results else None,
        model_name=names.own.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )


def _what(account: Mapping[str, Any], names: Names) -> str:
    kind, target = account["kind"], account["target"]
    what = f"a head of the kind {kind} on its target's hidden states" if kind else None
    what = what or _IN_WORDS.get(account["stage"], "a further draft for speculative decoding")
    own = f"This is {what}: {account['parameters']:,} parameters in {account['dtype']}, made by adaspec_jax"
    own += f" {account['adaspec_jax']} ({PAPER}, DistillSpec)."
    if account["stage"] == "target":
        return own
    whose = f"`{target['name']}`" if target["name"] else f"a model of the family {target['model_type']}"
    fitted = f"{whose}, fine-tuned in the same run" if target["fine_tuned"] else f"{whose} as it is"
    beside = "the target's tokenizer and number of vocabulary rows" if not kind else "nothing without its target"
    return f"{own}\nIts target is {fitted} (`{names.target}` below). It has {beside}."


def _acceptance(account: Mapping[str, Any]) -> str:
    measured = account["acceptance"]
    if not measured:
        return "" if account["stage"] == "target" else "## Acceptance\n\nNot measured in this run."
    lines = [
        "| draft | acceptance | 95 % interval | tokens per target call | at temperature 1 |",
        "|---|---|---|---|---|",
    ]
    for row in measured["drafts"].values():
        low, high = row["ci95"] or (None, None)
        cells = [_percent(row["alpha"]), f"{_percent(low)} to {_percent(high)}", _number(row["block_efficiency"])]
        lines.append(f"| {row['called']} | {' | '.join([*cells, _percent(row['expected_alpha'])])} |")
    used = measured["measured"]
    lines += [
        "",
        f"On {used['num_prompts']} held-out prompts of {measured['task']}, {used['draft_length']} guesses a round, "
        f"temperature {used['temperature']:g}, up to {used['max_new_tokens']} tokens. Acceptance is accepted / judged "
        "guesses, judged up to and including the first refusal; a server's accepted / drafted is lower.",
    ]
    if (paired := measured["minus_reference"]) and paired.get("ci95"):
        low, high = (100 * value for value in paired["ci95"])
        gain, p = 100 * paired["difference"], paired["p_value"]
        sure = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        lines.append(f"Minus the reference: {gain:+.1f} points, 95 % interval [{low:+.1f}, {high:+.1f}], {sure}.")
    return "## Acceptance\n\n" + "\n".join(lines)


def _serving(names: Names, served: Sequence[Served]) -> str:
    parts = [f"## Serving\n\n{names.where}".rstrip()]
    for engine, command, notes in served:
        blocks = ["\n".join(f"    {line}" for line in command.splitlines()), "\n".join(f"- {note}" for note in notes)]
        title = f"### {engine}" if command else f"### {engine}: not served"
        parts.append("\n\n".join(filter(None, [title, *blocks])))
    return "\n\n".join(parts)


def _data(account: Mapping[str, Any]) -> str:
    found = account["data"] or {}
    lines = []
    for part in ("train", "evaluation"):
        for row in _sources(found.get(part) or {}):
            rows = f", {row['rows']:,} rows" if isinstance(row.get("rows"), int) else ""
            name = "" if row.get("name") in (None, row.get("task")) else f" (`{row['name']}`, {row.get('kind')})"
            lines.append(f"- {part}: {row.get('task')}, split {row.get('split')}{name}{rows}")
    answers = account["settings"].get("answers.source")
    if lines and answers not in (None, "dataset"):
        lines.append(f"- the drafts learnt answers of: {answers}")
    return "## Data\n\n" + ("\n".join(lines) or "As `adaspec.json` has it.")


def _recipe(account: Mapping[str, Any], export: str) -> str:
    stage, settings, trained = account["stage"], account["settings"], account["training"] or {}
    owner = stage if stage in ("target", "reference", "qualifier") else "draft"
    rows = {key: settings.get(f"{owner}.{key}") for key in _RECIPE} | {key: trained.get(key) for key in _TRAINED}
    table = [f"| {key} | {value} |" for key, value in rows.items() if value not in (None, "", 0, "model")]
    told = account["command"]
    config = " ".join(map(shlex.quote, told)) if told else "CONFIG.py"
    lines = [f"    python -m adaspec_jax.train --config {config} --workdir RUN", f"    {export}"]
    missing = "" if told else "\n\nWhich config file it was is not recorded; its settings are."
    return (
        "## How it was made\n\n"
        + "\n".join(["| setting | value |", "|---|---|", *table, "", *lines])
        + f"{missing}\n\nAll settings, data checksums and versions are in `adaspec.json`."
    )


def _sources(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parts of a mixture, or the one there is."""
    return list(row.get("parts") or ([row] if row else []))


def _data_sets(account: Mapping[str, Any]) -> list[str]:
    """Those on the hub that it was trained on."""
    rows = _sources((account["data"] or {}).get("train") or {})
    names = [str(row.get("name")).removeprefix("hf:").partition(":")[0] for row in rows if row.get("kind") == "hf"]
    return list(dict.fromkeys(name for name in names if on_the_hub(name)))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

"""python -m tests.diagnosis.planted --workdir DIR [--set test] [--only NAME,...] [--json OUT]

Trains tiny runs, spoils them on purpose, and asks `diagnose` for the cause: a line per case with what was planted and
what was found, and a confusion table. The same command goes on with what is missing. `--set tune` are the runs on which
thresholds were set; `--set test` have other seeds, sizes, vocabulary and data. `--judge FILE` judges the evidence that
an earlier call recorded, and trains nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from adaspec_jax import reporting
from adaspec_jax.diagnosis.evidence import Evidence
from adaspec_jax.diagnosis.judge import judge
from tests.diagnosis import spoils
from tests.diagnosis.runs import HEALTHY, SETS, Set, train, write_rows


class Case(NamedTuple):
    """A finished run, what is done to a copy of it, and how it is served; and what must be found."""

    planted: tuple[str, ...]  # checks
    run: str = HEALTHY
    spoil: Callable[[Path, Set], None] | None = None
    served: Mapping[str, Any] = {}
    prompts: Callable[[Set], list[tuple[str, str]]] | None = None


CASES = {
    "healthy": Case(()),
    "healthy and sampled": Case((), "healthy_sampled"),
    "narrow draft": Case(("capacity",), "narrow"),
    "another tokenizer": Case(("tokenizer",), spoil=spoils.another_tokenizer),
    "ids in another order": Case(("tokenizer",), spoil=spoils.other_ids),
    "no instruction": Case(("template",), prompts=spoils.without_instruction),
    "no end of text": Case(("ends of text",), spoil=spoils.never_ends),
    "few steps": Case(("training steps",), "short"),
    "hot": Case(("the target's entropy",), served={"temperature": 1.6, "guesses": "likeliest"}),
    "too sharp a draft": Case(("temperature",), spoil=spoils.sharper, served={"temperature": 1.0}),
    "prompts trained on": Case(("contamination",), prompts=spoils.seen_before),
    "a target that loops": Case(("repetition",), "looping"),
    "bfloat16": Case(("precision",), spoil=spoils.far_from_zero, served={"dtype": "bfloat16"}),
    "starved of labels": Case(("recipe",), "starved"),
    "sixteen guesses": Case(("draft length",), served={"draft_length": 16}),
    "another's answers": Case(("whose answers",), "foreign"),
    "little data": Case(("training data",), "few"),
    "other prompts": Case(("prompts' kind",), prompts=spoils.other_questions),
    "few steps and no end of text": Case(("training steps", "ends of text"), "short", spoils.never_ends),
    "sharp in bfloat16": Case(
        ("precision", "temperature"), spoil=spoils.sharp_and_far, served={"temperature": 1.0, "dtype": "bfloat16"}
    ),
    "another's answers and sixteen guesses": Case(
        ("whose answers", "draft length"), "foreign", served={"draft_length": 16}
    ),
}


def evidence_of(name: str, set_name: str, directory: Path) -> Evidence:
    """What is measured of the case's run, which is trained where it is not there."""
    from adaspec_jax import data
    from adaspec_jax.diagnosis.evidence import Names
    from adaspec_jax.pipeline.diagnosed import evidence_of_run

    case, made = CASES[name], SETS[set_name]
    place = directory / set_name
    train(HEALTHY, set_name, place)
    train(case.run, set_name, place)
    run, prompts = place / case.run, None
    if case.spoil is not None:
        run = place / "spoilt"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(place / case.run, run, ignore=shutil.ignore_patterns("compilation_cache", "teacher"))
        case.spoil(run, made)
    if case.prompts is not None:
        file = place / "served.jsonl"
        write_rows(file, case.prompts(made))
        prompts = data.load_examples("columns", path=file, prompt_column="prompt", answer_column="answer")
    found = evidence_of_run(run, served=case.served, prompts=prompts, number=made.prompts)
    return dataclasses.replace(found, names=Names("RUN/target", "RUN/draft", "--task=word_problems", "RUN"))


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A line per case, and what was found of how many."""
    lines = [f"{'case':<36} {'planted':<32} found"]
    for name, result in results.items():
        lines.append(f"{name:<36} {', '.join(result['planted']) or '-':<32} {', '.join(result['found']) or '-'}")
    missed = [(name, check) for name, r in results.items() for check in r["planted"] if check not in r["found"]]
    extra = [(name, check) for name, r in results.items() for check in r["found"] if check not in r["planted"]]
    planted = sum(len(result["planted"]) for result in results.values())
    firsts = sum(bool(r["planted"]) and r["found"][:1] in [[c] for c in r["planted"]] for r in results.values())
    spoilt = sum(bool(r["planted"]) for r in results.values())
    lines.append(f"\n{planted - len(missed)} of {planted} planted causes found; named first in {firsts} of {spoilt}.")
    lines += [f"missed: {check} in {name}" for name, check in missed]
    lines += [f"found beside: {check} in {name}" for name, check in extra]
    return "\n".join(lines)


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of docs/diagnose.md."""
    lines = ["| case | planted | found, the likeliest first |", "|---|---|---|"]
    for name, result in results.items():
        planted, found = (", ".join(result[key]) or "nothing" for key in ("planted", "found"))
        lines.append(f"| {name} | {planted} | {found} |")
    return "\n".join(lines)


def judged(recorded: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of recorded evidence, what is found now."""
    results = {}
    for name, evidence in recorded.items():
        found = judge(Evidence.of_json(evidence))
        results[name] = {"planted": list(CASES[name].planted), "found": found["causes"], "verdict": found["verdict"]}
    return results


def main(argv: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--set", choices=SETS, default="test")
    parser.add_argument("--only", help="cases, with commas between them", default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/diagnose.md has it")
    arguments = parser.parse_args(argv)
    recorded: dict[str, Any] = {}
    if arguments.judge:
        recorded = json.loads(arguments.judge.read_text())["evidence"]
    else:
        for name in (n for n in CASES if not arguments.only or n in arguments.only.split(",")):
            kept = arguments.workdir / arguments.set / "evidence" / f"{name}.json"
            if not kept.is_file():
                found = evidence_of(name, arguments.set, arguments.workdir).as_json()
                kept.parent.mkdir(parents=True, exist_ok=True)
                reporting.write_json(kept, found)
            recorded[name] = json.loads(kept.read_text())
    results = judged(recorded)
    print((markdown if arguments.markdown else table)(results))
    if arguments.json:
        environment = reporting.environment()
        written = {"set": arguments.set, "results": results, "evidence": recorded, "environment": environment}
        reporting.write_json(arguments.json, written)
    return int(any(check not in result["found"] for result in results.values() for check in result["planted"]))


if __name__ == "__main__":
    sys.exit(main())

"""python -m adaspec_jax.doctor --target A --draft B [--device any|cpu|gpu|tpu]

Says in plain words whether a target and a draft (directories or hub names) can serve together in transformers, vLLM,
SGLang and OpenVINO GenAI, on a CPU and on a GPU: with which command, or why not and what to do; and how CTranslate2
serves the target alone. Of a draft that is a head on the target's features: which of vLLM, SGLang, tpu-inference and
sglang-jax take it. Reads config.json, generation_config.json and the tokenizers, no weights. Exit status 0 whenever
the check ran, whatever it found (--json has the verdicts); 2 where it could not.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from adaspec_jax.errors import exit_with_one_line
from adaspec_jax.options import GUESSES, check_outputs, parse_arguments, parser_of

if TYPE_CHECKING:
    from adaspec_jax import serving


def main() -> None:
    parser = parser_of("doctor", __doc__)
    parser.add_argument("--target", required=True, help="directory or hub name")
    parser.add_argument("--draft", required=True, help="directory or hub name")
    parser.add_argument("--draft_length", type=GUESSES, help="guesses per round (default: as the draft says, else 5)")
    parser.add_argument("--device", choices=("any", "cpu", "gpu", "tpu"), default="any", help="any: a CPU or a GPU")
    parser.add_argument("--json", help="also write the verdicts here")
    arguments = parse_arguments(parser)
    check_outputs(arguments, "json")

    from adaspec_jax import serving

    if (head := serving.head_in(arguments.draft)) is not None:
        return _judge_head(arguments, *head)
    pair = serving.read_pair(arguments.target, arguments.draft, draft_length=arguments.draft_length)
    verdicts = serving.judge(pair, arguments.device)
    for role, model in (("target:", pair.target), ("draft: ", pair.draft)):
        print(f"{role} {model.name} ({model.model_type}); {serving.ends_in_words(model)}")
        print(*(f"  note: {line}\n" for line in model.notes), sep="", end="")
    print(serving.vocabulary_in_words(pair))
    _print_verdicts(verdicts)
    if arguments.device == serving.ANY:
        print(f"\n{serving.NO_PLAIN_DRAFT}")
    print(f"\nas looked up in {', '.join(f'{name} {engine.version}' for name, engine in serving.ENGINES.items())}")
    if arguments.json:
        from adaspec_jax import reporting

        reporting.write_json(arguments.json, _as_json(pair, verdicts))


def _judge_head(arguments: argparse.Namespace, kind: str, config: dict) -> None:
    from adaspec_jax import serving

    target = serving.config_of(arguments.target)
    length = serving.in_a_row(kind, config, arguments.draft_length or serving.DRAFT_LENGTH)
    names = serving.resolving(arguments.target), serving.resolving(arguments.draft)
    verdicts = serving.judge_head(names[0], target, names[1], kind, config, length, arguments.device)
    print(f"target: {arguments.target} ({target.get('model_type')})")
    print(f"draft:  {arguments.draft} (a head of the kind {kind} on the target's features)")
    notes = serving.warnings_for(kind, str(target.get("model_type"))) if serving.is_known(kind, config) else []
    print(*(f"  note: {line}\n" for line in notes), sep="", end="")
    _print_verdicts(verdicts)
    if arguments.json:
        from adaspec_jax import reporting

        said = {"target": arguments.target, "draft": arguments.draft, "kind": kind, "draft_length": length}
        reporting.write_json(arguments.json, said | {"engines": _engines_as_json(verdicts)})


def _print_verdicts(verdicts: dict[str, serving.Verdict]) -> None:
    for engine, verdict in verdicts.items():
        print(f"\n{verdict.headline(engine)}")
        print(*(f"  {reason}\n" for reason in verdict.against()), sep="", end="")
        if verdict.can_serve:
            print(*(f"  {line}\n" for line in verdict.command.splitlines()), sep="", end="")
            print(*(f"  note: {warning}\n" for warning in verdict.warnings), sep="", end="")
        elif verdict.alone:
            print("  the target alone:", *verdict.alone.splitlines(), sep="\n  ")


def _as_json(pair: serving.Pair, verdicts: dict[str, serving.Verdict]) -> dict:
    models = {
        role: {key: getattr(model, key) for key in ("name", "model_type", "vocab_size", "positions", "ends", "notes")}
        for role, model in (("target", pair.target), ("draft", pair.draft))
    }
    return models | {"draft_length": pair.draft_length, "engines": _engines_as_json(verdicts)}


def _engines_as_json(verdicts: dict[str, serving.Verdict]) -> dict:
    return {
        engine: {
            "can_serve": verdict.can_serve,
            "reasons": verdict.reasons,
            "warnings": verdict.warnings,
            "command": verdict.command if verdict.can_serve else None,
            "target_alone": verdict.alone or None,
            "devices": {
                device: {"can_serve": device in verdict.devices, "reasons": reasons}
                for device, reasons in verdict.on.items()
            },
        }
        for engine, verdict in verdicts.items()
    }


if __name__ == "__main__":
    exit_with_one_line(main)

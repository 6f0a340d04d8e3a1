"""What is said of a target and a draft, engine by engine: can it serve them, on which devices, or what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from adaspec_jax import data
from adaspec_jax.serving.card import Served
from adaspec_jax.serving.engines import ENGINES, Engine
from adaspec_jax.serving.families import ABSENT, LISTED, RAN
from adaspec_jax.serving.published import Pair

ANY = "any"
IN_WORDS = {"cpu": "a CPU", "gpu": "a GPU", "tpu": "a TPU"}
DEVICES = (ANY, *IN_WORDS)  # what may be asked about; any: a CPU or a GPU


class Verdict(NamedTuple):
    """Reasons each say how to mend it."""

    reasons: list[str]  # why the pair cannot serve on any device; empty: nothing but `on` is against it
    command: str
    warnings: list[str]
    on: Mapping[str, list[str]] = {}  # of the devices asked about: what is against it on that one alone
    alone: str = ""  # the command that serves the target without the draft, where the engine takes none

    @property
    def devices(self) -> list[str]:
        """Those of the devices asked about on which it can serve."""
        return [] if self.reasons else [device for device, reasons in self.on.items() if not reasons]

    @property
    def can_serve(self) -> bool:
        return not self.reasons and (bool(self.devices) or not self.on)

    def headline(self, engine: str) -> str:
        """Yes, no, or where."""
        if not self.can_serve or len(self.on) == 1:
            where = f" on {IN_WORDS[next(iter(self.on))]}" if len(self.on) == 1 else ""
            return f"{engine}{where}: {'can' if self.can_serve else 'cannot'} serve"
        never = [device for device, reasons in self.on.items() if reasons]
        if not never:
            return f"{engine}: can serve"
        able, not_able = (" or ".join(IN_WORDS[device] for device in devices) for devices in (self.devices, never))
        return f"{engine}: can serve on {able}, not on {not_able}"

    def against(self) -> list[str]:
        """All reasons, a line each."""
        alone = len(self.on) == 1
        return self.reasons + [
            reason if alone else f"on {IN_WORDS[device]}: {reason}"
            for device, reasons in self.on.items()
            for reason in reasons
        ]

    def in_one_line(self, engine: str) -> str:
        """The headline, and why where it cannot serve anywhere."""
        reasons = "" if self.can_serve else ". Also: ".join(self.against())
        return f"{self.headline(engine)}: {reasons}" if reasons else self.headline(engine)


def asked_about(device: str) -> tuple[str, ...]:
    """The devices that a word of `DEVICES` means: TPUs, whose servers are others, are asked for by name alone."""
    return ("cpu", "gpu") if device == ANY else (device,)


def judge(pair: Pair, device: str = ANY) -> dict[str, Verdict]:
    """Each engine's verdict, by its name."""
    asked, devices = _vocabulary_reasons(pair), asked_about(device)
    compared = pair.draft.tokenizer is not None
    difference = data.first_difference(pair.target.tokenizer, pair.draft.tokenizer, beyond=True) if compared else None
    verdicts = {}
    for name, engine in ENGINES.items():
        reasons = engine.lacks(pair) + _family_reasons(pair, name)
        if difference:
            instead = f" ({engine.other_tokenizers})" if engine.other_tokenizers else ""
            mend = f"train a draft on the target's tokenizer{instead}"
            reasons.append(f"the tokenizers differ: {difference}; {mend}")
        else:
            reasons += asked
        warnings = [] if compared else ["the draft comes without a tokenizer, so none could be compared"]
        warnings += _family_warnings(pair, name)
        on = {each: _on(engine, each, pair) for each in devices}
        alone = "" if engine.takes_drafts else engine.alone(pair.target.name)
        verdict = Verdict(reasons, "", warnings + engine.warn(pair), on, alone)
        verdicts[name] = verdict._replace(command=engine.command(pair, device))
    return verdicts


def served_by(verdicts: Mapping[str, Verdict]) -> list[Served]:
    """For a model's card: commands and notes, or the reasons."""
    return [
        Served(engine, verdict.command if verdict.can_serve else "", [*verdict.against(), *verdict.warnings])
        for engine, verdict in verdicts.items()
    ]


def served_alone(target: str, model_type: str) -> list[Served]:
    """The same of a target without a draft."""
    return [
        Served(
            name, "" if (why := ABSENT.get(name, {}).get(model_type)) else engine.alone(target), [why] if why else []
        )
        for name, engine in ENGINES.items()
    ]


def _on(engine: Engine, device: str, pair: Pair) -> list[str]:
    return engine.devices[device](pair) if device in engine.devices else [engine.elsewhere[device]]


def _family_reasons(pair: Pair, name: str) -> list[str]:
    reasons, absent = [], ABSENT.get(name, {})
    for model_type in sorted({model.model_type for model in pair[:2]} & set(absent)):
        whose = " and ".join(role for role in ("target", "draft") if getattr(pair, role).model_type == model_type)
        reasons.append(
            f"{model_type} (the {whose}): {absent[model_type]}; use another engine, or models of "
            f"{', '.join(sorted((*RAN[name], *LISTED.get(name, ()))))}"
        )
    return reasons


def _family_warnings(pair: Pair, name: str) -> list[str]:
    """Of families that it was not seen to run."""
    there = sorted({model.model_type for model in pair[:2]} - {*RAN[name], *ABSENT.get(name, ())})
    listed = LISTED.get(name, ())
    return [
        f"{each} is in its list of models, and was not run with it"
        if each in listed
        else f"{each} is not a family known here; look it up in {name}'s list of models"
        for each in there
    ]


def _vocabulary_reasons(pair: Pair) -> list[str]:
    """What all engines refuse of two models that share a tokenizer."""
    needed, reasons = data.rows_needed(pair.target.tokenizer), []
    for role in ("target", "draft"):
        if (rows := getattr(pair, role).vocab_size) < needed:
            reasons.append(f"the tokenizer needs {needed} rows and the {role} has {rows}; use its own tokenizer")
    if not reasons and pair.target.vocab_size != pair.draft.vocab_size:
        reasons.append(
            f"vocab_size is {pair.target.vocab_size} in the target and {pair.draft.vocab_size} in the draft; pad the "
            "draft: adaspec_jax.export does, and so does CausalLM.with_vocabulary_size"
        )
    return reasons

"""How the pair is used: temperature, dtype, draft length, and how many prompts say so."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from adaspec_jax.decoding.speedup import RoundCosts, tokens_per_round
from adaspec_jax.diagnosis import commands
from adaspec_jax.diagnosis import thresholds as at
from adaspec_jax.diagnosis.evidence import Evidence
from adaspec_jax.diagnosis.finding import CAUSE, OK, UNKNOWN, Finding, percent, points

DRAWN = "drawn"  # value of `Served.guesses`


def entropy(evidence: Evidence) -> Finding:
    """What the target leaves to be known."""
    name = "the target's entropy"
    if (own := evidence.own) is None:
        return Finding(name, UNKNOWN, "nothing was measured along a text")
    unsure, accepted = 1 - own.sure, own.acceptance.value
    numbers = {"entropy": own.entropy, "unsure": unsure, "sure_acceptance": own.sure_acceptance}
    says = f"the target's law has {own.entropy:.2f} nats at temperature 1, and at {percent(unsure)} of the tokens no "
    says += "likely one"
    if own.sure_acceptance is None or unsure == 0:
        return Finding(name, OK, says, numbers=numbers)
    of_refusals = 1 - own.sure * (1 - own.sure_acceptance) / max(1 - accepted, 1e-9)
    numbers["unsure_of_refusals"] = of_refusals
    says += f", where {percent(of_refusals)} of the refusals are; elsewhere acceptance is "
    says += percent(own.sure_acceptance)
    if not evidence.served.temperature:
        return Finding(name, OK, f"{says}. Greedy text is certain: a draft could reach 100 %", numbers=numbers)
    if evidence.served.guesses == DRAWN:
        return Finding(name, OK, f"{says}. Guesses that are drawn could reach 100 %", numbers=numbers)
    ceiling = numbers["ceiling"] = own.likeliest
    numbers["drawn"] = own.drawn
    says += f". The draft's likeliest token is guessed, which could be kept {percent(ceiling)} of the time at best, "
    says += f"whatever the draft; drawn from its law guesses would be kept {percent(own.drawn)} of the time"
    if ceiling < at.HIGH and accepted >= at.REACHED * ceiling:
        command = commands.evaluate(evidence)
        return Finding(name, CAUSE, says, max(own.drawn, ceiling) - accepted, command, numbers)
    return Finding(name, OK, says, numbers=numbers)


def temperature(evidence: Evidence) -> Finding:
    """Whether the draft is as sure as the target where it is served."""
    name = "temperature"
    if evidence.own is None:
        return Finding(name, UNKNOWN, "nothing was measured along a text")
    if evidence.served.guesses != DRAWN:
        return Finding(name, OK, "the draft's likeliest token is the same at any temperature of its own")
    if not evidence.served.temperature:
        return Finding(name, OK, "greedy decoding takes the draft's likeliest token at any temperature of its own")
    accepted, tempered = evidence.own.acceptance.value, evidence.own.tempered
    if not tempered:
        return Finding(name, UNKNOWN, "the draft was tried at its own temperature alone")
    best = max(tempered, key=tempered.__getitem__)
    gain = tempered[best] - accepted
    asked = evidence.served.temperature * float(best)
    numbers = {"acceptance": accepted, "best_factor": float(best), "acceptance_there": tempered[best]}
    says = f"at temperature {evidence.served.temperature:g} acceptance is {percent(accepted)}, and with the draft at "
    says += f"{asked:g} it would be {percent(tempered[best])}"
    if gain <= at.TEMPERED:
        return Finding(name, OK, says, numbers=numbers)
    how = "surer" if float(best) > 1 else "less sure"
    command = commands.retrain(evidence, "--config.draft.divergence=forward_kl", "--config.answers.source=target")
    says = f"the draft is {how} of its guesses than the target at the temperature that is served: {says}"
    return Finding(name, CAUSE, says, gain, command or commands.evaluate(evidence), numbers)


def precision(evidence: Evidence) -> Finding:
    name = "precision"
    if evidence.own is None or not evidence.other_dtype:
        return Finding(name, UNKNOWN, "the pair was measured in one dtype alone")
    mine, dtype = evidence.own.acceptance, evidence.served.dtype
    other, figure = next(iter(evidence.other_dtype.items()))
    numbers = {dtype: mine.value, other: figure.value}
    says = f"acceptance along the same text is {percent(mine.value)} in {dtype} and {percent(figure.value)} in {other}"
    lost = figure.value - mine.value
    if dtype == "float32" or lost <= at.PRECISION:
        return Finding(name, OK, says, numbers=numbers)
    return Finding(name, CAUSE, says, lost, commands.evaluate(evidence, f"--dtype={other}"), numbers)


def draft_length(evidence: Evidence, others: tuple[Finding, ...] = ()) -> Finding:
    """Of the served length beside that which measured costs and acceptance make fastest.

    Where `others` are to be mended it is judged by a good acceptance: too long until then is no cause of its own.
    """
    name, length = "draft length", evidence.served.draft_length
    if evidence.own is None or not length:
        return Finding(name, UNKNOWN, "it is not known how many guesses a round has")
    if not evidence.costs:
        command = commands.evaluate(evidence, "--draft_length=0")
        return Finding(name, UNKNOWN, "what a round costs has not been measured here", command=command)
    if any(finding.check == "repetition" for finding in others):
        return Finding(name, UNKNOWN, "acceptance along repetitions says nothing of other text")
    alpha = max(evidence.own.acceptance.value, at.HIGH if others else 0.0)
    every = [_speeds(costs, alpha) for costs in evidence.costs]
    if length not in every[0]:
        return Finding(name, UNKNOWN, f"a verification of {length} guesses has not been measured")
    speeds = {n: statistics.median(each[n] for each in every) for n in every[0]}
    best = max(speeds, key=speeds.__getitem__)
    kept = (tokens_per_round(alpha, length) - 1) / length
    numbers = {"length": length, "speedup": speeds[length], "best": best, "speedup_at_best": speeds[best]}
    numbers |= {"accepted_of_drafted": kept, "shares_of_best": [each[length] / max(each.values()) for each in every]}
    says = f"at a batch of {evidence.costs[0]['batch_size']} and an acceptance of {percent(alpha)} {length} guesses "
    says += f"promise {speeds[length]:.2f} times plain decoding's speed, and {best} promise {speeds[best]:.2f}; of "
    says += f"{length} guesses {percent(kept)} would be accepted"
    if max(numbers["shares_of_best"]) >= at.SLOWER:
        return Finding(name, OK, says, numbers=numbers)
    which = "long" if length > best else "short"
    command = commands.evaluate(evidence, f"--draft_length={best}")
    return Finding(name, CAUSE, f"the draft length is too {which}: {says}", None, command, numbers)


def _speeds(costs: Mapping[str, Any], alpha: float) -> dict[int, float]:
    """Over plain decoding, by how many guesses a round has, up to the longest verification that was measured."""
    verification = {int(guesses): seconds for guesses, seconds in costs["verification"].items()}
    parts = RoundCosts(costs["first"], costs["further"], verification)
    plain = verification[0]
    return {n: tokens_per_round(alpha, n) * plain / parts.of(n) for n in range(1, max(verification) + 1)}


def enough(evidence: Evidence) -> Finding:
    """Whether the number itself says much."""
    name = "prompts measured"
    if (own := evidence.own) is None:
        return Finding(name, UNKNOWN, "nothing was measured along a text")
    figure = own.acceptance
    numbers = {"acceptance": figure.value, "ci95": [figure.low, figure.high], "prompts": own.texts}
    says = f"acceptance is {percent(figure.value)} [{100 * figure.low:.1f}, {100 * figure.high:.1f}] over {own.texts} "
    says += f"prompts, after {own.tokens:,} tokens of the target's own text"
    if figure.half <= at.WIDE:
        return Finding(name, OK, says, numbers=numbers)
    says += f": the interval is {points(2 * figure.half)} wide, too wide to look for causes"
    command = commands.evaluate(evidence, f"--num_prompts={8 * own.texts}")
    return Finding(name, UNKNOWN, says, None, command, numbers)

"""Whether the draft was trained long enough, on enough, by the recipe that was meant; and whether it is too small."""

from __future__ import annotations

from adaspec_jax.diagnosis import commands
from adaspec_jax.diagnosis import thresholds as at
from adaspec_jax.diagnosis.checks.texts import of_another_kind
from adaspec_jax.diagnosis.evidence import Curve, Evidence
from adaspec_jax.diagnosis.finding import CAUSE, OK, UNKNOWN, Finding, percent, points

_LEVEL, _SLOW = "it had levelled off", "it rose slowly by then"
_NO_LOG = "no record of the draft's training: give --workdir of the run that made it"


def steps(evidence: Evidence) -> Finding:
    """Under-training."""
    name = "training steps"
    if (curve := evidence.draft) is None:
        return Finding(name, UNKNOWN, _NO_LOG)
    asked = curve.epochs if curve.asked_epochs is None else curve.asked_epochs
    command = commands.retrain(evidence, f"--config.draft.epochs={2 * max(asked, 0.01):g}")
    numbers = {"steps": curve.steps, "agreement_half": curve.agreement_half, "agreement_end": curve.agreement_end}
    numbers |= {"loss_half": curve.loss_half, "loss_end": curve.loss_end}
    if curve.agreement_end is None:
        fallen = 1 - curve.loss_end / curve.loss_half if curve.loss_half > 0 else 0.0
        says = f"the second half of {curve.steps} steps took {percent(fallen)} of the loss away"
        return Finding(name, CAUSE if fallen > at.STILL_FALLING else OK, says, None, command, numbers)
    gain = curve.agreement_end - curve.agreement_half
    says = f"the second half of {curve.steps} steps took agreement on training labels from "
    says += f"{percent(curve.agreement_half)} to {percent(curve.agreement_end)}"
    if gain > at.STILL_RISING and recipe(evidence).verdict == CAUSE:
        return Finding(name, UNKNOWN, f"{says}; the baseline got further in as many steps: see the recipe")
    if gain > at.STILL_RISING and overfit(evidence).verdict == CAUSE:
        return Finding(name, UNKNOWN, f"{says}, learning by heart: see the training data")
    if gain > at.STILL_RISING:
        costs = next_doubling(curve)
        says += f": it was still rising; twice the steps would add about {points(costs)}"
        return Finding(name, CAUSE, says, costs, command, numbers)
    return Finding(name, OK, f"{says}: {_LEVEL if gain < at.STILL_RISING / 2 else _SLOW}", numbers=numbers)


def next_doubling(curve: Curve) -> float:
    """Agreement that twice the steps would add: what is missing shrinks once more as it did in the last doubling."""
    missing_half, missing = 1 - curve.agreement_half, 1 - curve.agreement_end
    return missing * (1 - missing / missing_half) if missing_half > 0 else 0.0


def overfit(evidence: Evidence) -> Finding:
    """Too little data."""
    name = "training data"
    if evidence.trained is None or evidence.held_out is None:
        return Finding(name, UNKNOWN, "there are no training and held-out answers to compare")
    prompts = evidence.prompts
    if prompts and (of_another_kind(prompts) or prompts.without_frame > at.TEMPLATE_LACKING):
        return Finding(name, UNKNOWN, "served prompts are not as those that were trained on, and their answers neither")
    trained, held_out = evidence.trained, evidence.held_out
    if abs(trained.nats_target.value - held_out.nats_target.value) > at.FOREIGN_NATS:
        return Finding(name, UNKNOWN, "training and held-out answers are not of one kind: the target tells them apart")
    gap = trained.agreement - held_out.agreement
    numbers = {"trained": trained.agreement, "held_out": held_out.agreement, "kl": [trained.kl, held_out.kl]}
    says = f"the draft agrees with the target on {percent(trained.agreement)} of the tokens of training answers and "
    says += f"{percent(held_out.agreement)} of held-out ones (KL {trained.kl:.3f} and {held_out.kl:.3f} nats)"
    if gap <= at.OVERFIT:
        return Finding(name, OK, says, numbers=numbers)
    passes = f" after {evidence.draft.epochs:g} epochs" if evidence.draft else ""
    change = ("--config.data.num_train=4000", "--config.draft.epochs=1")
    command = commands.retrain(evidence, *(change if evidence.generated else ("--config.answers.source=mixed",)))
    return Finding(
        name, CAUSE, f"the draft has learnt its training data by heart{passes}: {says}", gap, command, numbers
    )


def recipe(evidence: Evidence) -> Finding:
    """Normaliser, budget and selection."""
    name = "recipe"
    if (made := evidence.recipe) is None:
        return Finding(name, UNKNOWN, _NO_LOG)
    numbers = {"fraction": made.fraction, "normalize": made.normalize, "budget": made.budget}
    numbers |= {"selection": made.selection, "label_passes": made.label_passes, "over_reference": made.over_reference}
    said = f"k = {made.fraction:g}, budget {made.budget}, normalize {made.normalize}, selection {made.selection}: the "
    said += f"draft learnt from {made.label_passes:.2f} times the baseline's labels"
    over = made.over_reference
    if over is None:
        return Finding(name, UNKNOWN, f"{said}; there is no baseline to compare it with", numbers=numbers)
    said += f", and has {100 * over[0]:+.1f} points [{100 * over[1]:+.1f}, {100 * over[2]:+.1f}] of its acceptance"
    worse = over[2] < 0 and over[0] < -at.LEAST_COST
    command = commands.retrain(
        evidence, "--config.draft.fraction=0.4", "--config.draft.budget=official", "--config.draft.normalize=paper"
    )
    if worse and (made.label_passes < at.SELECTED_LEAST or made.selection in ("bottom", "random")):
        says = f"the draft is worse than the baseline that it was to improve on, by its settings: {said}"
        return Finding(name, CAUSE, says, -over[0], command, numbers)
    return Finding(name, OK, said, numbers=numbers)


def capacity(evidence: Evidence, others: tuple[Finding, ...]) -> Finding:
    """Whether the draft fits no better: judged when nothing else explains what is missing."""
    name = "capacity"
    if evidence.own is None:
        return Finding(name, UNKNOWN, "nothing was measured along a text")
    own, curve = evidence.own, evidence.draft
    sizes = evidence.parameters
    small = f"the draft has {sizes['draft']:,} parameters and the target {sizes['target']:,}" if sizes else ""
    numbers = {"acceptance": own.acceptance.value, "parameters": sizes}
    if own.acceptance.low >= at.HIGH or own.acceptance.value >= at.HIGH:
        return Finding(name, OK, f"acceptance is {percent(own.acceptance.value)}; {small}", numbers=numbers)
    if curve is None or evidence.trained is None:
        return Finding(name, UNKNOWN, f"{_NO_LOG}; {small}", numbers=numbers)
    blamed = [finding.check for finding in others]
    if blamed:
        return Finding(name, UNKNOWN, f"not before this is mended: {', '.join(blamed)}; {small}", numbers=numbers)
    trained = evidence.trained
    numbers |= {"trained": trained.agreement, "kl": trained.kl}
    says = "the draft fits no better: training had levelled off, and even on training answers it agrees with the "
    says += f"target on {percent(trained.agreement)} of the tokens (KL {trained.kl:.2f} nats); {small}"
    costs = max(1 - own.acceptance.value, 0.0)
    return Finding(name, CAUSE, says, costs, _larger(evidence), numbers)


def _larger(evidence: Evidence) -> str | None:
    if evidence.is_head:
        return commands.evaluate(evidence)
    return commands.retrain(evidence, "--config.draft.init=cut", "--config.draft.layers=(0,1)")

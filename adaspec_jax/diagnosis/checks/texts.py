"""Whether what was trained on, what is asked and what is answered belong together."""

from __future__ import annotations

from adaspec_jax.diagnosis import commands
from adaspec_jax.diagnosis import thresholds as at
from adaspec_jax.diagnosis.evidence import Evidence, Prompts
from adaspec_jax.diagnosis.finding import CAUSE, OK, UNKNOWN, Finding, percent, points

_NO_PROMPTS = "it is not known which prompts the draft was trained on"


def contamination(evidence: Evidence) -> Finding:
    name = "contamination"
    if (prompts := evidence.prompts) is None:
        return Finding(name, UNKNOWN, _NO_PROMPTS)
    share = prompts.shared / max(prompts.served, 1)
    numbers = {"shared": prompts.shared, "served": prompts.served}
    says = f"{prompts.shared} of {prompts.served} served prompts were trained on"
    if share <= at.SHARED:
        return Finding(name, OK, says, numbers=numbers)
    says += ": acceptance on new ones is lower than measured"
    command = commands.retrain(evidence, "--config.data.contamination=remove")
    command = commands.evaluate_on_own(evidence) if evidence.names.own_prompts or command is None else command
    return Finding(name, CAUSE, says, None, command, numbers)


def repetition(evidence: Evidence) -> Finding:
    name = "repetition"
    if evidence.looping is None:
        return Finding(name, UNKNOWN, "no answers were written")
    numbers = {"looping": evidence.looping}
    says = f"{percent(evidence.looping)} of the target's answers end in a repetition"
    if evidence.looping <= at.LOOPING:
        return Finding(name, OK, says, numbers=numbers)
    says += ": acceptance is that of text nobody reads; the target needs training, or a temperature above 0"
    return Finding(name, CAUSE, says, None, commands.evaluate(evidence, "--temperature=0.8"), numbers)


def foreign(evidence: Evidence) -> Finding:
    """Training answers that the target would not write."""
    name = "whose answers"
    if evidence.from_targets_answers:
        return Finding(name, OK, "the draft was trained on the target's own answers")
    if evidence.trained is None or evidence.drawn is None:
        return Finding(name, UNKNOWN, "the answers that the draft was trained on are not known")
    theirs, own = evidence.trained.nats_target, evidence.drawn.nats_target
    gap = theirs.value - own.value
    numbers = {"training_answers": theirs.value, "own_answers": own.value}
    says = f"the target finds {theirs.value:.2f} nats a token [{theirs.low:.2f}, {theirs.high:.2f}] in the training "
    says += f"answers and {own.value:.2f} in answers that it draws to the same prompts"
    if gap <= at.FOREIGN_NATS:
        return Finding(name, OK, says, numbers=numbers)
    costs = max(evidence.trained.agreement - evidence.drawn.agreement, 0.0)
    says = f"the draft learnt from text that the target would not write: {says}; agreement is "
    says += f"{percent(evidence.trained.agreement)} along the former and {percent(evidence.drawn.agreement)} along the "
    says += "latter"
    command = commands.retrain(evidence, "--config.answers.source=target")
    return Finding(name, CAUSE, says, costs, command, numbers)


def shift(evidence: Evidence) -> Finding:
    """Served prompts of another kind than those that were trained on."""
    name = "prompts' kind"
    if (prompts := evidence.prompts) is None or evidence.own_to_trained is None:
        return Finding(name, UNKNOWN, _NO_PROMPTS)
    new, usual = prompts.new_pairs, prompts.usual_new_pairs
    numbers = {"new_pairs": new, "usual_new_pairs": usual}
    there, here = evidence.own_to_trained.acceptance.value, evidence.own.acceptance.value
    numbers |= {"acceptance_trained_prompts": there, "acceptance": here}
    says = f"{percent(new)} of the served prompts' pairs of tokens are in no training prompt, of training prompts "
    says += f"{percent(usual)} are in no other; acceptance is {percent(here)} and {percent(there)} there"
    if not of_another_kind(prompts) or there - here <= at.LEAST_COST:
        return Finding(name, OK, says, numbers=numbers)
    command = commands.evaluate_on_own(evidence)
    if (file := evidence.names.file) is not None:
        on_it = [f"--config.data.train={file}", "--config.data.held_out=50", "--config.answers.source=target"]
        column = evidence.names.column
        on_it += [f"--config.data.prompt_column={column}"] if column else []
        command = commands.retrain(evidence, *on_it) or command
    says = f"what is asked is not what was trained on: {says} ({points(there - here)} apart)"
    return Finding(name, CAUSE, says, there - here, command, numbers)


def of_another_kind(prompts: Prompts) -> bool:
    """Whether served prompts are, by the pairs of tokens that are in them."""
    new, usual = prompts.new_pairs, prompts.usual_new_pairs
    return new > at.SHIFTED_PAIRS * usual and new > usual + at.SHIFTED_LEAST

"""Whether the two read the same tokens, in the same frame, to the same end."""

from __future__ import annotations

from adaspec_jax.diagnosis import commands
from adaspec_jax.diagnosis import thresholds as at
from adaspec_jax.diagnosis.evidence import Evidence
from adaspec_jax.diagnosis.finding import CAUSE, OK, UNKNOWN, Finding, percent, points


def tokenizer(evidence: Evidence) -> Finding:
    name = "tokenizer"
    if evidence.tokenizer is not None:
        says = f"the draft has another tokenizer than the target: {evidence.tokenizer}"
        return Finding(name, CAUSE, says, command=commands.doctor(evidence), fatal=True)
    if (own := evidence.own) is None:
        return Finding(name, UNKNOWN, "nothing was measured along a text")
    numbers = {"nats_draft": own.nats_draft, "nats_unigram": own.nats_unigram}
    read = f"{own.nats_draft:.2f} nats a token, and {own.nats_unigram:.2f} by how often each is there"
    learnt = evidence.draft is not None and _well_trained(evidence)
    unread = own.nats_draft > own.nats_unigram and own.agreement < at.UNREAD
    if unread and (evidence.draft is None or learnt):
        why = f"its training ended at an agreement of {percent(evidence.draft.agreement_end)}" if learnt else ""
        says = "the draft reads other tokens than the target writes, or was never trained: it finds their text less "
        says += f"likely than a draft would that knows no more than how frequent tokens are ({read})"
        says += f", though {why}: these are not the weights, or not the ids, that were trained" if why else ""
        return Finding(name, CAUSE, says, 1 - own.acceptance.value, commands.doctor(evidence), numbers, True)
    files = "both tokenizers are equal" if evidence.own_tokenizer else "the draft comes with no tokenizer of its own"
    return Finding(name, OK, f"{files}, and the draft reads the target's text ({read})", numbers=numbers)


def _well_trained(evidence: Evidence) -> bool:
    return (evidence.draft.agreement_end or 0.0) > 0.3


def template(evidence: Evidence) -> Finding:
    name = "template"
    if evidence.template is not None:
        says = f"target and draft have different chat templates: {evidence.template}"
        return Finding(name, CAUSE, says, command=commands.doctor(evidence))
    if (prompts := evidence.prompts) is None:
        return Finding(name, UNKNOWN, "it is not known which prompts the draft was trained on")
    numbers = {"without_frame": prompts.without_frame}
    if not prompts.frame:
        return Finding(name, OK, "the prompts that were trained on have no text in common", numbers=numbers)
    lacking = f"{percent(prompts.without_frame)} of the served prompts lack what all training prompts have, "
    lacking += f"{prompts.frame.strip()[:90]!r}"
    if prompts.without_frame <= at.TEMPLATE_LACKING or evidence.framed is None:
        return Finding(name, OK, lacking, numbers=numbers)
    costs = evidence.framed.acceptance.value - evidence.own.acceptance.value
    numbers |= {"acceptance_framed": evidence.framed.acceptance.value, "acceptance": evidence.own.acceptance.value}
    says = f"{lacking}; with it acceptance is {percent(evidence.framed.acceptance.value)}, and as they are served "
    says += percent(evidence.own.acceptance.value)
    verdict = CAUSE if costs >= at.LEAST_COST else OK
    return Finding(name, verdict, says, max(costs, 0.0), commands.evaluate(evidence), numbers)


def ends(evidence: Evidence) -> Finding:
    name = "ends of text"
    if (own := evidence.own) is None:
        return Finding(name, UNKNOWN, "nothing was measured along a text")
    numbers = {"ended": own.ended, "end_acceptance": own.end_acceptance, "end_draft": own.end_draft}
    if (evidence.unended_rows or 0.0) > at.ROWS_CUT and _should_have_ended(evidence):
        return _cut(evidence, numbers)
    if evidence.trained is not None and evidence.trained.ended > at.ENDED_MOST:
        drawn = evidence.drawn.ended if evidence.drawn else own.ended  # hot text ends nowhere, and is not to blame
        if max(own.ended, drawn) < at.ENDED_LEAST:
            return _endless(evidence, numbers)
    if own.end_acceptance is None:
        return Finding(name, UNKNOWN, "none of the target's answers ended within its tokens", numbers=numbers)
    elsewhere = own.acceptance.value
    found = f"the draft gives the end of text {percent(own.end_draft)} where the target ends, and the target "
    found += f"{percent(own.end_target)}; acceptance there is {percent(own.end_acceptance)}, elsewhere "
    found += percent(elsewhere)
    of_tokens = own.ended * own.texts / own.tokens
    telling = elsewhere >= at.ENDS_ELSEWHERE or own.end_draft < at.ENDS_UNSEEN * of_tokens
    if own.end_acceptance < at.ENDS_BELOW * elsewhere and telling:
        costs = (elsewhere - own.end_acceptance) * of_tokens
        says = f"the draft has not learnt where texts end: {found}"
        return Finding(name, CAUSE, says, costs, commands.doctor(evidence), numbers)
    return Finding(name, OK, found, numbers=numbers)


def _should_have_ended(evidence: Evidence) -> bool:
    """Whether answers as long as those that were trained on would have an end, and the target's have none."""
    if evidence.trained is None or evidence.own.ended >= at.ENDED_LEAST:
        return False
    return evidence.trained.tokens / evidence.trained.texts <= evidence.served.max_new_tokens


def _cut(evidence: Evidence, numbers: dict) -> Finding:
    says = f"{percent(evidence.unended_rows)} of the training answers were cut before their end of text, and "
    says += (
        f"{percent(evidence.own.ended)} of the target's own answers end within {evidence.served.max_new_tokens} tokens"
    )
    numbers["unended_rows"] = evidence.unended_rows
    command = commands.retrain(evidence, "--config.data.max_length=1024", "--config.data.buckets=(256,512,1024)")
    return Finding("ends of text", CAUSE, says, None, command, numbers)


def _endless(evidence: Evidence, numbers: dict) -> Finding:
    own, trained = evidence.own, evidence.trained
    says = f"{percent(own.ended)} of the target's answers end within {evidence.served.max_new_tokens} tokens, and "
    says += f"{percent(trained.ended)} of the training answers do: the target goes on where it should end"
    costs = max(trained.acceptance.value - own.acceptance.value, 0.0)
    if costs:
        says += f" (acceptance is {points(costs)} higher along training answers)"
    return Finding("ends of text", CAUSE, says, costs, commands.doctor(evidence), numbers)

"""Drafting that goes on while the target verifies, on paper: what it could buy. Nothing here decodes so.

EdgeLLM (IEEE TMC; earlier LLMCad, arXiv 2309.04255) drafts on while a phone reads the target from storage, as its
abstract says. SpecPIM (ASPLOS 2024) places draft and target on units in memory; its abstract leaves open whether both
run at once, and this is what that could gain. The model is ours, and arithmetic: a jitted program runs one after the
other.
"""

from __future__ import annotations

from adaspec_jax.decoding.speedup import speedup, tokens_per_round


def overlapped_speedup(
    alpha: float,
    gamma: int,
    cost_ratio: float,
    verify_cost: float = 1.0,
    *,
    draft_slowdown: float = 1.0,
    verify_slowdown: float = 1.0,
) -> float:
    """Expected speed over plain decoding where two units draft and verify at once; `speedup` where one does both.

    While the target judges `gamma` guesses, the drafter goes on from them: one guess of the token that the target adds
    when it accepts them all, then up to `gamma` for the next round. These are kept if all were accepted and that one
    guess was made in time and is right, together alpha^(gamma + 1) of the rounds; else drafting begins anew, at once.
    So each guess is accepted independently with probability alpha, and a round commits `tokens_per_round` as always;
    only the time before the next verification is less.

    The first four are those of `decoding.speedup.speedup`, and can be measured there. No paper that we could read gives
    the last two, how many times longer each takes while the other runs: they lie between 1, two units with memories of
    their own, and 2, two that share one memory evenly and wait for nothing else, which never gains (both ours: take a
    range). ValueError below 1, and as `speedup`.
    """
    if draft_slowdown < 1 or verify_slowdown < 1:
        raise ValueError(f"a slowdown must be at least 1, got {draft_slowdown} and {verify_slowdown}")
    if gamma == 0:
        return speedup(alpha, gamma, cost_ratio, verify_cost)  # nobody drafts
    anew = tokens_per_round(alpha, gamma) / speedup(alpha, gamma, cost_ratio, verify_cost) - verify_cost
    ahead = (gamma + 1) * cost_ratio  # what there is to draft during a verification
    both = min(ahead * draft_slowdown, verify_cost * verify_slowdown)  # so long both run
    verifying = verify_cost + both * (1 - 1 / verify_slowdown)
    left = min(anew, ahead - both / draft_slowdown)  # to draft where the guesses ahead are kept
    kept = alpha ** (gamma + 1)
    return tokens_per_round(alpha, gamma) / (verifying + kept * left + (1 - kept) * anew)

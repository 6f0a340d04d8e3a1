"""Lossless: rejection sampling from the residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jax import Array

from adaspec_jax.decoding.acceptance.walk import walk
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.types import Proposal, Verdict


@dataclass(frozen=True)
class RejectionSample:
    """Lossless: the committed tokens follow the target's law exactly, for chains and trees, sampled or greedy.

    Nodes are visited in topological order and node n is tested if and only if its parent is where we stand. It is
    accepted with probability min(1, residual[x] / q[x]); then the residual becomes the target's law after n. On refusal
    the residual becomes norm((residual - q)+), with which the next sibling is tested. The next token is drawn from the
    residual where the walk ends: the correction and the bonus token are one line. A chain gives Leviathan et al. 2023
    (arXiv 2211.17192) and Chen et al. 2023 (2302.01318); i.i.d. siblings give the multi-round rule of SpecInfer
    (2305.09781). Greedy is the same rule with a one-hot target, for which the target's choices say everything.
    """

    lossless: ClassVar[bool] = True
    opinion: ClassVar[bool] = False

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        return walk(key, proposal, logits_BMV, sampling, lambda probability: probability)


rejection_sample = RejectionSample()

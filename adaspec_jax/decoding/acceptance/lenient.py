"""Lossy: DistillSpec's lenience."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jax import Array

from adaspec_jax.decoding.acceptance.walk import walk
from adaspec_jax.decoding.sampling import Sampling
from adaspec_jax.decoding.types import Proposal, Verdict


@dataclass(frozen=True)
class Lenient:
    """Lossy: accepts with probability min(1, f(p[x]) / q[x]), more than the target's law allows (DistillSpec).

    f(p) is p / epsilon ("linear"), p / epsilon^2 ("square") or p^epsilon ("exponential"), with epsilon in (0, 1]; 1 is
    `rejection_sample`. What is drawn after a refusal is as there. Greedy decoding is left as it is: one-hot laws leave
    nothing to be lenient about. (arXiv 2310.08461; from notes on the paper.)
    """

    epsilon: float
    form: str = "linear"
    lossless: ClassVar[bool] = False
    opinion: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 1 or self.form not in _FORMS:
            forms = ", ".join(_FORMS)
            raise ValueError(f"lenience needs epsilon in (0, 1] and one of {forms}, not {self.epsilon}, {self.form!r}")

    def __call__(self, key: Array, proposal: Proposal, logits_BMV: Array, sampling: Sampling) -> Verdict:
        return walk(key, proposal, logits_BMV, sampling, lambda p: _FORMS[self.form](p, self.epsilon))


_FORMS = {
    "linear": lambda p, epsilon: p / epsilon,
    "square": lambda p, epsilon: p / epsilon**2,
    "exponential": lambda p, epsilon: p**epsilon,
}

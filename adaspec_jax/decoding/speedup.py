"""What an acceptance rate buys: expected tokens per round, speed-up, and the rate at which drafting pays.

The model is Leviathan, Kalman and Matias (2023), "Fast inference from transformers via speculative decoding", section
3, which AdaSPEC's equations 4 and 5 repeat: each guess is accepted independently with the same probability alpha.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


def tokens_per_round(alpha: float, gamma: int) -> float:
    """Expected tokens per target call, (1 - alpha^(gamma+1)) / (1 - alpha): from 1 to gamma + 1, bonus included.

    `alpha` in [0, 1], `gamma` guesses per round; ValueError outside. Leviathan et al. 2023, eq. 1; AdaSPEC eq. 4.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
    if gamma < 0 or gamma != int(gamma):
        raise ValueError(f"gamma must be a whole number of guesses, got {gamma}")
    # The geometric sum itself: equal to the closed form, and exact at and near alpha = 1 where that divides 0 by 0.
    return float(sum(alpha**k for k in range(int(gamma) + 1)))


def speedup(alpha: float, gamma: int, cost_ratio: float, verify_cost: float = 1.0) -> float:
    """Expected speed over plain decoding, tokens_per_round / (gamma * cost_ratio + verify_cost).

    `cost_ratio` = one draft step / one target step; `verify_cost` = one (gamma + 1)-token target call / one target
    step, 1 while decoding is bound by reading weights. Leviathan et al. 2023, theorem 3.8; AdaSPEC eq. 5.
    """
    return tokens_per_round(alpha, gamma) / _round_cost(gamma, cost_ratio, verify_cost)


def break_even_alpha(gamma: int, cost_ratio: float, verify_cost: float = 1.0) -> float | None:
    """The smallest alpha whose `speedup` is at least 1, within 1e-12; None if even alpha = 1 is slower than plain."""
    cost = _round_cost(gamma, cost_ratio, verify_cost)
    if tokens_per_round(0.0, gamma) >= cost:
        return 0.0
    if tokens_per_round(1.0, gamma) < cost:
        return None
    low, high = 0.0, 1.0  # tokens_per_round grows with alpha: below cost at low, at or above it at high
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if tokens_per_round(middle, gamma) < cost else (low, middle)
    return high


def best_draft_length(
    alpha: float, cost_ratio: float, verify_cost: Callable[[int], float], *, longest: int = 16
) -> tuple[int, float]:
    """(gamma, `speedup` there) for the best of 1 .. `longest` guesses; (0, 1.0) where none is faster than plain.

    `verify_cost(gamma)`: one (gamma + 1)-token target call / one target step, measured at that length.
    """
    options = {gamma: speedup(alpha, gamma, cost_ratio, verify_cost(gamma)) for gamma in range(1, longest + 1)}
    best = max(options, key=options.__getitem__)
    return (best, options[best]) if options[best] > 1 else (0, 1.0)


@dataclass(frozen=True)
class RoundCosts:
    """What the parts of a round cost at one batch size, in any one unit, measured or assumed."""

    first: float  # a round's first draft step, which reads what was committed
    further: float  # each draft step after it
    verification: Mapping[int, float]  # of so many guesses, at some lengths; 0, a plain step, is one of them

    def of(self, guesses: int, widths: Sequence[int] = ()) -> float:
        """A round with so many guesses, verified at the smallest of these widths that holds them; without widths, at
        their own. ValueError beyond the longest length whose verification is known."""
        width = min((width for width in widths if width >= guesses), default=guesses)
        drafting = self.first + (guesses - 1) * self.further if guesses else 0.0
        return drafting + between(self.verification, width)


def between(measured: Mapping[int, float], length: int) -> float:
    """A verification of any length up to the longest measured: interpolated linearly."""
    if length in measured:
        return measured[length]
    low, high = max(n for n in measured if n < length), min(n for n in measured if n > length)
    share = (length - low) / (high - low)
    return measured[low] + share * (measured[high] - measured[low])


def _round_cost(gamma: int, cost_ratio: float, verify_cost: float) -> float:
    if cost_ratio < 0 or verify_cost <= 0:
        raise ValueError(f"costs must be positive, got cost_ratio {cost_ratio} and verify_cost {verify_cost}")
    return gamma * cost_ratio + verify_cost

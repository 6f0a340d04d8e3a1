"""A parity certificate in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def in_words(found: Mapping[str, Any]) -> str:
    """What was compared and how well it agrees, in one line, and a line per answer that differs."""
    alphas = [
        f"alpha {100 * found[f'alpha_{side}']:.1f} % ({found[f'accepted_{side}']} of {found[f'judged_{side}']}) {place}"
        for side, place in (("ours", "here"), ("transformers", "there"))
    ]
    logits = " and ".join(f"{value:.1g} ({name})" for name, value in found["max_logit_difference"].items())
    verdict = "holds" if found["passed"] else "DOES NOT HOLD"
    lines = [
        f"parity with transformers {found['versions']['transformers']} {verdict}: {found['identical_rows']} of "
        f"{found['prompts']} greedy answers identical, token agreement {100 * found['token_agreement']:.1f} %, "
        f"{' and '.join(alphas)}, logits differ by at most {logits}"
    ]
    for row in found["differences"]:
        lines.append(
            f"  prompt {row['prompt']} parts at new token {row['new_token']}, where the {row['model']}'s margin is "
            f"{row['margin']:.2g}: {'a near tie' if row['near_tie'] else 'not a tie'}"
        )
    return "\n".join(lines)

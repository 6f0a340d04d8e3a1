"""How the next token is taken, as options of the programs that decode; the names are those of transformers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from adaspec_jax.errors import UserError
from adaspec_jax.files import parsed
from adaspec_jax.options import AT_LEAST_NONE, real

if TYPE_CHECKING:
    from adaspec_jax.decoding import Sampling


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Processors, temperature and filters, in the order in which they apply."""
    parser.add_argument(
        "--logit_bias",
        type=_bias,
        default={},
        metavar="ID=BIAS,...",
        help="added to the logits of single tokens; or as JSON, '{\"13\": -5}'",
    )
    parser.add_argument(
        "--repetition_penalty",
        type=real(0, 1e6, above=True),
        default=1.0,
        help="above 1: tokens that stand in prompt or text become less likely, as in transformers",
    )
    parser.add_argument(
        "--suppress_tokens", type=_ids, default=(), metavar="ID,...", help="tokens that are never written"
    )
    parser.add_argument("--temperature", type=real(0, 1e6), default=0.0, help="0, the default: the likeliest token")
    parser.add_argument("--top_k", type=AT_LEAST_NONE, default=0, help="draws from so many likeliest tokens; 0: all")
    parser.add_argument(
        "--top_p", type=real(0, 1, above=True), default=1.0, help="draws from the likeliest tokens with so much in all"
    )
    parser.add_argument(
        "--min_p", type=real(0, 1), default=0.0, help="the least share of the likeliest token's probability"
    )
    parser.add_argument(
        "--shared_noise",
        action="store_true",
        help="sampling: a seed's text is the same with every drafter, and without one",
    )


def sampling_of(arguments: argparse.Namespace) -> Sampling:
    """What the options of `add_sampling` say; UserError for what makes no law."""
    from adaspec_jax.decoding import Sampling

    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "logit_bias", "suppress_tokens")
    names += ("shared_noise",)
    try:
        return Sampling(**{name: getattr(arguments, name) for name in names})
    except ValueError as error:
        raise UserError(f"--{error}") from None


def spelt_out(arguments: argparse.Namespace) -> list[str]:
    """The options of `add_sampling` that were given, as they are typed."""
    parser, parts = argparse.ArgumentParser(), []
    add_sampling(parser)
    for name, default in vars(parser.parse_args([])).items():
        value = getattr(arguments, name)
        if isinstance(value, dict):
            value = ",".join(f"{token}={bias!r}" for token, bias in value.items())
        elif isinstance(value, tuple):
            value = ",".join(map(str, value))
        if value and value != default:
            parts += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return parts


def check_fits(sampling: Sampling, vocab_size: int) -> None:
    """UserError where a token is named that the target does not have."""
    try:
        sampling.check_fits(vocab_size)
    except ValueError as error:
        raise UserError(f"--{error}") from None


def _bias(text: str) -> dict[int, float]:
    try:
        if text.lstrip().startswith("{"):
            pairs = parsed(text).items()
        else:
            pairs = [part.split("=") for part in text.split(",")]
        found = {int(token): float(value) for token, value in pairs}
    except (TypeError, ValueError):
        raise UserError(f"--logit_bias is {text}; give ids with what is added to each, as in 13=-5,198=2.5") from None
    if len(found) < len(pairs):
        raise UserError(f"--logit_bias is {text}; give each id once")
    return found


def _ids(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(token) for token in text.split(","))
    except ValueError:
        raise UserError(f"--suppress_tokens is {text}; give ids with commas between them, as in 13,198") from None

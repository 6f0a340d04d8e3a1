"""CTC drafting: EAGLE's layer, trained so that its guesses may repeat or be blank, and collapsed in decoding.

Wen et al. 2024 (arXiv 2412.00061), as the released code has it: input, layer, frozen embeddings and output matrix are
EAGLE's. Beside EAGLE's loss the head's laws at six places in a row, all of the text's own states, are a CTC input, of
which the target's three likeliest tokens there are the label. Decoding drops guesses that repeat the one before them,
and blanks, and judges what is left.

The released code's blank is token 0, "<unk>" of its targets, and so a token that is never guessed. Which token a text
never holds differs from target to target, and some have none: here the blank is a column of the head's own [ours], and
`blank=0` is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from adaspec_jax.models.causal_lm import CausalLM
from adaspec_jax.models.heads.parts.checked import check_knobs
from adaspec_jax.models.heads.parts.head import Head
from adaspec_jax.models.heads.parts.layer import init_layer
from adaspec_jax.models.heads.parts.recurrent import OnTarget, Recurrent, linear
from adaspec_jax.models.unowned_rows import RULED_OUT


@dataclass(frozen=True, kw_only=True)
class Ctc(Recurrent):
    """EAGLE's weights and noise, and `alignment` times the CTC loss of `labels` tokens in `frames` places.

    `blank`: the token that stands for none, or -1: a column beside the target's, which the law's divergence counts in
    as the target's tokens of no probability are.
    """

    name = "ctc"
    paper = "arXiv 2412.00061"

    features: float = 1.0
    laws: float = 0.1
    noise: float = 0.2
    alignment: float = 0.01
    frames: int = 6
    labels: int = 3
    blank: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_knobs(self, counts=("frames", "labels"))
        if not 0 <= self.alignment < float("inf"):
            raise ValueError(f"alignment is {self.alignment}; it must be a number from 0 on")
        if self.labels > self.frames:
            raise ValueError(f"labels is {self.labels}; {self.frames} frames hold no more than {self.frames}")
        if not -1 <= self.blank < self.sizes.vocab_size:
            raise ValueError(f"blank is {self.blank}; a token of {self.sizes.vocab_size}, or -1, is needed")

    @property
    def own_blank(self) -> bool:
        return self.blank < 0

    @property
    def blank_column(self) -> int:
        """Where `logits` have the blank."""
        return self.sizes.vocab_size if self.own_blank else self.blank

    def init(self, key: Array, target: CausalLM, counts_V: np.ndarray):
        """The blank's column begins as zeros."""
        del target, counts_V
        keys, size = jax.random.split(key, 2), self.sizes.hidden_size
        params = {"fc": linear(keys[0], 2 * size, size, self.sizes.initializer_range)}
        params["layer"] = init_layer(self.layer, keys[1], size)
        if self.own_blank:
            params["blank"] = {"kernel": jnp.zeros((size, 1), jnp.float32)}
        return params, None

    def joined(self, params, embedded: Array, hidden: Array) -> tuple[Array, Array]:
        joint = jnp.concatenate([embedded, hidden], axis=-1) @ params["fc"]["kernel"]
        return joint, joint

    def outward(self, params, term: int) -> dict:
        return {"blank": params["blank"]} if self.own_blank else {}

    def logits(self, head: Head, target: CausalLM, hidden: Array, term: int = 0) -> Array:
        """Over the target's tokens and the blank."""
        del term
        logits = target.unembed(hidden)
        if not self.own_blank:
            return logits
        kernel_D1 = head.params["blank"]["kernel"]
        blank = jnp.einsum("...d,dv->...v", hidden, kernel_D1, preferred_element_type=jnp.float32)
        return jnp.concatenate([logits, blank], axis=-1)

    def among(self, head: Head, logits: Array) -> Array:
        """The target never says the blank that is no token."""
        if not self.own_blank:
            return logits
        return jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(0, 1)], constant_values=RULED_OUT)

    def spread(self, head: Head, logits: Array) -> Array:
        """As if the blank were not among the guesses, where it is no token."""
        return logits[..., :-1] if self.own_blank else logits

    def on_target(self, head: Head, target: CausalLM) -> InFrames:
        return InFrames(head, target.ends())


class InFrames(OnTarget):
    """The head beside its target, for decoding that has blanks."""

    @property
    def blank(self) -> int:
        """The blank's column in `with_blank`'s logits."""
        return self.head.config.blank_column

    @property
    def tokens(self) -> int:
        """How many of these columns are the target's, the first ones."""
        return self.head.config.vocab_size

    def with_blank(self, made: Array) -> Array:
        """Float32 logits [..., V] or [..., V + 1], the blank among them."""
        return self.head.logits(self.target, made)


KIND = Ctc
